"""Predictions that the figures of docs/metrics.md are drawn of."""

import torch
from torch import Tensor


def draws(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def calibrated(seed: int, n: int) -> tuple[Tensor, Tensor]:
    """Confidences uniform on [0, 1], each right as often as it says."""
    confidence = draws(seed, n)
    return confidence, draws(seed + 10_000, n) < confidence


def tuned(seed: int, n: int) -> tuple[Tensor, Tensor]:
    """Over-confident and saturated, as a tuned CLIP on new classes."""
    confidence = torch.sigmoid(2 + 3 * torch.randn(n, generator=torch.Generator().manual_seed(seed))).double()
    return confidence, draws(seed + 10_000, n) < 0.15 + 0.7 * confidence**1.5
