"""From counts to errors: every binned metric is a short formula of three integers-at-heart per cell."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import checks, ops


class Cells(NamedTuple):
    """What ``bin_counts`` says of each cell, flattened (B,): the state a stream would add up."""

    count: Tensor  # int64
    correct: Tensor  # int64
    confidence_sum: Tensor  # float64

    @property
    def total(self) -> Tensor:
        return self.count.sum()

    @property
    def excess(self) -> Tensor:
        """``n_b (conf_b - acc_b)`` (B,): zero where the cell is empty, so nothing is ever 0 / 0."""
        return self.confidence_sum - self.correct

    @property
    def gap(self) -> Tensor:
        """``conf_b - acc_b`` (B,), NaN where the cell is empty."""
        return self.excess / self.count

    @property
    def mean_confidence(self) -> Tensor:
        return self.confidence_sum / self.count

    @property
    def accuracy(self) -> Tensor:
        return self.correct.double() / self.count


def count_cells(
    confidence: Tensor,
    correct: Tensor,
    n_bins: int = 10,
    *,
    closed: str = "left",
    group: Tensor | None = None,
    n_groups: int = 1,
) -> Cells:
    """Counts over (group, bin), through the one kernel that knows where a value falls."""
    checks.not_empty("confidence", checks.floating("confidence", confidence, 1))
    counts = ops.bin_counts(confidence, correct, n_bins, closed=closed, group=group, n_groups=n_groups)
    return Cells(*(c.reshape(-1) for c in counts))


def ordered_sum(x: Tensor) -> Tensor:
    """The sum of ``x`` (B,) by a fixed tree of additions, each its own operation: the same bits on every device."""
    size = 1 << (x.shape[0] - 1).bit_length()
    x = pad(x, (0, size - x.shape[0]))
    while size > 1:
        size //= 2
        x = x[:size] + x[size:]
    return x[0]


def expected_error(cells: Cells, norm: str = "l1") -> Tensor:
    """``l1``: sum of n_b/N |gap_b|; ``l2``: root of the sum of n_b/N gap_b^2; ``max``: the largest
    |gap_b|."""
    if norm == "max":
        return maximum_error(cells)
    if norm == "l2":
        return (ordered_sum(cells.excess.square() / cells.count.clamp(min=1)) / cells.total).sqrt()
    return ordered_sum(cells.excess.abs()) / cells.total


def maximum_error(cells: Cells, weighted: bool = False) -> Tensor:
    size = cells.total if weighted else cells.count.clamp(min=1)
    return (cells.excess.abs() / size).max()


def debiased_error(cells: Cells) -> Tensor:
    several, count, correct = cells.count > 1, cells.count.clamp(min=2).double(), cells.correct.double()
    bias = correct * (1 - correct / count) / (count - 1)
    terms = torch.where(several, cells.excess.square() / count - bias, 0.0)
    return (ordered_sum(terms) / cells.total).clamp(min=0).sqrt()


def check_values(confidence: Tensor) -> None:
    """For metrics that look at the values before ``bin_counts`` does."""
    checks.not_empty("confidence", checks.floating("confidence", confidence, 1))
    checks.unit_interval("confidence", confidence)


def check_probabilities(probs: Tensor, labels: Tensor, *, rows_sum_to_one: bool = True) -> Tensor:
    """Probabilities (N, C) with N >= 1, and labels (N,), which come back as int64. The sums may be off by the
    rounding of half precision."""
    checks.matrix("probs", probs, rows=True)
    checks.unit_interval("probs", probs)
    if rows_sum_to_one and checks.values_visible(probs):
        sums = probs.double().sum(dim=1)
        worst = (sums - 1).abs().argmax()
        if abs(float(sums[worst]) - 1) > 0.01:
            raise ValueError(f"probs must have rows that sum to 1, got a sum of {float(sums[worst]):.4g}")
    checks.same_device("labels", checks.tensor("labels", labels, 1), "probs", probs)
    return checks.labels("labels", labels, len(probs), probs.shape[1]).long()
