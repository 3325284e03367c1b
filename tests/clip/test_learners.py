"""What every prompt learner keeps to: its features and logits, its options, and its files."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pyfastcal import DistanceAwareCalibration, reference, textual_deviation
from pyfastcal.clip import encode_images, import_open_clip, load_small, prompts
from pyfastcal.clip.prompts import LEARNERS, CoCoOp, CoOp, MaPLe, ProDA, PromptSRC

from .learners import SHORT, TUNE_IMAGES, every_learner


@pytest.fixture(scope="module")
def learners(shapes, data):
    """``learners(name)``: tuned once, for all tests."""
    done = {}

    def tuned(name):
        if name not in done:
            learner = LEARNERS[name](shapes, template=data.template, **SHORT[name])
            done[name] = learner.fit(*data.train, data.base_classes, seed=1)
        return done[name]

    return tuned


@every_learner
def test_training_loss_falls(learners, name):
    losses = learners(name).losses
    assert len(losses) == SHORT[name]["epochs"] and losses[-1] < 0.97 * losses[0], losses


@every_learner
def test_features_and_logits_of_any_classes(shapes, data, learners, name):
    learner, names, images = learners(name), data.new_classes, data.new_test.images[:6]
    texts, features = learner.text_features(names), learner.features(images)
    logits = learner.logits(images, names)
    assert texts.shape == (16, 64) and features.shape == (6, 64) and logits.shape == (6, 16)
    for x in (texts, features, logits):
        assert x.dtype == torch.float32 and not x.requires_grad
    for x in (texts, features):
        torch.testing.assert_close(x.norm(dim=1), torch.ones(len(x)))
    torch.testing.assert_close(learner.text_features(names[3:5]), texts[3:5], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(learner.logits(features, names), logits, rtol=1e-4, atol=1e-3)
    assert torch.equal(learner.image_features(images), features)
    plain = encode_images(shapes.model, images)
    assert torch.equal(learner.zeroshot_features(images), plain)
    assert torch.equal(features, plain) == (name not in TUNE_IMAGES) == (not learner.tunes_images)
    if name not in ("CoCoOp", "ProDA"):  # whose logits are their own
        torch.testing.assert_close(logits, 100 * features @ texts.T, rtol=1e-4, atol=1e-3)
    assert learner.logit_scale == pytest.approx(100, rel=1e-5)


@every_learner
def test_its_classifier_gives_its_logits(data, learners, name):
    learner, images = learners(name), data.new_test.images[:6]
    classifier = learner.classifier(data.new_classes)
    torch.testing.assert_close(classifier(images), learner.logits(images, data.new_classes), rtol=1e-4, atol=1e-3)


@every_learner
def test_saved_and_loaded(shapes, data, learners, name, tmp_path):
    learner = learners(name)
    learner.save(tmp_path / "learner.safetensors")
    loaded = prompts.load(tmp_path / "learner.safetensors", shapes)
    assert type(loaded) is LEARNERS[name] and loaded.template == data.template
    assert loaded.extra_repr() == learner.extra_repr()
    for method in ("text_features", "classifier"):
        call = lambda x, m=method: getattr(x, m)(data.new_classes)  # noqa: E731
        a, b = call(learner), call(loaded)
        a, b = (a, b) if method == "text_features" else (a(data.new_test.images[:2]), b(data.new_test.images[:2]))
        assert torch.equal(a, b)
    assert type(loaded).load(tmp_path / "learner.safetensors", shapes).template == data.template
    wrong = next(kind for kind in LEARNERS.values() if kind is not type(learner))
    with pytest.raises(ValueError, match=rf"learner.safetensors: holds a {name}, not a {wrong.__name__}"):
        wrong.load(tmp_path / "learner.safetensors", shapes)


def test_other_files_and_models_are_refused(shapes, data, learners, tmp_path):
    learners("MaPLe").save(tmp_path / "maple.safetensors")
    narrow = import_open_clip().CLIP(
        embed_dim=64,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 96, "layers": 3, "head_width": 32},
        text_cfg={"context_length": 26, "vocab_size": 95, "width": 32, "heads": 1, "layers": 2},
    )
    with pytest.raises(ValueError, match=r"maple.safetensors: does not fit the model: .* size mismatch for context"):
        prompts.load(tmp_path / "maple.safetensors", narrow, shapes.tokenizer)
    (tmp_path / "other").write_text("not a learner")
    with pytest.raises(ValueError, match=r"other: not a file of a learner's save"):
        prompts.load(tmp_path / "other", shapes)


def test_forged_files_are_named(shapes, learners, tmp_path):
    path = tmp_path / "learner.safetensors"
    tensors = {key: value.clone() for key, value in learners("CoOp").state_dict().items()}
    settings = {"learner": "CoOp", "template": "a photo of a {}."}
    forged = [
        (3, tensors, "not a file of a learner's save"),
        ([], tensors, "not a file of a learner's save"),
        ({"learner": "CoOp"}, tensors, "not a file of a learner's save"),
        (settings | {"learner": ["CoOp"]}, tensors, r"holds a \['CoOp'\], not a CoOp or a"),
        (settings | {"template": 3}, tensors, "template must be a text"),
        (settings | {"n_context": -1}, tensors, "n_context must be an integer of at least 1, got -1"),
        (settings | {"depth": 3}, tensors, "CoOp has no option 'depth'"),
        (settings, {"context": tensors["context"] * torch.nan}, "context must be finite, got 1024 NaN"),
        (settings, {"context": tensors["context"].long()}, "context must be floating point"),
    ]
    for metadata, values, message in forged:
        save_file(values, path, metadata={"pyfastcal": json.dumps(metadata)})
        with pytest.raises(ValueError, match=rf"learner.safetensors: {message}"):
            prompts.load(path, shapes)
        prompts.files.learner_of(path)  # looks at any file


def test_proda_gives_the_means_that_published_dac_takes(shapes, data):
    """Its distances, restated with its own tools: tuned means shorter than 1, zero-shot features of length 1."""
    learner, classes = ProDA(shapes, n_prompts=8), (data.new_classes, data.base_classes)
    learner.context.data.copy_(5 * torch.randn(learner.context.shape, generator=torch.Generator().manual_seed(0)))
    tuned = [learner.text_features(names, normalize=False) for names in classes]
    zeroshot = [learner.zeroshot_text_features(names) for names in classes]
    assert tuned[0].norm(dim=1).max() < 0.995
    torch.testing.assert_close(F.normalize(tuned[0], dim=1), learner.text_features(classes[0]))
    images = F.normalize(torch.ones(1, 64), dim=1)
    torch.testing.assert_close(100 * images @ tuned[0].T, learner.logits(images, classes[0]), rtol=1e-4, atol=1e-3)

    def score(features, bank):
        distances = np.sort(np.linalg.norm(bank.numpy() - features.numpy(), axis=1))[:5]
        return np.exp(-distances.mean()), distances[0]

    published = []
    for c in range(len(classes[0])):
        (few, nearest), (zero, _) = score(tuned[0][c], tuned[1]), score(zeroshot[0][c], zeroshot[1])
        published.append(1.0 if nearest < 0.05 else few / zero)
    banks = dict(base_tuned=tuned[1], base_zeroshot=zeroshot[1])
    dac = DistanceAwareCalibration(normalize=False).fit(tuned=tuned[0], zeroshot=zeroshot[0], **banks)
    assert dac.class_weight.tolist() == pytest.approx(published, rel=1e-5)
    exact = [x.double() for x in (tuned[0], zeroshot[0], tuned[1], zeroshot[1])]
    assert reference.textual_deviation(*exact, normalize=False).tolist() == pytest.approx(published, rel=1e-5)
    own_bank = textual_deviation(tuned=tuned[0], zeroshot=zeroshot[0], normalize=False)
    torch.testing.assert_close(own_bank.double(), reference.textual_deviation(*exact[:2], normalize=False))
    # of directions, whichever is given
    ours = DistanceAwareCalibration().fit(tuned=tuned[0], zeroshot=zeroshot[0], **banks)
    assert (dac.class_weight - ours.class_weight).max() > 0.005
    directions = [learner.text_features(names) for names in classes]
    of_directions = textual_deviation(
        tuned=directions[0], zeroshot=zeroshot[0], base_tuned=directions[1], base_zeroshot=zeroshot[1]
    )
    torch.testing.assert_close(ours.class_weight, of_directions)


@every_learner
def test_features_as_the_logits_take_them(data, learners, name):
    learner, names = learners(name), data.new_classes
    raw, direction = learner.text_features(names, normalize=False), learner.text_features(names)
    assert torch.allclose(raw, direction, atol=1e-6) == (name != "ProDA")


def test_cocoop_says_for_which_images_its_text_features_are(shapes, data, learners):
    learner, names = copy.deepcopy(learners("CoCoOp")), data.new_classes
    features = learner.features(data.new_test.images)
    torch.testing.assert_close(learner.mean_feature, learner.features(data.train.images).mean(0))
    before = learner.text_features(names)
    assert not torch.allclose(learner.condition(features[:50]).text_features(names), before, atol=1e-4)
    # for a single image they are those that its logits are made of
    one = learner.condition(features[3:4]).text_features(names)
    torch.testing.assert_close(learner.logits(features[3:4], names)[0], 100 * one @ features[3], rtol=1e-4, atol=1e-3)
    untuned = CoCoOp(shapes)
    assert not untuned.mean_feature.any()


def test_deep_prompts_need_a_vision_transformer():
    open_clip = import_open_clip()
    text = {"context_length": 26, "vocab_size": 85, "width": 32, "heads": 1, "layers": 1}
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 32}
    tokenizer = load_small("digits").tokenizer
    for config, message in [
        ({"image_size": 32, "width": 32, "layers": [1, 1, 1, 1]}, "got ModifiedResNet without class_embedding"),
        (vision | {"pool_type": "avg"}, "got VisionTransformer that pools otherwise"),
        (vision | {"attentional_pool": True}, "got VisionTransformer that pools otherwise"),
    ]:
        model = open_clip.CLIP(embed_dim=8, vision_cfg=config, text_cfg=text)
        CoOp(model, tokenizer)
        for learner in (MaPLe, PromptSRC):
            with pytest.raises(ValueError, match=rf"^model must have a vision transformer.*{message}"):
                learner(model, tokenizer)
    for learner in (MaPLe, PromptSRC):  # a single layer leaves no room for deep prompts
        model = open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text)
        shallow = learner(model, tokenizer, epochs=1)
        shallow.fit(torch.randn(4, 3, 32, 32), torch.arange(4) % 2, ["digit one", "digit two"])
        assert len(shallow.deep_context) == 0


def test_a_model_with_a_logit_bias(shapes, data):
    model = copy.deepcopy(shapes.model)
    model.logit_bias = torch.nn.Parameter(torch.tensor([-7.0]))
    plain, biased = (CoOp(m, shapes.tokenizer, epochs=2) for m in (shapes.model, model))
    images = data.new_test.images[:3]
    expected = plain.logits(images, data.new_classes) - 7
    torch.testing.assert_close(biased.logits(images, data.new_classes), expected)
    torch.testing.assert_close(biased.classifier(data.new_classes)(images), expected)
    losses = [one.fit(*data.train, data.base_classes).losses for one in (plain, biased)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # softmax does not see it


def test_bad_options_are_named(shapes):
    for learner, options, message in [
        (CoOp, {"context_init": 3}, "context_init must be a text, got 3"),
        (ProDA, {"n_prompts": 6}, "prompt_batch must divide n_prompts, 6, got 4"),
        (MaPLe, {"depth": 0}, "depth must be an integer of at least 1"),
        (PromptSRC, {"lambda_1": -1.0}, "lambda_1 must be a finite number, at least 0.0"),
        (PromptSRC, {"sigma": 0.0}, "sigma must be a finite number, greater than 0.0"),
        (PromptSRC, {"templates": "a photo of a {}."}, "templates must be a list of templates"),
        (PromptSRC, {"templates": ["a photo"]}, r"templates must be a text with one \{\}"),
        (CoOp, {"momentum": float("nan")}, "momentum must be a finite number"),
    ]:
        with pytest.raises(ValueError, match=rf"^{message}"):
            learner(shapes, **options)
    with pytest.raises(TypeError, match="CoOp has no option 'depth', it has n_context, context_init, epochs"):
        CoOp(shapes, depth=3)
    with pytest.raises(TypeError, match="ProDA has no option 'context_init'"):
        ProDA(shapes, context_init="a photo of a")
    features = torch.randn(4, 63)
    with pytest.raises(ValueError, match=r"^images must have 64 columns as the model's features has"):
        CoOp(shapes).fit(features, torch.zeros(4, dtype=torch.int64), ["red circle"])
