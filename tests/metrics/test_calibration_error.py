"""Binned errors against float64 restatements, the reference and torchmetrics; and what must not change
them."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from pyfastcal import metrics, reference
from tests.devices import each_device, run_on

CONFIDENCES = st.one_of(
    st.floats(0, 1, width=32), st.sampled_from([i / 10 for i in range(11)]), st.sampled_from([0.0, 0.95, 1.0])
)
ROWS = st.lists(st.tuples(CONFIDENCES, st.booleans(), st.floats(0, 1, width=16)), min_size=1, max_size=40)
FIXED_POINT = 2.0**-33


def unzip(rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    confidence, correct, proximity = zip(*rows, strict=True)
    return torch.tensor(confidence), torch.tensor(correct), torch.tensor(proximity)


def gaps_by_hand(confidence, correct, n_bins, closed="left"):
    """(n_b, |acc_b - conf_b|) of the bins that hold anything."""
    edges = [float(np.float32(i / n_bins)) for i in range(n_bins + 1)]
    bins = {}
    for c, k in zip(confidence.tolist(), correct.tolist(), strict=True):
        if closed == "left":
            b = max(i for i in range(n_bins) if c >= edges[i])
        else:
            b = min(i for i in range(n_bins) if c <= edges[i + 1])
        bins.setdefault(b, []).append((c, k))
    return [(len(v), abs(np.mean([c for c, _ in v]) - np.mean([k for _, k in v]))) for v in bins.values()]


@given(ROWS, st.integers(1, 15), st.sampled_from(["left", "right"]))
def test_expected_calibration_error(rows, n_bins, closed):
    confidence, correct, _ = unzip(rows)
    by_hand = gaps_by_hand(confidence, correct, n_bins, closed)
    expected = {
        "l1": sum(n / len(rows) * gap for n, gap in by_hand),
        "l2": math.sqrt(sum(n / len(rows) * gap**2 for n, gap in by_hand)),
        "max": max(gap for _, gap in by_hand),
    }
    for norm, value in expected.items():
        got = metrics.expected_calibration_error(confidence, correct, n_bins, norm=norm, closed=closed)
        assert got.dtype == torch.float64 and got.ndim == 0
        assert float(got) == pytest.approx(value, abs=2 * FIXED_POINT)


@given(ROWS, st.integers(1, 15))
def test_maximum_calibration_error(rows, n_bins):
    confidence, correct, _ = unzip(rows)
    by_hand = gaps_by_hand(confidence, correct, n_bins)
    plain = metrics.maximum_calibration_error(confidence, correct, n_bins)
    weighted = metrics.maximum_calibration_error(confidence, correct, n_bins, weighted=True)
    assert float(plain) == pytest.approx(max(gap for _, gap in by_hand), abs=2 * FIXED_POINT)
    assert float(weighted) == pytest.approx(max(n / len(rows) * g for n, g in by_hand), abs=2 * FIXED_POINT)
    assert plain == metrics.expected_calibration_error(confidence, correct, n_bins, norm="max")


@given(ROWS, st.integers(1, 8), st.integers(1, 5))
def test_agreement_with_the_reference(rows, n_bins, n_proximity_bins):
    confidence, correct, proximity = unzip(rows)
    for name, arguments in {
        "expected_calibration_error": (),
        "adaptive_calibration_error": (),
        "maximum_calibration_error": (),
        "debiased_ece": (),
        "proximity_informed_ece": (proximity,),
    }.items():
        sizes = (n_bins, n_proximity_bins) if arguments else (n_bins,)
        got, twin = (getattr(m, name)(confidence, correct, *arguments, *sizes) for m in (metrics, reference))
        # a square root makes 1e-10 of a squared error 1e-5
        assert float(got) == pytest.approx(float(twin), abs=3e-5 if "debiased" in name else 1e-9)


@given(ROWS, st.integers(1, 8))
def test_adaptive_bins_by_hand(rows, n_bins):
    confidence, correct, _ = unzip(rows)
    ranked = sorted(confidence.tolist())
    starts = [ranked[b * len(ranked) // n_bins] for b in range(1, n_bins)]
    bins = {}
    for c, k in zip(confidence.tolist(), correct.tolist(), strict=True):
        bins.setdefault(sum(start <= c for start in starts), []).append(c - k)
    expected = sum(abs(sum(v)) for v in bins.values()) / len(rows)
    got = metrics.adaptive_calibration_error(confidence, correct, n_bins)
    assert float(got) == pytest.approx(expected, abs=2 * FIXED_POINT)


def test_adaptive_bins_are_equal_without_ties_and_never_split_a_tie():
    confidence = torch.linspace(0.1, 0.9, 40)
    correct = torch.arange(40) % 3 == 0
    error = (confidence.double() - correct.double()).view(4, 10).sum(1).abs().sum() / 40
    assert float(metrics.adaptive_calibration_error(confidence, correct, 4)) == pytest.approx(float(error), abs=1e-9)
    tied = torch.full((40,), 0.7)
    assert float(metrics.adaptive_calibration_error(tied, correct, 4)) == pytest.approx(0.7 - 14 / 40, abs=1e-7)


@given(ROWS, st.integers(1, 6), st.integers(1, 6))
def test_piece_is_never_below_ece_and_equals_it_in_one_group(rows, n_bins, n_proximity_bins):
    confidence, correct, proximity = unzip(rows)
    ece = metrics.expected_calibration_error(confidence, correct, n_bins)
    piece = metrics.proximity_informed_ece(confidence, correct, proximity, n_bins, n_proximity_bins)
    assert float(piece) >= float(ece) - 1e-12
    assert metrics.proximity_informed_ece(confidence, correct, proximity, n_bins, 1) == ece


def test_piece_sees_errors_that_cancel_across_proximity():
    confidence, proximity = torch.full((200,), 0.55), torch.arange(200.0) / 200
    correct = torch.arange(200) >= 90  # all near ones right, most far ones wrong: 55 % right overall
    assert float(metrics.expected_calibration_error(confidence, correct)) < 1e-6
    piece = metrics.proximity_informed_ece(confidence, correct, proximity, n_proximity_bins=2)
    assert float(piece) == pytest.approx(0.45, abs=1e-6)


MEASURES = [
    metrics.expected_calibration_error,
    metrics.adaptive_calibration_error,
    metrics.maximum_calibration_error,
    metrics.debiased_ece,
    lambda c, k: metrics.expected_calibration_error(c, k, norm="l2"),
    lambda c, k: metrics.expected_calibration_error(c, k, compat="clip_calibration"),
    lambda c, k: metrics.adaptive_calibration_error(c, k, compat="clip_calibration"),
    lambda c, k: torch.cat(metrics.reliability_curve(c, k)[1:]).nan_to_num(),
]


@pytest.mark.parametrize("measure", MEASURES)
def test_the_same_bits_in_any_order(top, measure):
    confidence, correct, _ = top
    whole = measure(confidence, correct)
    for seed in range(3):
        order = torch.randperm(len(confidence), generator=torch.Generator().manual_seed(seed))
        assert torch.equal(measure(confidence[order], correct[order]), whole)


@each_device
@pytest.mark.parametrize("n_bins", [1, 7, 10, 15, 100])
def test_the_same_bits_on_every_device_and_in_every_run(top, predictions, device, n_bins):
    measures = [
        (metrics.expected_calibration_error, top[:2]),
        (metrics.adaptive_calibration_error, top[:2]),
        (metrics.maximum_calibration_error, top[:2]),
        (metrics.debiased_ece, top[:2]),
        (metrics.signed_gaps, top[:2]),
        (metrics.reliability_curve, top[:2]),
        (metrics.proximity_informed_ece, top),
        (metrics.classwise_ece, predictions[:2]),
    ]
    measures += [(partial(metrics.expected_calibration_error, norm=norm), top[:2]) for norm in ("l2", "max")]
    compat = [metrics.expected_calibration_error, metrics.adaptive_calibration_error]
    measures += [(partial(measure, compat="clip_calibration"), top[:2]) for measure in compat]
    measures += [(partial(metrics.proximity_informed_ece, compat="clip_calibration"), top)]
    for measure, arguments in measures:
        expected = measure(*arguments, n_bins)
        for _ in range(2):
            got = run_on(device, measure)(*arguments, n_bins)
            torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_piece_is_the_same_bits_in_any_order(top):
    order = torch.randperm(len(top[0]), generator=torch.Generator().manual_seed(0))
    assert metrics.proximity_informed_ece(*top) == metrics.proximity_informed_ece(*(x[order] for x in top))


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("n_bins", [5, 10, 15])
def test_agreement_with_torchmetrics(top, norm, n_bins):
    confidence, correct, _ = (x[top[0] < 1] for x in top)  # torchmetrics has an extra bin for exactly 1
    oracle = binary_calibration_error(confidence, correct.long(), n_bins=n_bins, norm=norm)
    got = metrics.expected_calibration_error(confidence, correct, n_bins, norm=norm)
    assert float(got) == pytest.approx(float(oracle), rel=1e-4)


def test_calibrated_predictions_have_little_error_and_debiasing_removes_most_of_it():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(2000, generator=generator)
    correct = torch.rand(2000, generator=generator) < confidence
    plain = metrics.expected_calibration_error(confidence, correct, norm="l2")
    assert 0 < float(plain) < 0.05
    assert float(metrics.debiased_ece(confidence, correct)) < 0.6 * float(plain)


def test_debiased_error_is_unbiased_where_the_plain_one_is_not():
    generator = torch.Generator().manual_seed(0)
    confidence, truth = torch.tensor([0.25, 0.65, 0.85]).repeat(20), torch.tensor([0.1, 0.65, 0.5]).repeat(20)
    exact = float((confidence - truth).square().mean())
    draws = [torch.rand(60, generator=generator) < truth for _ in range(400)]
    debiased = [float(metrics.debiased_ece(confidence, d)) ** 2 for d in draws]
    plain = [float(metrics.expected_calibration_error(confidence, d, norm="l2")) ** 2 for d in draws]
    assert np.mean(debiased) == pytest.approx(exact, rel=0.05)
    assert np.mean(plain) > 1.1 * exact


def test_classwise_error(predictions, monkeypatch):
    probs, labels, _ = predictions
    got = metrics.classwise_ece(probs, labels, 8)
    columns = [metrics.expected_calibration_error(probs[:, c], labels == c, 8) for c in range(6)]
    assert float(got) == pytest.approx(float(torch.stack(columns).mean()), abs=1e-12)
    assert float(got) == pytest.approx(float(reference.classwise_ece(probs, labels, 8)), abs=1e-9)
    monkeypatch.setattr("pyfastcal.metrics.cells._CHUNK", 7000)
    assert float(metrics.classwise_ece(probs, labels, 8)) == pytest.approx(float(got), abs=1e-15)


def test_single_rows_and_exact_zero_and_one():
    for value, right, expected in ((0.0, False, 0.0), (0.0, True, 1.0), (1.0, True, 0.0), (1.0, False, 1.0)):
        confidence, correct = torch.tensor([value]), torch.tensor([right])
        for measure in (
            metrics.expected_calibration_error,
            metrics.adaptive_calibration_error,
            metrics.maximum_calibration_error,
        ):
            for n_bins in (1, 10):
                assert float(measure(confidence, correct, n_bins)) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken_at_their_own_value(top, dtype):
    confidence, correct, proximity = top
    rounded = confidence.to(dtype)
    for measure in (metrics.expected_calibration_error, metrics.adaptive_calibration_error):
        assert measure(rounded, correct) == measure(rounded.double(), correct)
    piece = metrics.proximity_informed_ece(rounded, correct, proximity.to(dtype))
    assert piece == metrics.proximity_informed_ece(rounded.double(), correct, proximity.to(dtype).double())


def test_numpy_and_zeros_and_ones(top):
    confidence, correct, proximity = top
    expected = metrics.proximity_informed_ece(*top)
    got = metrics.proximity_informed_ece(confidence.numpy(), correct.int().numpy(), proximity.numpy())
    assert isinstance(got, np.ndarray) and float(got) == float(expected)
    strided = torch.stack([confidence, confidence], 1)[:, 0]
    assert metrics.expected_calibration_error(strided, correct.float()) == (
        metrics.expected_calibration_error(confidence, correct)
    )
