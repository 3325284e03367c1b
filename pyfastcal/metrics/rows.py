"""Rows of a batch: whether their numbers may be counted, and which are left out for their label."""

from typing import Any

import torch
from torch import Tensor

from ..arguments import checks

ROWS = 8000  # taken at a time: it all stays in cache, and below what torch would split over threads


def inside(x: Tensor) -> bool:
    """Whether all of ``x`` (N,) lies in [0, 1], as ``checks.unit_interval`` has it; no where it cannot be looked at."""
    if not checks.values_visible(x):
        return False
    for rows in x.split(ROWS) if len(x) else ():
        low, high = rows.aminmax()
        if not (low.item() >= 0 and high.item() <= checks.LARGEST_CONFIDENCE):  # nor for NaN
            return False
    return True


def at_most_one(x: Tensor) -> Tensor:
    """``x`` with 1 for what passes ``checks.unit_interval`` and is larger."""
    if checks.values_visible(x) and not bool((x > 1).any()):
        return x
    return torch.where((x > 1) & (x <= checks.LARGEST_CONFIDENCE), 1, x)


def checked_ignore_index(ignore_index: Any) -> int | None:
    return None if ignore_index is None else checks.integer("ignore_index", ignore_index, -(2**63), 2**63 - 1)


def not_ignored(labels: Tensor, ignore_index: int | None) -> Tensor | None:
    """Which of the integer ``labels`` (N,) count: (N,) booleans; None: all."""
    return None if ignore_index is None else labels.long() != ignore_index


def masked(kept: Tensor | None, x: Tensor, fill: float) -> Tensor:
    """``x`` (N,) with ``fill`` in the rows that do not count: finding the others would make a GPU wait."""
    return x if kept is None else torch.where(kept, x, fill)
