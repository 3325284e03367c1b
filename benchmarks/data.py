"""Seeded inputs with the geometry of CLIP's: unit vectors that share a direction, cosines from 0.1 to 0.4."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

LOGIT_SCALE = 100.0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit_rows(n: int, dim: int, g: torch.Generator, *, common: float = 0.5) -> Tensor:
    """Random unit vectors (n, dim) whose cosines with each other are around ``common``."""
    shared = normalize(torch.randn(dim, generator=g), dim=0)
    rows = torch.randn(n, dim, generator=g).mul_(((1 - common) / dim) ** 0.5)
    return normalize(rows.add_(shared, alpha=common**0.5), dim=1)


def clip_features(n: int, n_classes: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Image features (n, dim), text features (n_classes, dim), labels (n,): an image has a cosine of about 0.3
    with its class, 0.2 with the others."""
    g = generator(seed)
    text = unit_rows(n_classes, dim, g)
    labels = torch.randint(n_classes, (n,), generator=g)
    image = unit_rows(n, dim, g)
    image.add_(text[labels], alpha=0.2).add_(text.mean(0), alpha=0.3)
    return normalize(image, dim=1), text, labels


def clip_logits(n: int, n_classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (n, n_classes), 100 times such cosines, and labels (n,)."""
    g = generator(seed)
    labels = torch.randint(n_classes, (n,), generator=g)
    cosines = torch.empty(n, n_classes).normal_(0.2, 0.03, generator=g)
    cosines[torch.arange(n), labels] += 0.1
    return cosines.mul_(LOGIT_SCALE), labels


def class_weights(n_classes: int, seed: int = 1) -> Tensor:
    """DAC's factors: (n_classes,) in [0.7, 1]."""
    return torch.rand(n_classes, generator=generator(seed)) * 0.3 + 0.7
