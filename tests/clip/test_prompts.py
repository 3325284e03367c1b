"""CoOp, against a plain restatement, on the bundled CLIP and on a real architecture with random weights."""

import math

import pytest
import torch
import torch.nn.functional as F

from pyfastcal.clip import encode_images, encode_text, import_open_clip
from pyfastcal.clip.prompts import LEARNERS, CoOp

NAMES = ["digit one", "digit two", "letter q"]


def restated_text_features(model, tokenizer, context, names):
    """CoOp as its paper writes it, one class at a time, through the whole text tower: [V]_1 ... [V]_M
    [CLASS] ."""
    rows = []
    for name in names:
        ids = tokenizer([f"{name}."])
        tokens = model.token_embedding(ids)[0]
        end = int(ids[0].argmax())
        prompt = torch.cat([tokens[:1], context, tokens[1 : end + 1]])
        padding = tokens[end + 1 :][: model.context_length - len(prompt)]
        x = torch.cat([prompt, padding])[None] + model.positional_embedding
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
        rows.append(x[0, end + len(context)] @ model.text_projection)
    return F.normalize(torch.stack(rows), dim=-1)


@pytest.fixture(scope="module")
def tuned(clip, task):
    return CoOp(clip, template=task.template, epochs=40).fit(*task.train, task.base_classes, seed=1)


@pytest.fixture(scope="module")
def vit_b_32():
    """An architecture of OpenAI's, small enough here by fewer layers, with open_clip's own tokenizer."""
    open_clip = import_open_clip()
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 2
    torch.manual_seed(0)
    return open_clip.CLIP(**config).eval(), open_clip.get_tokenizer("ViT-B-32")


def test_defaults_are_the_published_ones(clip):
    learner = CoOp(clip)
    settings = (learner.n_context, learner.epochs, learner.batch_size, learner.lr)
    assert (*settings, learner.momentum, learner.weight_decay) == (16, 200, 32, 0.002, 0.9, 5e-4)
    assert learner.context.shape == (16, 64) and 0.015 < learner.context.std() < 0.025
    rates = [learner.learning_rate(epoch) for epoch in range(200)]
    assert rates[0] == 1e-5 and rates[1] == 0.002 and rates[101] == pytest.approx(0.001) and rates[199] < 1e-6


def test_loss_is_the_restated_one(clip):
    generator = torch.Generator().manual_seed(0)
    learner = CoOp(clip, n_context=5)
    with torch.no_grad():
        learner.context.copy_(torch.randn(5, 64, generator=generator))
    features = F.normalize(torch.randn(7, 64, generator=generator), dim=-1)
    labels = torch.randint(0, 3, (7,), generator=generator)
    texts = restated_text_features(clip.model, clip.tokenizer, learner.context, NAMES)
    logits = clip.model.logit_scale.exp() * features @ texts.T
    expected = -logits.log_softmax(1)[torch.arange(7), labels].mean()
    loss = learner.loss(features, labels, learner.prompts(NAMES))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(learner.text_features(NAMES), texts.detach())


