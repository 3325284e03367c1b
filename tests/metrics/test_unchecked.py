"""``validate=False`` leaves out what would have to look at numbers, and nothing else: no update reads beyond a tensor,
none counts rows that are not there."""

import pytest
import torch

import pyfastcal as fc
from pyfastcal import metrics
from pyfastcal.metrics import Accumulator

N = 600  # the kernel's fast path
C, Y, P = torch.linspace(0, 1, N), torch.arange(N) % 3, torch.linspace(1, 0, N)
PROBS = torch.stack([C, 1 - C], 1)

TOP = ("CalibrationError", "MaximumCalibrationError", "DebiasedCalibrationError", "SignedGaps")
NEAR = ("CalibrationMetrics", "ProximityInformedECE")
GOOD = {name: {"confidence": C, "prediction": Y, "labels": Y} for name in (*TOP, "AdaptiveCalibrationError")}
GOOD |= {name: {"confidence": C, "prediction": Y, "labels": Y, "proximity": P} for name in NEAR}
GOOD["ClasswiseCalibrationError"] = {"probs": PROBS, "labels": Y % 2}
GOOD["Accumulator"] = {"confidence": C, "correct": Y == 0, "proximity": P, "nll": C}


def cases():
    for name, good in GOOD.items():
        for argument, x in good.items():
            bad = {
                "shorter": x[:-1],
                "a million more": torch.zeros(10**6, *x.shape[1:]).to(x.dtype),
                "one row": x[:1],  # which would broadcast
                "no rows": x[:0],
                "0-d": x.flatten()[0],
                "a matrix more": x[None],
                "elsewhere": x.to("meta"),
                "no tensor": "high",
                "float8": x.to(torch.float8_e4m3fn) if x.is_floating_point() else x.to(torch.float8_e5m2),
            }
            if argument not in ("prediction", "correct"):
                bad["another kind"] = x.long() if x.is_floating_point() else x.double()
            if argument == "correct":
                del bad["float8"]
            yield from ((name, argument, what, value) for what, value in bad.items())
    yield "ClasswiseCalibrationError", "probs", "a column more", torch.cat([PROBS, PROBS[:, :1]], 1)
    yield "ClasswiseCalibrationError", "probs", "a column fewer", PROBS[:, :1]


def made(name, **options):
    if name == "Accumulator":
        return Accumulator(means=("nll",))
    return fc.ClasswiseCalibrationError(2, **options) if name.startswith("Class") else getattr(fc, name)(**options)


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize(
    ("name", "argument", "what", "wrong"), list(cases()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_shapes_types_and_devices_are_always_checked(name, argument, what, wrong, validate):
    for ignore in (None, -100):
        options = {} if name == "Accumulator" else {"validate": validate, "ignore_index": ignore}
        more = {"validate": validate} if name == "Accumulator" else {}
        if name == "Accumulator" and ignore is not None:
            more |= {"labels": Y, "ignore_index": ignore}
        metric = made(name, **options)
        metric.update(**GOOD[name], **more)
        before = metric.state.clone()
        # where the first argument has another number of rows it is the second one that has too few
        with pytest.raises(ValueError, match="^[a-z]+ must ") as caught:
            metric.update(**{**GOOD[name], argument: wrong}, **more)
        assert argument in str(caught.value) or next(iter(GOOD[name])) == argument
        assert "\n" not in str(caught.value) and torch.equal(metric.state, before)


@pytest.mark.parametrize("name", [*TOP, "AdaptiveCalibrationError", *NEAR])
@pytest.mark.parametrize("correct", [Y[:1] == 0, Y[:-1] == 0, torch.ones(10**6, dtype=torch.bool), Y[None] == 0])
def test_so_are_lengths_without_labels(name, correct):
    metric = made(name, validate=False)
    with pytest.raises(ValueError, match="^prediction must "):
        metric.update(C, correct)
    assert not metric.state.any()


@pytest.mark.parametrize("bad", [torch.nan, -0.5, 1.5, torch.inf])
@pytest.mark.parametrize("n", [1, 100, 600, 9000])
def test_numbers_that_were_not_looked_at_are_not_counted(n, bad):
    """Whichever way the kernel goes with so many rows."""
    confidence, correct = torch.full((n,), 0.75), torch.ones(n, dtype=torch.bool)
    confidence[n // 2] = bad
    for make in (fc.CalibrationError, fc.AdaptiveCalibrationError, fc.CalibrationMetrics):
        metric = make(validate=False)
        metric.update(confidence, correct)
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 1 row that did not"):
            metric.compute()
    classwise = fc.ClasswiseCalibrationError(2, validate=False)
    classwise.update(torch.stack([confidence, confidence], 1), correct.long())
    with pytest.raises(ValueError, match=r"^probs must lie in \[0, 1\], got 2 that did not"):
        classwise.compute()


class Changing:
    """Batches that are others when they are read again."""

    def __init__(self, first, second):
        self.passes = [first, second]

    def __iter__(self):
        return iter([self.passes.pop(0) if len(self.passes) > 1 else self.passes[0]])


# all in one fine cell, so that one pass is not enough
T, K = 0.7 + torch.arange(1000) / 2**24, torch.arange(1000) % 3 > 0
CHANGED = [
    ("correct", (T, K[:-1], T)),
    ("correct", (T, torch.cat([K, K]), T)),
    ("correct", (T, K + 1, T)),
    ("correct", (T, None, T)),
    ("confidence", (T * torch.nan, K, T)),
    ("confidence", (T + 1, K, T)),
    ("confidence", (T.tolist(), K, T)),
    ("proximity", (T, K, T[:-1])),
    ("proximity", (T, K, T - 1)),
    ("proximity", (T, K, None)),
]


@pytest.mark.parametrize(("name", "changed"), CHANGED)
def test_every_pass_over_a_stored_stream_is_checked(name, changed):
    for batches in (Changing((T, K, T), changed), Changing(changed, changed)):
        with pytest.raises(ValueError, match=f"^{name} must "):
            metrics.proximity_informed_ece_of_stream(batches)
    if name != "proximity":
        for batches in (Changing((T, K), changed[:2]), Changing(changed[:2], changed[:2])):
            with pytest.raises(ValueError, match=f"^{name} must "):
                metrics.adaptive_calibration_error_of_stream(batches)
