"""Seeded inputs with the geometry of CLIP's: unit vectors that share a direction, cosines from 0.1 to 0.4."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

LOGIT_SCALE = 100.0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    """Also decides where what is drawn from it lies."""
    return torch.Generator(device).manual_seed(seed)


def unit_rows(n: int, dim: int, g: torch.Generator, *, common: float = 0.5) -> Tensor:
    """Random unit vectors (n, dim) whose cosines with each other are around ``common``."""
    shared = normalize(torch.randn(dim, generator=g, device=g.device), dim=0)
    rows = torch.randn(n, dim, generator=g, device=g.device).mul_(((1 - common) / dim) ** 0.5)
    return normalize(rows.add_(shared, alpha=common**0.5), dim=1)


def clip_features(
    n: int, n_classes: int, dim: int, seed: int = 0, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Image features (n, dim), text features (n_classes, dim), labels (n,): an image has a cosine of about 0.3
    with its class, 0.2 with the others."""
    g = generator(seed, device)
    text = unit_rows(n_classes, dim, g)
    labels = torch.randint(n_classes, (n,), generator=g, device=device)
    image = unit_rows(n, dim, g)
    image.add_(text[labels], alpha=0.2).add_(text.mean(0), alpha=0.3)
    return normalize(image, dim=1), text, labels


def clip_logits(n: int, n_classes: int, seed: int = 0, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Logits (n, n_classes), 100 times such cosines, and labels (n,)."""
    g = generator(seed, device)
    labels = torch.randint(n_classes, (n,), generator=g, device=device)
    cosines = torch.empty(n, n_classes, device=device).normal_(0.2, 0.03, generator=g)
    cosines[torch.arange(n, device=device), labels] += 0.1
    return cosines.mul_(LOGIT_SCALE), labels


def class_weights(n_classes: int, seed: int = 1, device: str = "cpu", distinct: int | None = None) -> Tensor:
    """DAC's factors: (n_classes,) in [0.7, 1], of which no more than ``distinct`` differ."""
    weights = torch.rand(distinct or n_classes, generator=generator(seed, device), device=device) * 0.3 + 0.7
    return weights[torch.arange(n_classes, device=device) % len(weights)]
