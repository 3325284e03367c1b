"""Bad arguments: one line that starts with the argument's name, from every metric."""

import math

import pytest
import torch

from pyfastcal import metrics

C, K, P = torch.tensor([0.2, 0.9, 0.5]), torch.tensor([True, False, True]), torch.tensor([0.1, 0.5, 0.9])
PROBS, Y = torch.tensor([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]]), torch.tensor([0, 1, 1])

TOP = {"confidence": C, "correct": K}
CLASSES = {"probs": PROBS, "labels": Y}
GOOD = {
    "expected_calibration_error": TOP,
    "adaptive_calibration_error": TOP,
    "maximum_calibration_error": TOP,
    "debiased_ece": TOP,
    "signed_gaps": TOP,
    "reliability_curve": TOP,
    "proximity_informed_ece": TOP | {"proximity": P},
    "classwise_ece": CLASSES,
    "brier_score": CLASSES,
    "negative_log_likelihood": CLASSES,
    "interval_coverage_error": CLASSES,
    "contrast": {"similarity": PROBS, "labels": Y},
}
BAD_CONFIDENCE = [C[None], C.long(), C[:0], C + 0.2, -C, C * math.nan, [0.1, 0.2, 0.3], None]
BAD_CORRECT = [K[:2], K[None], torch.tensor([0, 1, 2]), torch.tensor([0.0, 0.5, 1.0]), "yes"]
BAD_PROBS = [PROBS[0], PROBS.long(), PROBS[:0], PROBS * 1.5, PROBS - 0.1, PROBS * math.nan, PROBS[:, :0]]
BAD_LABELS = [Y[:2], Y.float(), Y + 1, Y - 1, Y[None], K, None]
COMPAT = ("expected_calibration_error", "adaptive_calibration_error", "maximum_calibration_error")
COMPAT += ("proximity_informed_ece",)


def cases():
    for name, good in GOOD.items():
        if "confidence" in good:
            yield from ((name, "confidence", bad) for bad in BAD_CONFIDENCE)
            yield from ((name, "correct", bad) for bad in BAD_CORRECT)
            yield from ((name, "n_bins", bad) for bad in (0, -1, 2.5, None))
        if "probs" in good:
            yield from ((name, "probs", bad) for bad in BAD_PROBS)
        if "labels" in good:
            yield from ((name, "labels", bad) for bad in BAD_LABELS)
        if name in COMPAT:
            yield name, "compat", "published"
    for name in ("brier_score", "negative_log_likelihood", "interval_coverage_error"):
        yield name, "probs", PROBS * 0.9
    yield from (("proximity_informed_ece", "proximity", bad) for bad in (P[:2], P.long(), P * math.inf, P[None]))
    yield from (("proximity_informed_ece", "n_proximity_bins", bad) for bad in (0, 1.5))
    yield from (("interval_coverage_error", "alpha", bad) for bad in (0.0, 1.1, math.nan, "high"))
    yield from (("contrast", "similarity", bad) for bad in (PROBS[:, :1], PROBS * math.nan, Y, PROBS[:0]))
    yield from (("expected_calibration_error", option, "other") for option in ("norm", "closed"))
    yield from (("reliability_curve", "n_bootstrap", bad) for bad in (-1, 0.5))
    yield from (("reliability_curve", "level", bad) for bad in (-0.1, 1.5))
    yield "reliability_curve", "seed", -1
    yield "reliability_curve", "closed", "both"
    yield "classwise_ece", "n_bins", 0


@pytest.mark.parametrize(("function", "argument", "value"), list(cases()))
def test_bad_input(function, argument, value):
    measure, good = getattr(metrics, function), GOOD[function]
    measure(**good)
    for compat in (None, "clip_calibration") if function in COMPAT and argument != "compat" else (None,):
        options = {"compat": compat} if compat else {}
        if argument in ("norm", "closed") and compat:
            continue  # these two are refused for another reason
        with pytest.raises(ValueError, match=f"^{argument} ") as caught:
            measure(**{**good, **options, argument: value})
        assert "\n" not in str(caught.value)


def test_every_metric_is_covered():
    streamed = {name for name in metrics.__all__ if name.endswith("_of_stream")}  # test_stored_stream.py
    assert set(GOOD) == {name for name in metrics.__all__ if name.islower()} - streamed
