"""Predictions of a saturated softmax, some of them certain, and a stream of rows."""

import pytest
import torch

from .data import N


@pytest.fixture(scope="session")
def predictions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Over-confident softmax output (N, C), labels and proximity, with rows whose confidence is exactly 1."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(3000, 6, generator=generator)
    logits[:200, 2] += 200
    labels = torch.multinomial((0.4 * logits).softmax(1), 1, generator=generator)[:, 0]
    return logits.softmax(1), labels, torch.rand(3000, generator=generator)


@pytest.fixture(scope="session")
def top(predictions) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(confidence, correct, proximity) of ``predictions``."""
    probs, labels, proximity = predictions
    confidence, prediction = probs.max(1)
    assert (confidence == 1).any()
    return confidence, prediction == labels, proximity


@pytest.fixture(scope="session")
def stream() -> tuple[torch.Tensor, ...]:
    """(confidence, prediction, labels, proximity), some confidences exactly 1 or on an edge."""
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(N, generator=generator) ** 0.3
    confidence[::9] = 1.0
    confidence[1::9] = (10 * confidence[1::9]).round() / 10
    labels = torch.randint(0, 7, (N,), generator=generator)
    right = torch.rand(N, generator=generator) < confidence**2
    return confidence, torch.where(right, labels, (labels + 1) % 7), labels, torch.rand(N, generator=generator)
