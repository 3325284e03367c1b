"""Proximity and the two papers' weights, equation by equation."""

import torch
from torch import Tensor

from .common import working
from .operators import knn


def proximity(
    queries: Tensor, bank: Tensor, k: int = 5, *, exclude_self: bool = False, normalize: bool = True
) -> Tensor:
    """``P(z, E) = exp(-mean of the k smallest |z - e|, e in E)`` (Q,), in (0, 1]."""
    distances, _ = knn(queries, bank, k, exclude_self=exclude_self, normalize=normalize)
    return torch.exp(-distances.mean(dim=1))


def textual_deviation(
    tuned: Tensor,
    zeroshot: Tensor,
    base_tuned: Tensor | None = None,
    base_zeroshot: Tensor | None = None,
    k: int = 5,
    base_threshold: float = 0.05,
    *,
    normalize: bool = True,
) -> Tensor:
    """``gamma_c = P(w'_c, W') / P(w_c, W)`` (C,): DAC's weight of each class, tuned w' against zero-shot w.

    With the base classes' features as banks, a class whose nearest tuned base neighbour is closer than
    ``base_threshold`` is a base class and keeps gamma = 1. Without them the classes are their own bank, each
    left out of its own neighbours; no class is then known to be a base class.
    """
    if base_tuned is None or base_zeroshot is None:
        near, before = (proximity(x, x, k, exclude_self=True, normalize=normalize) for x in (tuned, zeroshot))
        return near / before
    distances, _ = knn(tuned, base_tuned, k, normalize=normalize)
    gamma = torch.exp(-distances.mean(dim=1)) / proximity(zeroshot, base_zeroshot, k, normalize=normalize)
    return torch.where(distances[:, 0] < base_threshold, torch.ones_like(gamma), gamma)


def distance_of_logits(
    logits: Tensor,
    zeroshot_logits: Tensor,
    *,
    on: str = "similarity",
    logit_scale: float | Tensor = 100.0,
) -> Tensor:
    """``contrast_distance`` (N,) from logits (N, C) after the logit scale instead of features."""
    tuned, zeroshot = working(logits), working(zeroshot_logits)
    if on == "probability":
        return (tuned.softmax(1) - zeroshot.softmax(1)).abs().mean(dim=1)
    return (tuned - zeroshot).abs().mean(dim=1) / logit_scale


def weight_of_distance(
    z: Tensor,
    alpha: float | Tensor = 1.1,
    k: float | Tensor = 15.0,
    lambda1: float | Tensor = 0.9,
    lambda2: float | Tensor = 1.0,
) -> Tensor:
    """CAC's weight of a contrast distance z: ``alpha exp(-k z)``, squared outside [lambda1, lambda2]."""
    gamma = alpha * torch.exp(-k * z)
    return torch.where((gamma < lambda1) | (gamma > lambda2), gamma.square(), gamma)


def contrast_weight(
    similarity: Tensor,
    zeroshot_similarity: Tensor,
    *,
    alpha: float | Tensor = 1.1,
    k: float | Tensor = 15.0,
    lambda1: float | Tensor = 0.9,
    lambda2: float | Tensor = 1.0,
    on: str = "similarity",
    logit_scale: float | Tensor = 100.0,
) -> Tensor:
    """CAC's weight (N,) of each image from its cosine similarities (N, C), tuned and zero-shot:
    ``z_i = mean_c |p[i, c] - p0[i, c]|``, p the similarities themselves or, ``on="probability"``, the softmax
    of ``logit_scale`` times them; ``gamma_i = alpha exp(-k z_i)``, squared outside [``lambda1``, ``lambda2``]."""
    tuned, zeroshot = logit_scale * working(similarity), logit_scale * working(zeroshot_similarity)
    z = distance_of_logits(tuned, zeroshot, on=on, logit_scale=logit_scale)
    return weight_of_distance(z, alpha, k, lambda1, lambda2)
