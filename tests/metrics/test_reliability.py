"""The reliability curve and the signed gaps."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from pyfastcal import metrics, reference


def test_curve_against_scikit_learn(top):
    confidence, correct, _ = top
    curve = metrics.reliability_curve(confidence, correct, 10, closed="right")
    accuracy, mean = calibration_curve(correct.numpy(), confidence.double().numpy(), n_bins=10)
    held = curve.count > 0
    np.testing.assert_allclose(curve.accuracy[held], accuracy, atol=1e-9)
    np.testing.assert_allclose(curve.confidence[held], mean, atol=1e-9)
    assert int(curve.count.sum()) == len(confidence)


def test_curve_against_the_reference(top):
    confidence, correct, _ = top
    curve = metrics.reliability_curve(confidence, correct, 7)
    for got, twin in zip(curve[1:4], reference.reliability_curve(confidence, correct, 7), strict=True):
        torch.testing.assert_close(got, twin, atol=1e-9, rtol=0, equal_nan=True)
    assert torch.equal(curve.edges, torch.linspace(0, 1, 8, dtype=torch.float64).float())


def test_band_holds_the_accuracy_and_narrows_with_the_rows():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(400, generator=generator)
    correct = torch.rand(400, generator=generator) < confidence
    curve = metrics.reliability_curve(confidence, correct, 4)
    assert bool(((curve.lower <= curve.accuracy) & (curve.accuracy <= curve.upper)).all())
    many = metrics.reliability_curve(confidence.repeat(16), correct.repeat(16), 4, n_bootstrap=4000)
    width, narrow = curve.upper - curve.lower, many.upper - many.lower
    torch.testing.assert_close(narrow / width, torch.full((4,), 0.25, dtype=torch.float64), atol=0.08, rtol=0)
    # the binomial standard error times 1.96 is what a 95 % band of one bin should come to
    error = 2 * 1.96 * (many.accuracy * (1 - many.accuracy) / many.count).sqrt()
    torch.testing.assert_close(narrow, error, rtol=0.1, atol=0)


def test_the_band_is_reproducible_and_follows_level_and_seed(top):
    confidence, correct, _ = top
    first, again = (metrics.reliability_curve(confidence, correct) for _ in range(2))
    torch.testing.assert_close(first.lower, again.lower, rtol=0, atol=0, equal_nan=True)
    other = metrics.reliability_curve(confidence, correct, seed=1)
    assert not torch.equal(first.lower.nan_to_num(), other.lower.nan_to_num())
    wide = metrics.reliability_curve(confidence, correct, level=0.99)
    assert bool((wide.lower <= first.lower)[first.count > 0].all())
    assert metrics.reliability_curve(confidence, correct, n_bootstrap=0).upper.isnan().all()


def test_empty_bins_and_a_single_row():
    curve = metrics.reliability_curve(torch.tensor([0.25]), torch.tensor([True]), 2)
    assert curve.count.tolist() == [1, 0]
    assert curve.accuracy[0] == curve.lower[0] == curve.upper[0] == 1
    assert all(x[1].isnan() for x in curve[2:])


def test_signed_gaps_point_the_right_way():
    gaps = metrics.signed_gaps(torch.tensor([0.9, 0.9, 0.3, 0.3]), torch.tensor([True, False, True, False]), 2)
    np.testing.assert_allclose(gaps, [-0.2, 0.4], atol=1e-7)
    assert metrics.signed_gaps(torch.tensor([0.9]), torch.tensor([True]), 2).isnan().tolist() == [True, False]


def test_signed_gaps_make_up_the_error(top):
    confidence, correct, _ = top
    gaps = metrics.signed_gaps(confidence, correct)
    share = metrics.reliability_curve(confidence, correct, n_bootstrap=0).count / len(confidence)
    ece = metrics.expected_calibration_error(confidence, correct)
    assert float((share * gaps.abs()).nansum()) == pytest.approx(float(ece), abs=1e-9)
    torch.testing.assert_close(gaps, reference.signed_gaps(confidence, correct), atol=1e-9, rtol=0, equal_nan=True)


def test_numpy_in_numpy_out(top):
    confidence, correct, _ = (x.numpy() for x in top)
    curve = metrics.reliability_curve(confidence, correct)
    assert isinstance(curve, metrics.ReliabilityCurve)
    assert all(isinstance(x, np.ndarray) for x in curve)
    assert isinstance(metrics.signed_gaps(confidence, correct), np.ndarray)
