"""A confidence one fp32 step above 1, to which a softmax can round, counts as 1 in every metric; the next one is an
error. In half precision that step is 1: what lies above is no rounding of a softmax, which torch takes in fp32."""

import math

import pytest
import torch

import pyfastcal as fc
from pyfastcal import metrics
from pyfastcal.metrics import Accumulator

STEP = 1 + 2.0**-23
N = 600


def stream(one: float, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """(confidence, correct, proximity), every fifth confidence and every seventh proximity ``one``."""
    generator = torch.Generator().manual_seed(0)
    confidence, proximity = (torch.rand(N, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    correct = torch.rand(N, generator=generator) < 0.7
    confidence[::5], proximity[::7] = one, one
    return confidence, correct, proximity


FUNCTIONS = {
    "ece": lambda c, k, p: metrics.expected_calibration_error(c, k),
    "ece, closed right": lambda c, k, p: metrics.expected_calibration_error(c, k, closed="right"),
    "ece, published": lambda c, k, p: metrics.expected_calibration_error(c, k, compat="clip_calibration"),
    "ace": lambda c, k, p: metrics.adaptive_calibration_error(c, k),
    "ace, published": lambda c, k, p: metrics.adaptive_calibration_error(c, k, compat="clip_calibration"),
    "mce": lambda c, k, p: metrics.maximum_calibration_error(c, k),
    "debiased": lambda c, k, p: metrics.debiased_ece(c, k),
    "gaps": lambda c, k, p: metrics.signed_gaps(c, k),
    "curve": lambda c, k, p: metrics.reliability_curve(c, k, n_bootstrap=20).confidence,
    "piece": lambda c, k, p: metrics.proximity_informed_ece(c, k, p.clamp(max=1)),
    "piece, published": lambda c, k, p: metrics.proximity_informed_ece(c, k, p.clamp(max=1), compat="clip_calibration"),
    "ace of a stream": lambda c, k, p: metrics.adaptive_calibration_error_of_stream([(c, k)]),
    "piece of a stream": lambda c, k, p: metrics.proximity_informed_ece_of_stream([(c, k, p)]),
    "classwise": lambda c, k, p: metrics.classwise_ece(torch.stack([c, 1 - c.clamp(max=1)], 1), k.long()),
    "brier": lambda c, k, p: metrics.brier_score(torch.stack([c, 1 - c.clamp(max=1)], 1), k.long()),
    "nll": lambda c, k, p: metrics.negative_log_likelihood(torch.stack([c, 1 - c.clamp(max=1)], 1), k.long()),
    "coverage": lambda c, k, p: metrics.interval_coverage_error(torch.stack([c, 1 - c.clamp(max=1)], 1), k.long()),
    "accumulator": lambda c, k, p: Accumulator().update(c, k, p).state,
    "accumulator, unchecked": lambda c, k, p: Accumulator().update(c, k, p, validate=False).state,
    **{
        f"{name}, {'checked' if validate else 'unchecked'}": lambda c, k, p, name=name, validate=validate: updated(
            getattr(fc, name)(validate=validate), c, k
        )
        for name in fc.metrics.STREAMING
        if name != "ClasswiseCalibrationError"
        for validate in (True, False)
    },
    "classes": lambda c, k, p: updated(
        fc.ClasswiseCalibrationError(2), torch.stack([c, 1 - c.clamp(max=1)], 1), k.long()
    ),
}
CHECKED = [name for name in FUNCTIONS if "unchecked" not in name]


def updated(metric, *rows):
    metric.update(*rows)
    metric.compute()
    return metric.state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_step_above_is_one(name, dtype):
    measure = FUNCTIONS[name]
    expected = measure(*stream(1.0, dtype))
    assert torch.equal(measure(*stream(STEP, dtype)), expected)
    if dtype == torch.float64:
        assert torch.equal(measure(*stream(math.nextafter(1.0, 2.0), dtype)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CHECKED)
def test_the_next_number_is_an_error(name, dtype):
    two = {torch.float32: 1 + 2.0**-22, torch.float64: math.nextafter(STEP, 2.0), torch.float16: 1 + 2.0**-10}
    confidence, correct, proximity = stream(1.0, dtype)
    FUNCTIONS[name](confidence, correct, proximity)
    confidence[0] = two.get(dtype, 1 + 2.0**-7)
    with pytest.raises(ValueError, match=r"^(confidence|probs) must lie in \[0, 1\], got 1\.0"):
        FUNCTIONS[name](confidence, correct, proximity)


def test_what_a_softmax_gives():
    """The largest of such rows is above 1 in fp32 on some machines; wherever it is, it counts."""
    logits = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)) * 40
    probs = logits.softmax(1)
    probs = probs * (1 + 2.0**-24)  # or after a multiplication that should do nothing
    confidence, prediction = probs.max(1)
    assert float(confidence.max()) <= STEP
    assert 0 <= float(metrics.expected_calibration_error(confidence, prediction == 0)) <= 1
    assert float(metrics.negative_log_likelihood(torch.tensor([[STEP, 0.0]]), torch.tensor([0]))) == 0
