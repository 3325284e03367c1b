"""The same forward with calibrated logits: open_clip, OpenAI's form, transformers, plain modules; compiled."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyfastcal as fc
from pyfastcal.clip import Classifier, encode_images, encode_text
from pyfastcal.clip.prompts import LEARNERS, CoOp, MaPLe

from . import hugging

NAMES = ["digit one", "digit two", "letter q", "digit one digit two", "letter q letter q"]
TEMPLATE = "a photo of the {}."
close = dict(rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def images(task):
    return task.new_test.images[:6]


@pytest.fixture(scope="module")
def dac():
    """Weights of five classes, far from 1 and from each other."""
    calibrator = fc.DistanceAwareCalibration()
    calibrator.load_state_dict({"class_weight": torch.tensor([0.5, 0.8, 1.3, 0.6, 0.9])})
    return calibrator


@pytest.fixture(scope="module")
def tokens(clip):
    return clip.tokenizer([TEMPLATE.format(name) for name in NAMES])


def compiled(module):
    torch._dynamo.reset()
    return torch.compile(module, fullgraph=True, backend="aot_eager")


def open_clip_logits(out):
    images, texts, scale, *bias = out
    return scale * images @ texts.T + (bias[0] if bias else 0.0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("as_dictionary", [False, True])
def test_open_clip(clip, dac, images, tokens, bias, as_dictionary):
    model = copy.deepcopy(clip.model)
    model.output_dict = as_dictionary
    if bias:
        model.logit_bias = nn.Parameter(torch.tensor(-3.0))
    calibrated = fc.clip.wrap(model, dac)
    for call in (calibrated, compiled(calibrated)):
        with torch.no_grad():
            before, after = model(images, tokens), call(images, tokens)
        if as_dictionary:
            assert before.keys() == after.keys()
            before, after = tuple(before.values()), tuple(after.values())
        assert len(before) == len(after) == 3 + bias
        torch.testing.assert_close(after[:2], before[:2])
        logits = open_clip_logits(before)
        torch.testing.assert_close(open_clip_logits(after), dac(logits), **close)
        assert not torch.allclose(open_clip_logits(after), logits, atol=0.1)
    by_image, by_text = calibrated.get_logits(images, tokens)
    expected = model.get_logits(images, tokens)
    assert torch.equal(by_image, dac(expected[0])) and torch.equal(by_text, expected[1])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_transformers(dac, images, kind):
    model = hugging.clip_model() if kind == "clip" else hugging.siglip_model()
    with torch.no_grad():
        if kind == "clip":
            model.logit_scale.fill_(4.6)
        inputs = hugging.tokenizer()([TEMPLATE.format(n) for n in NAMES], padding="max_length", max_length=16)
        inputs = {key: torch.tensor(x) for key, x in inputs.items()} | {"pixel_values": images}
        calibrated, before = fc.clip.wrap(model, dac), model(**inputs)
        for call in (calibrated, compiled(calibrated)):
            after = call(**inputs)
            assert type(after) is type(before) and after.keys() == before.keys()
            torch.testing.assert_close(after.logits_per_image, dac(before.logits_per_image), **close)
            torch.testing.assert_close(after.logits_per_text, before.logits_per_text, **close)
            torch.testing.assert_close(after.image_embeds, before.image_embeds, **close)
        plain = calibrated(**inputs, return_dict=False)
        assert isinstance(plain, tuple)
        torch.testing.assert_close(plain[0], dac(before.logits_per_image), **close)
    assert not torch.allclose(after.logits_per_image, before.logits_per_image, atol=1e-3)


class OpenAIs(nn.Module):
    """Called as OpenAI's CLIP is: logits of the images and of the texts."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image, text):
        return self.model.get_logits(image, text)


