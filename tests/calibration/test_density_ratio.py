"""DensityRatioCalibration: Bayes over the densities of statsmodels."""

import math

import numpy as np
import pytest
import torch
from statsmodels.nonparametric.api import KDEMultivariate

import pyfastcal as fc

from .data import probs_and_labels, proximities


def peers(probs, labels, proximity) -> tuple[KDEMultivariate, KDEMultivariate]:
    confidence, prediction = probs.double().max(1)
    points, right = torch.stack([confidence, proximity.double()], 1).numpy(), (prediction == labels).numpy()
    return tuple(KDEMultivariate(points[k], "cc", bw="normal_reference") for k in (right, ~right))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_the_posterior_of_statsmodels(dtype):
    probs, labels, proximity = *probs_and_labels(dtype=dtype), proximities().to(dtype)
    new, near = probs_and_labels(1, dtype=dtype)[0], proximities(1).to(dtype)
    fitted = fc.DensityRatioCalibration().fit(probs, labels, proximity)
    right, wrong = peers(probs, labels, proximity)
    np.testing.assert_allclose(fitted.bandwidth.numpy(), np.stack([right.bw, wrong.bw]), rtol=1e-6)
    z = torch.stack([new.max(1).values, near], 1).double().numpy()
    f1, f0 = right.pdf(z) * right.nobs, wrong.pdf(z) * wrong.nobs
    expected = torch.from_numpy(f1 / (f1 + f0))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    ours = fitted.confidence(new.max(1).values, proximity=near)
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=tolerance)
    out, prediction = fitted(new, near), new.argmax(1)
    torch.testing.assert_close(out.gather(1, prediction[:, None])[:, 0].double(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(out.double().sum(1), torch.ones(600, dtype=torch.float64), rtol=0, atol=1e-6)


def test_others_share_the_rest_in_proportion():
    probs, labels, proximity = *probs_and_labels(), proximities()
    out = fc.DensityRatioCalibration().fit(probs, labels, proximity)(probs, proximity)
    top = probs.argmax(1, keepdim=True)
    before, after = probs.double().scatter(1, top, 0), out.double().scatter(1, top, 0)
    expected = before / before.sum(1, keepdim=True) * (1 - out.double().gather(1, top))
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-7)


def test_a_certain_row_gives_the_others_even_shares():
    probs, labels, proximity = *probs_and_labels(), proximities()
    fitted = fc.DensityRatioCalibration().fit(probs, labels, proximity)
    certain = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])
    out = fitted(certain, torch.tensor([0.5]))[0]
    rest = (1 - out[1]) / 4
    torch.testing.assert_close(out[[0, 2, 3, 4]], rest.expand(4))
    assert 0.2 < out[1] < 1


def test_proximity_matters():
    """Wrong where far: the same confidence is worth less there."""
    generator = torch.Generator().manual_seed(0)
    probs, _ = probs_and_labels(n=2000, c=2)
    proximity = torch.rand(2000, generator=generator)
    right = torch.rand(2000, generator=generator) < 0.2 + 0.7 * proximity
    labels = torch.where(right, probs.argmax(1), probs.argmin(1))
    fitted = fc.DensityRatioCalibration().fit(probs, labels, proximity)
    near, far = fitted.confidence(torch.full((2,), 0.9), proximity=torch.tensor([0.9, 0.1]))
    assert near > 0.7 and far < 0.4


def test_far_from_all_points_it_still_says_something():
    probs, labels, proximity = *probs_and_labels(), proximities()
    fitted = fc.DensityRatioCalibration().fit(probs, labels, proximity)
    out = fitted.confidence(torch.full((3,), 0.5), proximity=torch.tensor([-1e3, 30.0, 1e6]))
    assert torch.isfinite(out).all() and ((out >= 0) & (out <= 1)).all()


P, Y, N = (
    torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]]),
    torch.tensor([0, 0, 0, 0]),
    torch.arange(4) / 8,
)
FIT = fc.DensityRatioCalibration().fit(P, Y, N)
BAD = [
    ("probs", lambda: fc.DensityRatioCalibration().fit(P[0], Y, N), "2 dimensions"),
    ("probs", lambda: fc.DensityRatioCalibration().fit(P[:, :1] / P[:, :1], Y, N), "at least 2 classes"),
    ("probs", lambda: fc.DensityRatioCalibration().fit(2 * P, Y, N), r"\[0, 1\]"),
    ("probs", lambda: fc.DensityRatioCalibration().fit(P / 2, Y, N), "sum to 1"),
    ("probs", lambda: fc.DensityRatioCalibration().fit(P, P.argmax(1), N), "two wrong predictions that differ in conf"),
    ("probs", lambda: fc.DensityRatioCalibration().fit(P, P.argmin(1), N), "two right predictions"),
    ("probs", lambda: fc.DensityRatioCalibration().fit(P, Y, 0 * N + 0.5), "differ in proximity"),
    ("labels", lambda: fc.DensityRatioCalibration().fit(P, Y + 2, N), r"in \[0, 2\)"),
    ("proximity", lambda: fc.DensityRatioCalibration().fit(P, Y, N[:3]), "4 entries"),
    ("proximity", lambda: fc.DensityRatioCalibration().fit(P, Y, N / 0), "finite"),
    ("proximity", lambda: FIT(P, N[:3]), "4 entries"),
    ("probs", lambda: FIT(-P, N), r"\[0, 1\]"),
    ("confidence", lambda: FIT.confidence(torch.tensor([1.5]), proximity=N[:1]), r"\[0, 1\]"),
    ("bandwidth", lambda: FIT.load_state_dict(FIT.state_dict() | {"bandwidth": torch.zeros(2, 2)}), "lie in"),
    ("right", lambda: FIT.load_state_dict(FIT.state_dict() | {"right": torch.ones(3, 3)}), "2 columns"),
]


@pytest.mark.parametrize(("name", "call", "says"), BAD)
def test_bad_input(name, call, says):
    with pytest.raises(ValueError, match=f"^{name} .*{says}") as caught:
        call()
    assert "\n" not in str(caught.value)


def test_one_wrong_prediction_is_not_enough():
    labels = P.argmax(1)
    labels[0] = 1
    with pytest.raises(ValueError, match="got 1 wrong predictions"):
        fc.DensityRatioCalibration().fit(P, labels, N)
    assert math.isfinite(float(FIT.bandwidth.sum()))
