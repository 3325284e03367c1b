"""Exact equal-mass errors over a stream that can be read again: the functional forms' values to the bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfastcal import metrics
from pyfastcal.metrics import stored_stream

VALUES = st.one_of(
    st.floats(0, 1, width=32), st.sampled_from([0.0, -0.0, 1e-45, 1e-30, 0.3, 0.5, 0.9, 1 - 2.0**-24, 1.0])
)
ROWS = st.lists(st.tuples(VALUES, st.booleans(), VALUES), min_size=1, max_size=60)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check(confidence, correct, proximity, n_bins=10, n_groups=10, step=13):
    batches = list(zip(*(x.split(step) for x in (confidence, correct, proximity)), strict=True))
    got = metrics.adaptive_calibration_error_of_stream([b[:2] for b in batches], n_bins)
    assert torch.equal(got, metrics.adaptive_calibration_error(confidence, correct, n_bins))
    got = metrics.proximity_informed_ece_of_stream(batches, n_bins, n_groups)
    assert torch.equal(got, metrics.proximity_informed_ece(confidence, correct, proximity, n_bins, n_groups))


@given(ROWS, st.sampled_from(DTYPES), st.integers(1, 20), st.integers(1, 6))
def test_small_samples(monkeypatch, rows, dtype, n_bins, n_groups):
    monkeypatch.setattr(stored_stream, "PARTS", 1 << 12)
    confidence, correct, proximity = (torch.tensor(x) for x in zip(*rows, strict=True))
    check(confidence.to(dtype), correct, proximity.to(dtype), n_bins, n_groups)


@given(ROWS, st.integers(1, 12), st.integers(1, 6))
@settings(max_examples=20)
def test_many_passes(monkeypatch, rows, n_bins, n_groups):
    """Two parts at a time: every bit of a value takes a pass."""
    monkeypatch.setattr(stored_stream, "PARTS", 2)
    confidence, correct, proximity = (torch.tensor(x) for x in zip(*rows, strict=True))
    check(confidence.double(), correct, proximity.double(), n_bins, n_groups)


def large(power, dtype):
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(40_000, generator=generator) ** power
    confidence[::5] = 1.0
    correct = torch.rand(40_000, generator=generator) < confidence
    return confidence.to(dtype), correct, (0.3 + 0.3 * torch.rand(40_000, generator=generator)).to(dtype)


@pytest.mark.parametrize("power", [0.02, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_rows(power, dtype):
    check(*large(power, dtype), step=9999)


class Counted(list):
    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def test_two_passes_over_single_precision():
    confidence, correct, proximity = large(0.3, torch.float32)
    batches = Counted(zip(*(x.split(5000) for x in (confidence, correct)), strict=True))
    metrics.adaptive_calibration_error_of_stream(batches)
    assert batches.passes == 2
    batches = Counted(zip(*(x.split(5000) for x in (confidence, correct, proximity)), strict=True))
    metrics.proximity_informed_ece_of_stream(batches)
    assert batches.passes <= 3


def test_numpy_and_any_iterable():
    confidence, correct, _ = large(1, torch.float32)

    class Stream:
        def __iter__(self):
            return zip(
                (x.numpy() for x in confidence.split(7000)), (x.numpy() for x in correct.split(7000)), strict=True
            )

    got = metrics.adaptive_calibration_error_of_stream(Stream())
    assert torch.equal(got, metrics.adaptive_calibration_error(confidence, correct))


C, K = torch.tensor([0.2, 0.9]), torch.tensor([True, False])


@pytest.mark.parametrize(
    ("name", "batches", "options"),
    [
        ("batches", iter([(C, K)]), {}),
        ("batches", [], {}),
        ("batches", 5, {}),
        ("batches", [(C, K, C)], {}),
        ("batches", [C], {}),
        ("confidence", [(C, K), (C + 1, K)], {}),
        ("correct", [(C, K[:1])], {}),
        ("n_bins", [(C, K)], {"n_bins": 0}),
    ],
)
def test_bad_input(name, batches, options):
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        metrics.adaptive_calibration_error_of_stream(batches, **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="^n_proximity_bins "):
        metrics.proximity_informed_ece_of_stream([(C, K, C)], n_proximity_bins=0)


def test_a_stream_that_changes_between_passes():
    class Changing:
        def __init__(self):
            self.generator = torch.Generator().manual_seed(0)

        def __iter__(self):
            yield torch.rand(5000, generator=self.generator), torch.ones(5000, dtype=torch.bool)

    with pytest.raises(ValueError, match="^batches must give the same rows in every pass"):
        metrics.adaptive_calibration_error_of_stream(Changing())
