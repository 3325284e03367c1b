"""Gradients of forward are those of the definition."""

import pytest
import torch
from torch.autograd import gradcheck

import pyfastcal as fc
from pyfastcal import reference


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOGITS, ZEROSHOT = 3 * normal(0, 6, 5), 3 * normal(1, 6, 5)
MASKED = LOGITS.clone()
MASKED[0, 1] = MASKED[2, 3] = MASKED[2, 4] = -torch.inf
SCALE = 20.0
TS, DAC = fc.TemperatureScaling(1.2), fc.DistanceAwareCalibration()
DAC.load_state_dict({"class_weight": torch.tensor([0.7, 1.2, 0.9, 1.0, 0.8], dtype=torch.float64)})
CAC = {on: fc.ContrastAwareCalibration(k=2.0, on=on) for on in ("similarity", "probability")}


def leaves(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(x.clone().requires_grad_() for x in tensors)


def dac_by_definition(logits: torch.Tensor) -> torch.Tensor:
    return DAC.class_weight[logits.argmax(1)][:, None] * logits


def cac_by_definition(on: str):
    cac = CAC[on]

    def defined(logits: torch.Tensor, zeroshot: torch.Tensor) -> torch.Tensor:
        z = reference.distance_of_logits(logits, zeroshot, on=on, logit_scale=SCALE)
        return reference.weight_of_distance(z, cac.alpha, cac.k, cac.lambda1, cac.lambda2)[:, None] * logits

    return defined


CASES = {
    "ts": (TS, lambda logits: logits / 1.2, (LOGITS,)),
    "dac": (DAC, dac_by_definition, (LOGITS,)),
    "chain": (fc.chain(TS, DAC), lambda logits: dac_by_definition(logits) / 1.2, (LOGITS,)),
} | {f"cac, {on}": (lambda *x, on=on: CAC[on](*x, SCALE), cac_by_definition(on), (LOGITS, ZEROSHOT)) for on in CAC}


@pytest.mark.filterwarnings("ignore:the median contrast weight")
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_definition(name):
    calibrate, define, tensors = CASES[name]
    assert gradcheck(calibrate, leaves(*tensors))
    weight = normal(2, *LOGITS.shape)
    ours, theirs = leaves(*tensors), leaves(*tensors)
    (calibrate(*ours).softmax(1) * weight).sum().backward()
    (define(*theirs).softmax(1) * weight).sum().backward()
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, its.grad)
        assert mine.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:the median contrast weight")
@pytest.mark.parametrize("name", CASES)
def test_masked_classes_take_none_and_leave_the_others_theirs(name):
    calibrate, _, (_, *zeroshot) = CASES[name]
    left = torch.isfinite(MASKED)

    def probabilities(values: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        logits = torch.full_like(MASKED, -torch.inf).masked_scatter(left, values)
        return calibrate(logits, *others).softmax(1)

    assert gradcheck(probabilities, leaves(MASKED[left], *zeroshot))


@pytest.mark.filterwarnings("ignore:the median contrast weight")
@pytest.mark.parametrize("name", CASES)
def test_of_one_image(name):
    calibrate, _, tensors = CASES[name]
    assert gradcheck(calibrate, leaves(*(x[0] for x in tensors)))


@pytest.mark.filterwarnings("ignore:the median contrast weight")
@pytest.mark.parametrize("name", ["ts", "dac", "chain", "cac, similarity", "cac, probability", "chain with cac"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predict_features_has_the_gradient_of_forward(name, dtype):
    """Through the factor too, where it depends on the features: by the kernels and by the definitions."""
    features = [normal(seed, *shape).to(dtype) for seed, shape in enumerate([(6, 8), (5, 8), (6, 9), (5, 9)])]
    scale = torch.tensor(SCALE, dtype=dtype)
    calibrator = {"chain with cac": fc.chain(TS, CAC["similarity"]), "ts": TS, "dac": DAC, "chain": CASES["chain"][0]}
    calibrator = calibrator.get(name) or CAC[name.removeprefix("cac, ")]
    contrasts = calibrator.contrasts
    ours, theirs = leaves(*features, scale), leaves(*features, scale)
    used = ours[: 4 if contrasts else 2]
    names = ("image_features", "text_features", "zeroshot_image_features", "zeroshot_text_features")
    confidence, _ = calibrator.predict_features(**dict(zip(names, used, strict=False)), logit_scale=ours[4])
    confidence.square().sum().backward()
    logits = [
        theirs[4] * (torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(t, dim=1).T)
        for x, t in (theirs[:2], theirs[2:4])
    ]
    scaled = calibrator(*logits, theirs[4]) if contrasts else calibrator(logits[0])
    scaled.softmax(1).amax(1).square().sum().backward()
    unit = 1e-4 if dtype == torch.float32 else 1e-9
    for mine, its in zip((*used, ours[4]), (*theirs[: len(used)], theirs[4]), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=unit, atol=unit * float(its.grad.abs().max()))
        assert mine.grad.abs().sum() > 0


def test_what_was_fitted_is_constant_and_the_rest_says_that_it_carries_none():
    assert not DAC.class_weight.requires_grad
    features = {name: normal(i, 7, 8).requires_grad_() for i, name in enumerate(("tuned", "zeroshot"))}
    assert not fc.textual_deviation(**features).requires_grad
    assert "without a gradient" in fc.textual_deviation.__doc__ and "Carries no gradient" in fc.proximity.__doc__
    assert not fc.proximity(*features.values()).requires_grad
    probs, near = LOGITS.softmax(1).requires_grad_(), torch.linspace(0.2, 0.7, 6, dtype=torch.float64)
    den = fc.DensityRatioCalibration().fit(probs, torch.tensor([*LOGITS.argmax(1)[:3], *LOGITS.argmin(1)[3:]]), near)
    assert not den(probs, near).requires_grad and "No gradient" in den.forward.__doc__
