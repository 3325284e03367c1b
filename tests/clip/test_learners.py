"""What every prompt learner keeps to."""

import copy
import json
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.utils.data import TensorDataset

from pyfastcal import DistanceAwareCalibration, reference, textual_deviation
from pyfastcal.clip import encode_images, import_open_clip, load_small, prompts, tasks
from pyfastcal.clip.prompts import LEARNERS, CoCoOp, CoOp, MaPLe, ProDA, PromptSRC

# Few steps, at rates at which the loss falls soon.
SHORT = {
    "CoOp": dict(epochs=12),
    "CoCoOp": dict(epochs=4, batch_size=8, lr=0.05),
    "ProDA": dict(epochs=5, batch_size=16, n_prompts=8, lr=5e-4),
    "KgCoOp": dict(epochs=12, batch_size=32, lr=0.02),
    "MaPLe": dict(epochs=3),
    "ProGrad": dict(epochs=12, lr=0.005),
    "PromptSRC": dict(epochs=3, mu=3),
}
TUNE_IMAGES = {"MaPLe", "PromptSRC"}
every_learner = pytest.mark.parametrize("name", LEARNERS)


@pytest.fixture(scope="module")
def shapes():
    return load_small("shapes")


@pytest.fixture(scope="module")
def data():
    return tasks.load("shapes", seed=0, shots=8)


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
def test_fit_touches_nothing_but_the_learner(shapes, data, name):
    before = {key: value.clone() for key, value in shapes.model.state_dict().items()}
    state = torch.random.get_rng_state()
    model = copy.deepcopy(shapes.model).train().requires_grad_(True)
    learner = LEARNERS[name](model, shapes.tokenizer, **SHORT[name] | {"epochs": 1})
    start = {key: value.clone() for key, value in learner.state_dict().items()}
    learner.fit(data.train.images[:16], data.train.labels[:16], data.base_classes)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(not torch.equal(p, start[key]) for key, p in learner.named_parameters())


@every_learner
def test_gradients_reach_every_prompt_parameter_and_no_other(shapes, data, name):
    model = copy.deepcopy(shapes.model).requires_grad_(True)
    learner = LEARNERS[name](model, shapes.tokenizer, **SHORT[name])
    bound, inputs = learner.bind(data.base_classes), learner.inputs(data.train.images[:8])
    loss, gradients = learner.gradients(inputs, data.train.labels[:8], bound)
    assert loss > 0 and len(gradients) == len(list(learner.parameters()))
    for parameter, gradient in zip(learner.parameters(), gradients, strict=True):
        assert gradient.shape == parameter.shape and gradient.isfinite().all() and gradient.any()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "ProGrad"])
def test_gradients_are_the_slope_of_the_loss(shapes, data, name):
    """In double precision, along a random direction. ProGrad mends its own: see its equation's test."""
    model = copy.deepcopy(shapes.model).double()
    learner = LEARNERS[name](model, shapes.tokenizer, n_context=3, **SHORT[name]).double()
    bound = learner.bind(data.base_classes[:4])
    if bound.fixed is not None:
        bound = bound._replace(fixed=bound.fixed.double())
    images, labels = data.train.images[:4].double(), torch.tensor([0, 1, 2, 3])
    inputs = learner.inputs(images)
    inputs = tuple(x.double() for x in inputs) if isinstance(inputs, tuple) else inputs.double()
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator).double() for p in learner.parameters()]

    def loss_at(step):
        learner._step = 0  # ProDA: the same prompts
        with torch.no_grad():
            for parameter, one in zip(learner.parameters(), direction, strict=True):
                parameter += step * one
            loss = learner.loss(inputs, labels, bound).item()
            for parameter, one in zip(learner.parameters(), direction, strict=True):
                parameter -= step * one
        return loss

    learner._step = 0
    _, gradients = learner.gradients(inputs, labels, bound)
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)).item()
    assert (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-4)


