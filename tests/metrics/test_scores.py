"""Brier, NLL, interval coverage and contrast."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from pyfastcal import metrics, reference


def test_brier_score(predictions):
    probs, labels, _ = predictions
    truth = np.eye(6)[labels]
    expected = ((probs.double().numpy() - truth) ** 2).sum(axis=1).mean()
    assert float(metrics.brier_score(probs, labels)) == pytest.approx(expected, abs=1e-12)
    assert float(metrics.brier_score(torch.eye(3), torch.tensor([1, 2, 0]))) == 2
    assert float(metrics.brier_score(torch.eye(3), torch.arange(3))) == 0


def test_negative_log_likelihood():
    probs = torch.tensor([[0.2, 0.8], [0.5, 0.5]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    assert float(metrics.negative_log_likelihood(probs, labels)) == pytest.approx(log_loss(labels, probs))
    assert float(metrics.negative_log_likelihood(torch.eye(2), labels.flip(0))) == torch.inf
    assert float(metrics.negative_log_likelihood(torch.eye(2), labels)) == 0


def coverage_by_hand(probs, labels, alpha):
    covered = 0
    for p, y in zip(probs.tolist(), labels.tolist(), strict=True):
        mass = 0.0
        for c in sorted(range(len(p)), key=lambda c: -p[c]):  # stable: ties in the order of the classes
            if mass >= alpha:
                break
            mass += p[c]
            covered += c == y
    return abs(covered / len(labels) - alpha)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 8), st.integers(1, 63), st.booleans())
def test_interval_coverage_error(seed, n, n_classes, sixty_fourths, tied):
    generator = torch.Generator().manual_seed(seed)
    if tied:  # sums of powers of two are exact, so that the sets are too
        probs = torch.full((n, 8), 1 / 8, dtype=torch.float64)
        probs[::2, :4] = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8], dtype=torch.float64)
        probs[::2, 4:] = 0
    else:
        probs = torch.randn(n, n_classes, generator=generator, dtype=torch.float64).softmax(1)
    labels = torch.randint(0, probs.shape[1], (n,), generator=generator)
    alpha = sixty_fourths / 64
    got = metrics.interval_coverage_error(probs, labels, alpha)
    assert float(got) == pytest.approx(coverage_by_hand(probs, labels, alpha), abs=1e-12)


def test_interval_coverage_of_calibrated_probabilities_is_close_to_alpha():
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(20000, 200, generator=generator).softmax(1)
    labels = torch.multinomial(probs, 1, generator=generator)[:, 0]
    assert float(metrics.interval_coverage_error(probs, labels)) < 0.01
    sharpened = probs.pow(3) / probs.pow(3).sum(1, keepdim=True)
    assert float(metrics.interval_coverage_error(sharpened, labels)) > 0.2


def test_contrast():
    similarity = torch.tensor([[0.3, 0.1, 0.2], [0.0, 0.5, 0.9]])
    assert float(metrics.contrast(similarity, torch.tensor([0, 1]))) == pytest.approx((0.3 + 0.5) / 2 - (0.2 + 0.9) / 2)
    shifted = metrics.contrast(similarity + 5, torch.tensor([0, 1]))
    assert float(shifted) == pytest.approx(-0.15, abs=1e-6)


def test_the_reference_is_the_same_function(predictions):
    probs, labels, _ = predictions
    for name in ("brier_score", "negative_log_likelihood", "interval_coverage_error", "contrast"):
        assert torch.equal(getattr(metrics, name)(probs, labels), getattr(reference, name)(probs, labels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_and_numpy(predictions, dtype):
    probs, labels, _ = (x[:300] for x in predictions)
    for measure in (
        metrics.brier_score,
        metrics.interval_coverage_error,
        metrics.contrast,
        metrics.classwise_ece,
    ):
        got = measure(probs.to(dtype), labels.int())
        assert got.dtype == torch.float64
        assert float(got) == pytest.approx(float(measure(probs, labels)), abs=0.02)
        assert float(measure(probs.numpy(), labels.numpy())) == float(measure(probs, labels))
