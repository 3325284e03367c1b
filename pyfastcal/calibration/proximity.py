"""Proximity (arXiv 2306.04590) and textual deviation (arXiv 2402.04655)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import ops, reference
from ..arguments import checks, ranges
from ..arguments.arrays import accepts_numpy
from ..arguments.keywords import by_name
from ..ops.entry import defined_by

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

MOST_NEIGHBOURS = 2**31 - 1


@defined_by(reference.proximity)
@accepts_numpy
def proximity(
    queries: Tensor,
    bank: Tensor,
    k: int = 5,
    *,
    exclude_self: bool = False,
    normalize: bool = True,
    group: "ProcessGroup | None" = None,
) -> Tensor:
    """How close each query lies to its ``k`` nearest rows of the bank.

    Definition: ``reference.proximity``.

    0 where raw distances are larger than an exponent of the dtype (about 104, float64: 745). Carries no gradient.

    Args:
        queries: features (Q, D), float32, float16, bfloat16 or float64.
        bank: (M, D), on the same device.
        k: number of neighbours, at most M (M - 1 with ``exclude_self``).
        exclude_self: query i is row i of the bank and does not count as its own neighbour.
        normalize: L2-normalise both; off if they are already, or if raw distances are wanted.
        group: the bank is spread over the ranks of this process group, as in ``knn``.

    Returns:
        (Q,) float32 (float64 for float64 features). "Proximity-Informed Calibration", NeurIPS 2023.

    Raises:
        ValueError: as ``knn``, naming the argument.
    """
    distances, _ = ops.knn(queries, bank, k, exclude_self=exclude_self, normalize=normalize, group=group)
    return proximity_of_distances(distances)


def proximity_of_distances(distances: Tensor) -> Tensor:
    """``exp(-mean distance)`` over the neighbours (last dimension)."""
    return torch.exp(-distances.mean(dim=-1))


@defined_by(reference.textual_deviation)
@by_name("tuned")
@accepts_numpy
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
    """How far tuning moved each class from the classes it was tuned on: DAC's weight of the class.

    Definition: ``reference.textual_deviation``.

    Below 1 where tuning pushed a class away. All features by name: swapped, they would give wrong weights and no error.

    Args:
        tuned: text features (C, D) of the tuned model.
        zeroshot: (C, D), the same classes in zero-shot CLIP.
        base_tuned: text features (B, D) of the base classes, tuned.
        base_zeroshot: (B, D), the same classes in zero-shot CLIP. Both or none.
        k: number of neighbours; at least 1, at most B (C - 1 without base features).
        base_threshold: a distance; any finite number of at least 0.
        normalize: L2-normalise all features, as the paper says; its published code does not, which changes
            gamma where tuned features are shorter than 1 (ProDA's means).

    Returns:
        gamma (C,) in [exp(-2), exp(2)], without ``normalize`` in [1e-30, 1e30], float32 (float64 for float64 features),
        without a gradient. Section 4 of arXiv 2402.04655.

    Raises:
        ValueError: naming the argument, for shapes, dtypes or values that do not fit, one of the base
            features without the other, or fewer base classes than ``k``.
    """
    checks.matrix("tuned", tuned, rows=True)
    checks.same_shape("zeroshot", checks.matrix("zeroshot", zeroshot), "tuned", tuned)
    checks.same_device("zeroshot", zeroshot, "tuned", tuned)
    k = checks.integer("k", k, 1, MOST_NEIGHBOURS)
    base_threshold = checks.number("base_threshold", base_threshold, low=0.0)
    if (base_tuned is None) != (base_zeroshot is None):
        missing, given = ("base_tuned", "base_zeroshot")[:: 1 if base_tuned is None else -1]
        raise ValueError(f"{missing} must be given together with {given}, got None")
    banks = {"tuned": (tuned, base_tuned), "zeroshot": (zeroshot, base_zeroshot)}
    for name, (features, bank) in banks.items():
        _check_bank(name, features, bank, k)
    if base_tuned is not None:
        checks.same_shape("base_zeroshot", base_zeroshot, "base_tuned", base_tuned)
    near, score = {}, {}
    for name, (features, bank) in banks.items():
        distances = _distances(name, features, bank, k, normalize)
        near[name], score[name] = distances[:, 0], proximity_of_distances(distances)
    gamma = score["tuned"] / score["zeroshot"]
    if not normalize:  # whose distances may be of any size
        ranges.factors("the deviation without normalize", gamma)
    if base_tuned is None:
        return gamma
    return torch.where(near["tuned"] < base_threshold, torch.ones_like(gamma), gamma)


def _check_bank(name: str, features: Tensor, bank: Tensor | None, k: int) -> None:
    if bank is None:
        if len(features) <= k:
            raise ValueError(f"{name} must have more than k={k} classes without base features, got {len(features)}")
        return
    checks.matrix(f"base_{name}", bank, columns=features.shape[1], like=name)
    checks.same_device(f"base_{name}", bank, name, features)
    if len(bank) < k:
        raise ValueError(f"base_{name} must have at least k={k} classes, got {len(bank)}")


def _distances(name: str, features: Tensor, bank: Tensor | None, k: int, normalize: bool) -> Tensor:
    try:
        own = bank is None
        return ops.knn(features, features if own else bank, k, exclude_self=own, normalize=normalize)[0]
    except ValueError:  # NaN or infinity is what is left to find: name it as it is called here
        checks.finite(name, features)
        if bank is not None:
            checks.finite(f"base_{name}", bank)
        raise
