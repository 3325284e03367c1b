"""DAC's weights of new classes from text features. The floor is torch's products of classes and base classes."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

import pyfastcal as fc

from . import data
from .harness import Case, Floor
from .peaks import Cost

SIZES = ((5000, 500, 512, 5),)
QUICK = ((60, 20, 32, 5),)
GPU_SIZES = ((5000, 500, 512, 5, "fp32"),)
GPU_QUICK = ((60, 20, 32, 5, "fp32"),)
BASE_THRESHOLD = 0.05


def work(size: tuple) -> str:
    n_base, n_classes, dim, k, *dtype = size
    return f"DAC fit, {n_base:,} base, {n_classes:,} classes, D={dim}, K={k}{', GPU' if dtype else ''}"


def case(size: tuple, device: str = "cpu") -> Case:
    n_base, n_classes, dim, k, *_ = size
    zeroshot = data.unit_rows(n_base + n_classes, dim, data.generator(device=device))
    drift = torch.randn(zeroshot.shape, generator=data.generator(1, device), device=device) * (0.3 / dim**0.5)
    tuned = normalize(zeroshot + drift, dim=1)
    return of_features((tuned[n_base:], zeroshot[n_base:], tuned[:n_base], zeroshot[:n_base]), k, device)


def of_features(features: tuple[Tensor, Tensor, Tensor, Tensor], k: int, device: str = "cpu") -> Case:
    """Unit text features of new classes, tuned and zero-shot, and of base classes, tuned and zero-shot."""
    n_classes, n_base, dim = len(features[0]), len(features[2]), features[0].shape[1]
    named = dict(zip(("tuned", "zeroshot", "base_tuned", "base_zeroshot"), features, strict=True))
    arrays = [x.numpy(force=True) for x in features]
    return Case(
        lambda: fc.DistanceAwareCalibration(k=k).fit(**named).class_weight,
        idiom,
        (*features, k),
        lambda ours, theirs: assert_close(ours, theirs, rtol=1e-4, atol=1e-5),
        {"published loop": lambda: torch.from_numpy(published_loop(*arrays, k))} if device == "cpu" else {},
        {"torch GEMM": Floor(lambda: (features[0] @ features[2].T, features[1] @ features[3].T))},
        cost=Cost(4.0 * n_classes * n_base * dim, sum(x.nbytes for x in features)),
        device=device,
        compile=device == "cpu",
    )


def idiom(tuned: Tensor, zeroshot: Tensor, base_tuned: Tensor, base_zeroshot: Tensor, k: int) -> Tensor:
    near = torch.cdist(tuned, base_tuned).topk(k, largest=False).values
    near_zeroshot = torch.cdist(zeroshot, base_zeroshot).topk(k, largest=False).values
    gamma = torch.exp(near_zeroshot.mean(dim=1) - near.mean(dim=1))
    return torch.where(near[:, 0] < BASE_THRESHOLD, torch.ones_like(gamma), gamma)


def published_loop(
    tuned: np.ndarray, zeroshot: np.ndarray, base_tuned: np.ndarray, base_zeroshot: np.ndarray, k: int
) -> np.ndarray:
    """Class by class: the distances to every base class, sorted, as the published code goes about it."""
    gamma = np.empty(len(tuned), np.float32)
    for c in range(len(tuned)):
        near = np.sort(np.linalg.norm(base_tuned - tuned[c], axis=1))[:k]
        near_zeroshot = np.sort(np.linalg.norm(base_zeroshot - zeroshot[c], axis=1))[:k]
        gamma[c] = 1.0 if near[0] < BASE_THRESHOLD else np.exp(-near.mean()) / np.exp(-near_zeroshot.mean())
    return gamma
