"""Equal-mass bins from a histogram over fine cells: the error with every cell kept whole, and what the exact one, over
single rows, can be.

Bin b of B starts at the value of rank ``floor(b N / B)``, and equal values are never split (``reference.
equal_mass_groups``). Cumulative counts say in which cell each start lies. Every other cell belongs to one bin for
certain; of a cell with a start, the rows below the start belong to the bin before. Keeping the cell whole, as if its
values were all equal, gives all of it to the bin of its last start: the streamed error is the error of the values'
cells. docs/metrics.md proves the interval.
"""

import torch
from torch import Tensor

from .cells import Cells, absolute_excess
from .fine import CONFIDENCE

_ROUNDING = 1e-12  # of float64 sums, generously
_FIXED_POINT = 2.0**-32  # more than a confidence is rounded by


def start_cells(count: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Of the ``n_groups - 1`` starts, each int64: their cells, and how many rows of that cell have a lower rank."""
    start, total = torch.arange(1, n_groups), count.sum()
    # floor(start * total / n_groups), of which only the product would overflow
    ranks = start * (total // n_groups) + start * (total % n_groups) // n_groups
    return cells_of_ranks(count, ranks)


def cells_of_ranks(count: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    after = count.cumsum(0)
    cell = torch.searchsorted(after, ranks, right=True).clamp_(max=len(count) - 1)  # no rows, no ranks
    return cell, ranks - (after - count)[cell]


def groups_of_cells(count: Tensor, n_groups: int) -> Tensor:
    """The bin (T,) of each cell, kept whole."""
    cell, _ = start_cells(count, n_groups)
    return torch.bincount(cell, minlength=len(count)).cumsum(0)


def streamed_error(cells: Cells, n_groups: int, n_bins: int = 1) -> Tensor:
    """``sum_{g,b} n_gb/N |gap_gb|``: ``cells`` of (fine cell, bin), flattened; equal-mass groups of the fine cells."""
    count = cells.count.view(-1, n_bins).sum(1)
    group = groups_of_cells(count, n_groups)[:, None] * n_bins + torch.arange(n_bins)
    return absolute_excess(cells.joined(group.flatten(), n_groups * n_bins)) / cells.total


def adaptive_interval(cells: Cells, n_groups: int) -> Tensor:
    """(2,): ``error_interval`` of equal-mass bins of confidence, ``cells`` its fine cells."""
    lower, upper = CONFIDENCE.bounds()
    return error_interval(cells, n_groups, lower[:, None], upper[:, None])


def grouped_interval(cells: Cells, n_groups: int, edges: Tensor) -> Tensor:
    """(2,): ``error_interval`` of bins with these ``edges`` inside equal-mass groups of proximity."""
    lower, upper = edges[None, :-1].double() - _FIXED_POINT, edges[None, 1:].double() + _FIXED_POINT
    return error_interval(cells, n_groups, lower, upper, lower.shape[1])


def error_interval(cells: Cells, n_groups: int, lower: Tensor, upper: Tensor, n_bins: int = 1) -> Tensor:
    """(2,) float64 that hold between them the error over single rows, whatever they were.

    ``lower``, ``upper``: between which the confidences of a fine cell (T, 1), or of a bin (1, n_bins), lie.
    """
    n, correct, confidence, excess = (
        x.double().view(-1, n_bins) for x in (cells.count, cells.correct, cells.confidence_sum, cells.excess)
    )
    cell, below = start_cells(cells.count.view(-1, n_bins).sum(1), n_groups)
    cell, starts = cell.unique_consecutive(return_counts=True)
    below = below[starts.cumsum(0) - 1][:, None].double()  # of the last start in the cell
    # The excess of what lies below a start: that of the cells before its own, plus at most `wrong` of wrong rows in it
    # (each adds its confidence), less at most `right` of correct ones (each takes 1 - confidence away).
    before = (excess.cumsum(0) - excess)[cell]
    upper, lower = upper.expand_as(n)[cell], lower.expand_as(n)[cell]
    wrong = torch.minimum(torch.minimum(below, (n - correct)[cell]) * upper, confidence[cell])
    right = torch.minimum(below, correct[cell]) * (1 - lower)
    ends = _extremes(before, wrong, right, (starts > 1)[:, None], excess.sum(0)) / cells.total
    return ends + ends.new_tensor([-_ROUNDING, _ROUNDING])


def _extremes(before: Tensor, wrong: Tensor, right: Tensor, several: Tensor, total: Tensor) -> Tensor:
    """Least and largest ``sum_b sum_g |F[g+1, b] - F[g, b]|``, with F = 0 before the first and ``total`` (n_bins,)
    after the last of the starts, whose F lie in [before - right, before + wrong], each (cells, n_bins); ``several``
    (cells, 1): whether a cell holds more than one, as many as may be.

    ``sum |d_g| = max over signs of sum s_g d_g``, and there F_g has the factor ``s_{g-1} - s_g``: 2 F is added where
    the sign turns from + to -, taken away where it turns from - to +. So each extreme is the best path through the
    signs, cell by cell: for the largest with the F that favour it, for the least with those that do not. Starts in one
    cell share its rows: in an alternating sum of their F, what is below one is below all later ones, and ``wrong`` and
    ``right`` count once.
    """
    plus = minus = torch.zeros_like(total)
    most_plus = most_minus = torch.zeros_like(total)
    for f, w, r, more in zip(before, wrong, right, several, strict=True):
        plus, minus = torch.maximum(plus, minus - 2 * (f + w)), torch.maximum(minus, plus + 2 * (f - r))
        most_plus, most_minus = (
            torch.maximum(most_plus + 2 * r * more, most_minus - 2 * (f - r)),
            torch.maximum(most_minus + 2 * w * more, most_plus + 2 * (f + w)),
        )
    return torch.stack([torch.maximum(p + total, m - total).sum() for p, m in ((plus, minus), (most_plus, most_minus))])