@every_learner
def test_a_seed_decides_the_result(shapes, data, learners, name):
    options = SHORT[name] | {"epochs": 2}
    images, labels = data.train.images[::4], data.train.labels[::4]

    def state(seed, learner=None):
        learner = learner or LEARNERS[name](shapes, **options)
        return {k: v.clone() for k, v in learner.fit(images, labels, data.base_classes, seed=seed).state_dict().items()}

    first, other, used = state(3), state(4), LEARNERS[name](shapes, **options)
    state(4, used)
    for again in (state(3), state(3, used)):  # a second fit starts afresh
        assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert any(not torch.equal(value, other[key]) for key, value in first.items())


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


@every_learner
def test_a_bfloat16_model(shapes, data, name):
    model = copy.deepcopy(shapes.model)
    import_open_clip().model.convert_weights_to_lp(model, dtype=torch.bfloat16)
    model = model.bfloat16()
    learner = LEARNERS[name](model, shapes.tokenizer, **SHORT[name])
    learner.fit(*data.train, data.base_classes, seed=1)
    assert learner.losses[-1] < learner.losses[0], learner.losses
    assert all(p.dtype == torch.float32 for p in learner.parameters())
    texts, images = learner.text_features(data.new_classes), learner.features(data.new_test.images[:64])
    assert texts.dtype == images.dtype == torch.float32
    reference = LEARNERS[name](shapes, **SHORT[name]).fit(*data.train, data.base_classes, seed=1)
    assert F.cosine_similarity(texts, reference.text_features(data.new_classes)).min() > 0.98
    assert model.visual.conv1.weight.dtype == torch.bfloat16


@every_learner
def test_fit_under_autocast(shapes, data, learners, name):
    learner = LEARNERS[name](shapes, **SHORT[name] | {"epochs": 2})
    learner.fit(data.train.images[:32], data.train.labels[:32], data.base_classes, autocast=torch.bfloat16)
    plain = LEARNERS[name](shapes, **SHORT[name] | {"epochs": 2})
    plain.fit(data.train.images[:32], data.train.labels[:32], data.base_classes)
    assert all(p.dtype == torch.float32 for p in learner.parameters())
    assert learner.losses != plain.losses and learner.losses == pytest.approx(plain.losses, rel=0.1)


@every_learner
def test_features_can_stand_for_the_images(shapes, data, name):
    options, (images, labels) = SHORT[name] | {"epochs": 2}, data.train
    features = 3 * encode_images(shapes.model, images)
    if name in TUNE_IMAGES:
        with pytest.raises(ValueError, match=r"^images must have 4 dimensions"):
            LEARNERS[name](shapes, **options).fit(features, labels, data.base_classes)
        return
    states = [
        LEARNERS[name](shapes, **options).fit(x, labels, data.base_classes).state_dict()
        for x in (images, features, TensorDataset(images, labels))
    ]
    for other in states[1:]:
        for key, value in states[0].items():
            torch.testing.assert_close(value, other[key], rtol=1e-3, atol=1e-5)


def test_the_last_batch_can_be_left_out(shapes, data):
    """The published trainers see 32 of 40 images in an epoch, and all of fewer than a batch."""
    images, labels = encode_images(shapes.model, data.train.images[:40]), data.train.labels[:40]
    fit = lambda batch, **options: CoOp(shapes, n_context=2, epochs=2, batch_size=batch).fit(  # noqa: E731
        images, labels, data.base_classes, **options
    )
    seen = []

    class Watched(CoOp):
        def loss(self, inputs, labels, prompts):
            seen.append(len(labels))
            return super().loss(inputs, labels, prompts)

    watched = Watched(shapes, n_context=2, epochs=2, batch_size=32).fit(
        images, labels, data.base_classes, drop_last=True
    )
    assert seen == [32, 32] and not torch.equal(watched.context, fit(32).context)
    assert fit(32).losses[0] != watched.losses[0] == pytest.approx(fit(32).losses[0], rel=0.3)
    for batch in (20, 40, 64):
        assert torch.equal(fit(batch, drop_last=True).context, fit(batch).context)


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


def test_nothing_warns(shapes, data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, learner in LEARNERS.items():
            options = SHORT[name] | {"epochs": 1}
            learner(shapes, **options).fit(data.train.images[:8], data.train.labels[:8], data.base_classes)
