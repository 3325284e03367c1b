"""What every state of a stream must be: an int64 tensor of its size, on a device that holds numbers, and sums that rows
can have. A file with a right checksum may still hold others."""

from typing import Any

import torch
from torch import Tensor

from ..arguments import checks
from . import limbs
from .cells import Cells
from .fine import CONFIDENCE


def check_state(name: str, state: Any, size: int) -> Tensor:
    """``state``, a contiguous int64 tensor (size,); ValueError that names it if it is anything else."""
    wanted = isinstance(state, Tensor) and state.layout == torch.strided and state.dtype == torch.int64
    if not (wanted and state.shape == (size,) and state.is_contiguous()):
        raise ValueError(f"{name} must be a contiguous int64 tensor of shape ({size},), got {checks.describe(state)}")
    return state


def moved(name: str, state: Tensor, device: torch.device) -> Tensor:
    """``state`` on ``device``; ValueError that names it if it has no numbers."""
    if state.is_meta and device.type != "meta":
        raise ValueError(f"{name} must be on a device that holds numbers, got meta")
    return state.to(device)


def impossible(name: str) -> ValueError:
    return ValueError(f"{name} must hold sums over the rows of a stream, got numbers that no rows have")


def rows_can_have(rows: int, cells: Cells, fine: int, edges: Tensor, means: Tensor, largest: int) -> bool:
    """No counts below zero, no more correct ones than there are, confidences of a cell within it, both tables of the
    same rows, and no more of those than were seen. On the CPU.

    Args:
        cells: ``fine`` ones of confidence, then the bins between ``edges``, once or for each of some groups.
        means: (3, M), whole, low and infinite count of each; ``largest``: what no finite value of one exceeds.
    """
    tables = [Cells(*(x[part] for x in cells)) for part in (slice(fine), slice(fine, None))]
    if rows < 0 or not all(table.possible for table in tables):
        return False
    sums = {_sums(table) for table in tables if len(table.count)}
    if len(sums) != 1 or sums.pop()[0] > rows:
        return False
    return _within(cells, fine, edges.double()) and _finite(means, rows, largest)


def _sums(cells: Cells) -> tuple[int, ...]:
    whole, low = limbs.total(cells.whole, cells.low)
    return int(cells.total), int(cells.correct.sum()), int(whole), int(low)


def _within(cells: Cells, fine: int, edges: Tensor) -> bool:
    groups = (len(cells.count) - fine) // (len(edges) - 1)
    bounds = [(edges[:-1].repeat(groups), edges[1:].repeat(groups))]
    bounds += [CONFIDENCE.bounds()] if fine else []
    lowest, highest = (torch.cat(ends) for ends in zip(*reversed(bounds), strict=True))
    confidence, slack = cells.confidence_sum, 1e-8 * cells.count  # of fixed point, and of this arithmetic
    return bool(((confidence >= cells.count * lowest - slack) & (confidence <= cells.count * highest + slack)).all())


def _finite(means: Tensor, rows: int, largest: int) -> bool:
    whole, low, infinite = means
    within = (whole + (low >> limbs.BITS)).double().abs() <= float(rows) * largest
    return bool((within & (infinite >= 0) & (infinite <= rows)).all())