def test_openais_clip(clip, dac, images, tokens):
    model = OpenAIs(clip.model)
    calibrated = fc.clip.wrap(model, dac)
    with torch.no_grad():
        (by_image, by_text), before = calibrated(images, tokens), model(images, tokens)
    assert torch.equal(by_image, dac(before[0])) and torch.equal(by_text, before[1])


class Net(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.layer, self.form = nn.Linear(4, 5), form

    def forward(self, x):
        return self.form(self.layer(x))


@pytest.mark.parametrize(
    ("form", "logits_of"),
    [
        (lambda x: x, lambda out: out),
        (lambda x: (x, "hidden"), lambda out: out[0]),
        (lambda x: [x, 1, 2], lambda out: out[0]),
        (lambda x: (x, x[:, :2], x.sum()), lambda out: out[0]),  # no features, though a scalar is third
        (lambda x: {"logits": x, "loss": 0.5}, lambda out: out["logits"]),
    ],
    ids=["tensor", "tuple", "list", "with a loss", "dictionary"],
)
def test_any_module_with_logits(dac, form, logits_of):
    torch.manual_seed(0)
    model, x = Net(form), torch.randn(7, 4)
    calibrated = fc.clip.wrap(model, dac)
    for call in (calibrated, compiled(calibrated)):
        before, after = model(x), call(x)
        assert type(before) is type(after)
        torch.testing.assert_close(logits_of(after), dac(logits_of(before)))
        assert len(after) == len(before)
    logits_of(calibrated(x)).sum().backward()  # for those who tune on through it
    assert model.layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LEARNERS)
def test_a_tuned_learner(clip, task, images, name):
    small = {"epochs": 1, "batch_size": 16} | ({"n_prompts": 4} if name == "ProDA" else {})
    learner = LEARNERS[name](clip, template=task.template, **small).fit(*task.train, task.base_classes)
    names = task.new_classes
    dac = fc.DistanceAwareCalibration().fit(
        tuned=learner.text_features(names),
        zeroshot=learner.zeroshot_text_features(names),
        base_tuned=learner.text_features(task.base_classes),
        base_zeroshot=learner.zeroshot_text_features(task.base_classes),
    )
    calibrated = fc.clip.wrap(learner.classifier(names), dac)
    expected = dac(learner.logits(images, names))
    with torch.no_grad():
        torch.testing.assert_close(calibrated(images), expected, rtol=1e-4, atol=1e-3)
        if name in ("CoOp", "MaPLe"):  # of either kind of image tower
            torch.testing.assert_close(compiled(calibrated)(images), expected, rtol=1e-4, atol=1e-3)


def test_contrast_aware_calibration(clip, task, images):
    learner = MaPLe(clip, template=task.template, epochs=1).fit(*task.train, task.base_classes)
    zeroshot = Classifier(clip.model, learner.zeroshot_text_features(task.new_classes))
    tuned, cac = learner.classifier(task.new_classes), fc.ContrastAwareCalibration()
    with torch.no_grad():
        logits, zeroshot_logits = tuned(images), zeroshot(images)
        calibrated = fc.clip.wrap(tuned, cac, zeroshot=zeroshot)(images)
    torch.testing.assert_close(calibrated, cac(logits, zeroshot_logits, clip.model.logit_scale.exp()), **close)
    assert not torch.allclose(calibrated, logits, atol=0.1)
    given = fc.clip.wrap(lambda x: x, cac, zeroshot=lambda x: zeroshot_logits, logit_scale=50.0)
    torch.testing.assert_close(given(logits), cac(logits, zeroshot_logits, 50.0))


def test_contrast_aware_calibration_of_open_clips_forward(clip, images, tokens):
    tuned = copy.deepcopy(clip.model)
    with torch.no_grad():
        tuned.visual.proj += 0.01 * torch.randn(tuned.visual.proj.shape, generator=torch.Generator().manual_seed(0))
        cac = fc.ContrastAwareCalibration()
        wrapped = fc.clip.wrap(tuned, cac, zeroshot=clip.model)
        expected = cac(tuned.get_logits(images, tokens)[0], clip.model.get_logits(images, tokens)[0])
        torch.testing.assert_close(open_clip_logits(wrapped(images, tokens)), expected, **close)
        torch.testing.assert_close(wrapped.get_logits(images, tokens)[0], expected, **close)


