"""Numbers of bins, groups and resamplings are bounded: what is too much is refused before anything is allocated."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import pyfastcal as fc
from pyfastcal import metrics
from pyfastcal.arguments import checks
from pyfastcal.metrics import Accumulator, equal_mass

C, K, P = torch.tensor([0.2, 0.9, 0.5]), torch.tensor([True, False, True]), torch.tensor([0.1, 0.5, 0.9])
PROBS = torch.tensor([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
HUGE = [checks.MOST_CELLS + 1, 10**9, 2**62, 10**30]
TAKES = {
    "expected_calibration_error": lambda n: metrics.expected_calibration_error(C, K, n),
    "... published": lambda n: metrics.expected_calibration_error(C, K, n, compat="clip_calibration"),
    "adaptive_calibration_error": lambda n: metrics.adaptive_calibration_error(C, K, n),
    "... published, equal mass": lambda n: metrics.adaptive_calibration_error(C, K, n, compat="clip_calibration"),
    "maximum_calibration_error": lambda n: metrics.maximum_calibration_error(C, K, n),
    "debiased_ece": lambda n: metrics.debiased_ece(C, K, n),
    "signed_gaps": lambda n: metrics.signed_gaps(C, K, n),
    "reliability_curve": lambda n: metrics.reliability_curve(C, K, n, n_bootstrap=2),
    "proximity_informed_ece": lambda n: metrics.proximity_informed_ece(C, K, P, n),
    "classwise_ece": lambda n: metrics.classwise_ece(PROBS, K.long(), n),
    "a stream": lambda n: metrics.adaptive_calibration_error_of_stream([(C, K)], n),
    "a stream with proximities": lambda n: metrics.proximity_informed_ece_of_stream([(C, K, P)], n),
    "Accumulator": lambda n: Accumulator(n),
    "Accumulator without proximities": lambda n: Accumulator(n, n_proximity_bins=None),
    "ClasswiseCalibrationError": lambda n: fc.ClasswiseCalibrationError(2, n),
    **{name: getattr(fc, name) for name in metrics.STREAMING if name != "ClasswiseCalibrationError"},
}
GROUPS = {
    "proximity_informed_ece": lambda n: metrics.proximity_informed_ece(C, K, P, n_proximity_bins=n),
    "... published": lambda n: metrics.proximity_informed_ece(C, K, P, n_proximity_bins=n, compat="clip_calibration"),
    "a stream": lambda n: metrics.proximity_informed_ece_of_stream([(C, K, P)], n_proximity_bins=n),
    "Accumulator": lambda n: Accumulator(n_proximity_bins=n),
    "CalibrationMetrics": lambda n: fc.CalibrationMetrics(n_proximity_bins=n),
    "ProximityInformedECE": lambda n: fc.ProximityInformedECE(n_proximity_bins=n),
}


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """No mapping of more than 256 MB beyond what there is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 28), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("n", HUGE)
@pytest.mark.parametrize("name", TAKES)
def test_bins(name, n):
    with pytest.raises(ValueError, match="^n_bins must be an integer of at least 1 and at most ") as caught:
        TAKES[name](n)
    assert str(caught.value).endswith(f", got {n}") and len(str(caught.value)) < 200
    TAKES[name](100)


@pytest.mark.parametrize("n", HUGE)
@pytest.mark.parametrize("name", GROUPS)
def test_groups(name, n):
    with pytest.raises(ValueError, match="^n_proximity_bins must be an integer of at least 1 and at most 1677721 "):
        GROUPS[name](n)
    GROUPS[name](1000)


@pytest.mark.parametrize("n", HUGE)
def test_classes_and_resamplings(n):
    with pytest.raises(ValueError, match="^n_classes must be an integer of at least 1 and at most 1677721 "):
        fc.ClasswiseCalibrationError(n)
    with pytest.raises(
        ValueError, match=r"^n_bootstrap must be an integer of at least 0 and at most 1677721 \(10 bins\)"
    ):
        metrics.reliability_curve(C, K, n_bootstrap=n)
    metric = fc.CalibrationError()
    metric.update(C, K)
    with pytest.raises(ValueError, match="^n_bootstrap must be an integer of at least 0 and at most 1677721 "):
        metric.reliability(n_bootstrap=n)


def test_products_count():
    with pytest.raises(ValueError, match="^n_classes must be .* at most 838 "):
        fc.ClasswiseCalibrationError(1000, 20_000)
    with pytest.raises(ValueError, match="^n_proximity_bins must be .* at most 16777 "):
        metrics.proximity_informed_ece(C, K, P, 1000, 20_000)


def test_names_of_means():
    for means in ([str(i) for i in range(1001)], ["x" * 101], ["validate"], ["labels"], "nll", 5, [None]):
        with pytest.raises(ValueError, match="^means must ") as caught:
            Accumulator(means=means)
        assert len(str(caught.value)) < 200
    longest = [f"{i:04}" + "\U0001f600" * 96 for i in range(1000)]  # each escaped in twelve bytes
    accumulator = Accumulator(2, n_proximity_bins=None, means=longest)
    assert Accumulator.from_bytes(accumulator.to_bytes()).config == accumulator.config


@pytest.mark.parametrize("total", [0, 1, 999, 2**31 + 7, 2**53 + 1, 2**62 + 12345])
@pytest.mark.parametrize("n_groups", [1, 2, 10, 4097])
def test_ranks_of_starts_are_exact(n_groups, total):
    """``floor(b N / B)`` in Python's integers, of which int64 would not hold the product."""
    count = torch.tensor([total // 3, 0, total - total // 3])
    cell, rank = equal_mass.start_cells(count, n_groups)
    for b, found, below in zip(range(1, n_groups), cell.tolist(), rank.tolist(), strict=True):
        expected = b * total // n_groups
        assert (found, below) == ((0, expected) if expected < total // 3 else (2, expected - total // 3))