def test_gradients_reach_the_context_and_nothing_else(clip):
    learner = CoOp(clip, n_context=2)
    assert [name for name, _ in learner.named_parameters()] == ["context"]
    features = F.normalize(torch.randn(4, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels, prompts = torch.tensor([0, 1, 2, 0]), learner.prompts(NAMES)
    learner.loss(features, labels, prompts).backward()
    gradient = learner.context.grad.clone()
    assert not any(p.grad is not None for p in clip.model.parameters())

    learner.double(), clip.model.double()
    try:
        prompts = learner.prompts(NAMES)

        def loss_at(step: float) -> float:
            with torch.no_grad():
                learner.context[1, 3] += step
                value = learner.loss(features.double(), labels, prompts).item()
                learner.context[1, 3] -= step
            return value

        difference = (loss_at(1e-4) - loss_at(-1e-4)) / 2e-4
    finally:
        clip.model.float()
    assert gradient[1, 3].item() == pytest.approx(difference, rel=1e-2)


def test_fit_lowers_the_loss_and_leaves_the_model_as_it_was(clip, task):
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    seen = []
    learner = CoOp(clip)
    learner.fit(*task.train, task.base_classes, progress=lambda *at: seen.append(at))
    assert seen == [(i, 200) for i in range(1, 201)]
    assert len(learner.losses) == 200 and learner.losses[-1] < 0.7 * learner.losses[0]
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())


def test_fit_works_while_gradients_are_switched_off(clip, task):
    with torch.no_grad():
        learner = CoOp(clip, epochs=3).fit(*task.train, task.base_classes)
    assert learner.losses[-1] < learner.losses[0]


def test_tuning_helps_on_the_images_it_saw(clip, task, tuned):
    features = tuned.image_features(task.train.images)

    def nll(texts):
        return F.cross_entropy(tuned.logit_scale * features @ texts.T, task.train.labels)

    assert nll(tuned.text_features(task.base_classes)) < nll(tuned.zeroshot_text_features(task.base_classes))


def test_seed_decides_the_result(clip, task, tuned):
    state = torch.random.get_rng_state()
    data = (*task.train, task.base_classes)
    again = CoOp(clip, template=task.template, epochs=40).fit(*data, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(again.context, tuned.context)
    assert not torch.equal(CoOp(clip, epochs=1).fit(*data, seed=2).context, CoOp(clip, epochs=1).fit(*data).context)
    assert torch.equal(again.fit(*data, seed=1).context, tuned.context)  # a second fit starts afresh


def test_features_of_any_classes(clip, task, tuned):
    texts = tuned.text_features(task.new_classes)
    assert texts.shape == (5, 64) and not texts.requires_grad
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(5))
    one = tuned.text_features(task.new_classes[2:3])
    torch.testing.assert_close(one[0], texts[2])
    expected = encode_text(clip.model, clip.tokenizer, task.new_classes, task.template)
    assert torch.equal(tuned.zeroshot_text_features(task.new_classes), expected)
    images = task.new_test.images[:9]
    assert torch.equal(tuned.image_features(images), encode_images(clip.model, images))
    assert tuned.logit_scale == pytest.approx(100, rel=1e-5)


def test_saved_and_loaded(clip, task, tuned, tmp_path):
    tuned.save(tmp_path / "coop.safetensors")
    loaded = CoOp.load(tmp_path / "coop.safetensors", clip)
    assert torch.equal(loaded.text_features(task.new_classes), tuned.text_features(task.new_classes))
    assert loaded.template == task.template

    class OtherLearner(CoOp):
        pass

    with pytest.raises(ValueError, match=r"coop.safetensors: holds a CoOp, not a OtherLearner"):
        OtherLearner.load(tmp_path / "coop.safetensors", clip)
    (tmp_path / "broken").write_bytes((tmp_path / "coop.safetensors").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"broken: not a file of CoOp.save"):
        CoOp.load(tmp_path / "broken", clip)


def test_a_real_architecture_with_open_clips_tokenizer(vit_b_32):
    model, tokenizer = vit_b_32
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 224, 224, generator=generator)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    names = ["dog", "hot air balloon"]
    learner = CoOp(model, tokenizer, epochs=3, batch_size=4).fit(images, labels, names)
    assert all(math.isfinite(loss) for loss in learner.losses)
    texts = learner.text_features([*names, "great white shark"])
    expected = restated_text_features(model, tokenizer, learner.context, [*names, "great white shark"])
    torch.testing.assert_close(texts, expected.detach(), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"^classnames: 'a a .* too many for the model's 77 with start, end and 16"):
        learner.text_features(["dog", "a " * 70])


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_on_a_real_architecture(vit_b_32, name):
    model, tokenizer = vit_b_32
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    names, options = ["dog", "hot air balloon"], {"epochs": 2, "batch_size": 4}
    if name == "ProDA":
        options["n_prompts"] = 4
    learner = LEARNERS[name](model, tokenizer, **options).fit(images, torch.tensor([0, 1, 0, 1]), names)
    logits = learner.logits(images, [*names, "great white shark"])
    assert logits.shape == (4, 3) and logits.isfinite().all() and all(map(math.isfinite, learner.losses))
    if name in ("MaPLe", "PromptSRC"):
        assert {p.shape[-1] for p in learner.parameters()} == {512, 768}


def test_towers_inside_a_custom_text_clip(vit_b_32):
    model, tokenizer = vit_b_32
    open_clip = import_open_clip()
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 2
    custom = open_clip.CustomTextCLIP(**config).eval()
    custom.text.load_state_dict({k: v for k, v in model.state_dict().items() if k in custom.text.state_dict()})
    learners = [CoOp(m, tokenizer, n_context=4) for m in (model, custom)]
    assert torch.equal(learners[0].text_features(["dog"]), learners[1].text_features(["dog"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"no_causal_mask": True, "pool_type": "last"}, "pools by 'last'"),
        ({"no_causal_mask": True}, "attends to all tokens"),
        ({"embed_cls": True}, "attends to all tokens or to a class token"),
    ],
)
def test_towers_that_cannot_take_prompts(text, message):
    open_clip = import_open_clip()
    sizes = {"context_length": 8, "vocab_size": 20, "width": 32, "heads": 1, "layers": 1}
    vision = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 32}
    model = open_clip.CustomTextCLIP(embed_dim=8, vision_cfg=vision, text_cfg=sizes | text)
    with pytest.raises(ValueError, match=rf"^model must be an OpenAI-style CLIP .* got CustomTextCLIP .*{message}"):
        CoOp(model, lambda texts: torch.zeros(len(texts), 8, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^model must be an OpenAI-style CLIP .* got Linear without token_embedding"):
        CoOp(torch.nn.Linear(2, 2), lambda texts: texts)


def test_bad_arguments_are_named(clip, task):
    images, labels = task.train
    learner = CoOp(clip, epochs=1)
    for arguments, message in [
        ((images[0], labels, task.base_classes), "images must have 4 dimensions"),
        ((images, labels[:3], task.base_classes), "labels must have 80 entries, one per image"),
        ((images, labels, task.base_classes[:2]), r"labels must lie in \[0, 2\)"),
        ((images, labels, []), "classnames must not be empty"),
        ((images, labels, "digit one"), "classnames must be a list of names"),
        ((images, labels, ["digit eleven"] * 5), "texts: 'digit eleven.' has 'eleven'"),
        ((images[:0], labels[:0], task.base_classes), "images must not be empty"),
    ]:
        with pytest.raises(ValueError, match=rf"^{message}"):
            learner.fit(*arguments)
    for options, message in [
        ({"n_context": 0}, "n_context must be an integer of at least 1"),
        ({"epochs": 1.5}, "epochs must be an integer"),
        ({"lr": -1.0}, "lr must be a finite number, greater than 0"),
        ({"template": "a photo"}, r"template must be a text with one \{\}"),
    ]:
        with pytest.raises(ValueError, match=rf"^{message}"):
            CoOp(clip, **options)
    with pytest.raises(ValueError, match=r"^tokenizer must be given"):
        CoOp(clip.model)