def test_a_classifier_of_any_model(clip, images):
    texts = encode_text(clip.model, clip.tokenizer, NAMES, TEMPLATE)
    expected = 100 * encode_images(clip.model, images) @ texts.T
    for scale in (1.0, 7.0):  # features need not be normalised
        torch.testing.assert_close(Classifier(clip.model, scale * texts)(images).detach(), expected, **close)
    shortened = Classifier(clip.model, 0.5 * texts, normalize=False)
    torch.testing.assert_close(shortened(images).detach(), 0.5 * expected, **close)
    siglip = hugging.siglip_model()
    texts = encode_text(siglip, hugging.tokenizer(), NAMES, TEMPLATE)
    logits = Classifier(siglip, texts)(images)
    scale, bias = fc.clip.scale_and_bias(siglip)
    torch.testing.assert_close(logits.detach(), scale * encode_images(siglip, images) @ texts.T + bias, **close)


def test_what_is_moved_with_a_classifier(clip, task):
    learner = CoOp(copy.deepcopy(clip.model), clip.tokenizer, task.template)
    wrapped = fc.clip.wrap(learner.classifier(task.new_classes), fc.DistanceAwareCalibration())
    names = {name.rpartition(".")[0] for name, _ in wrapped.named_parameters()}
    assert any(name.endswith("visual.conv1") for name in names)
    wrapped.train()
    assert learner.clip.training
    wrapped.eval()
    assert not learner.clip.training


def test_bad_arguments_are_named(clip, dac, images):
    texts = torch.randn(5, 64)
    for call, message in [
        (
            lambda: fc.clip.wrap(clip.model, nn.Softmax()),
            "calibrator must be one that scales logits, such as DAC, got a",
        ),
        (lambda: fc.clip.wrap("model", dac), "model must be a module, got 'model'"),
        (lambda: fc.clip.wrap(clip.model, fc.ContrastAwareCalibration()), "zeroshot must be given for ContrastAware"),
        (
            lambda: fc.clip.wrap(clip.model, fc.chain(dac, fc.ContrastAwareCalibration())),
            "zeroshot must be given for ContrastAware",
        ),
        (
            lambda: fc.clip.wrap(clip.model, dac, zeroshot=clip.model),
            "zeroshot must be None for DistanceAwareCalibration, got a CLIP",
        ),
        (
            lambda: fc.clip.wrap(clip.model, fc.ContrastAwareCalibration(), zeroshot=clip.model, logit_scale=1e39),
            "logit_scale must be .* at most 1e.30, got 1e.39",
        ),
        (
            lambda: fc.clip.wrap(Net(F.relu), fc.ContrastAwareCalibration(), zeroshot=Net(F.relu)),
            "model must have logit_scale, got a Net",
        ),
        (lambda: Classifier(Net(F.relu), texts), "model must have logit_scale, got a Net"),
        (lambda: Classifier(clip.model, texts[0]), "text_features must have 2 dimensions"),
        (lambda: Classifier(clip.model, texts / 0), "text_features must be finite"),
        (
            lambda: fc.clip.wrap(Net(lambda x: {"loss": x}), dac)(torch.randn(2, 4)),
            "model must give logits .* got a mapping",
        ),
        (lambda: fc.clip.wrap(Net(lambda x: None), dac)(torch.randn(2, 4)), "model must give logits .* got None"),
        (lambda: fc.clip.wrap(Net(lambda x: x[:, :3]), dac)(torch.randn(2, 4)), "logits must have the 5 classes"),
    ]:
        with pytest.raises(ValueError, match=rf"^{message}"):
            call()
