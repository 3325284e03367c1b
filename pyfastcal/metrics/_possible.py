"""Whether a state can be one of rows. A file with a right checksum may still hold sums that no rows have."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import _limbs
from ._cells import Cells
from ._fine import CONFIDENCE

if TYPE_CHECKING:
    from ._layout import Layout


def rows_can_have(layout: "Layout", state: Tensor, largest: int) -> bool:
    """No counts below zero, no more correct ones than there are, confidences of a cell within it, both tables of the
    same rows, and no more of those than were seen; ``largest``: what no finite value of a mean exceeds. On the CPU."""
    rows, cells = int(state[0]), Cells.of(layout._table(state))
    tables = [Cells(*(x[part] for x in cells)) for part in (slice(layout.fine), slice(layout.fine, None))]
    if rows < 0 or not all(table.possible for table in tables):
        return False
    sums = {_sums(table) for table in tables if len(table.count)}
    return len(sums) == 1 and sums.pop()[0] <= rows and _within(layout, cells) and _means(layout, state, rows, largest)


def _sums(cells: Cells) -> tuple[int, ...]:
    whole, low = _limbs.total(cells.whole, cells.low)
    return int(cells.total), int(cells.correct.sum()), int(whole), int(low)


def _within(layout: "Layout", cells: Cells) -> bool:
    edges = layout.edges.double()
    bounds = [(edges[:-1].repeat(layout.groups), edges[1:].repeat(layout.groups))]
    bounds += [CONFIDENCE.bounds()] if layout.fine else []
    lowest, highest = (torch.cat(ends) for ends in zip(*reversed(bounds), strict=True))
    confidence, slack = cells.confidence_sum, 1e-8 * cells.count  # of fixed point, and of this arithmetic
    return bool(((confidence >= cells.count * lowest - slack) & (confidence <= cells.count * highest + slack)).all())


def _means(layout: "Layout", state: Tensor, rows: int, largest: int) -> bool:
    whole, low, infinite = layout._means(state)
    within = (whole + (low >> _limbs.BITS)).double().abs() <= float(rows) * largest
    return bool((within & (infinite >= 0) & (infinite <= rows)).all())
