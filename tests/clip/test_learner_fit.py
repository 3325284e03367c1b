"""The fit of every prompt learner: gradients, seeds, dtypes, batches, and nothing touched but the learner."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from pyfastcal.clip import encode_images, import_open_clip
from pyfastcal.clip.prompts import LEARNERS, CoOp

from .learners import SHORT, TUNE_IMAGES, every_learner


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
def test_a_seed_decides_the_result(shapes, data, name):
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
def test_fit_under_autocast(shapes, data, name):
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


def test_nothing_warns(shapes, data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, learner in LEARNERS.items():
            options = SHORT[name] | {"epochs": 1}
            learner(shapes, **options).fit(data.train.images[:8], data.train.labels[:8], data.base_classes)
