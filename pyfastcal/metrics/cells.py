"""From counts to errors: every binned metric is a short formula of three integers per cell.

The same bits on every device: each operation is one that rounds once. Divisors are tensors, since on a GPU torch
multiplies by the reciprocal of a Python number.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import ops
from ..arguments import checks
from . import limbs
from .rows import at_most_one, checked_ignore_index, not_ignored

_CHUNK = 1 << 22  # probabilities that add_classes bins at a time


class Cells(NamedTuple):
    """What is known of each cell, all int64 (B,): how many rows, how many of them are correct, and their confidences'
    sum ``whole + low * 2^-32`` with ``0 <= low < 2^32``."""

    count: Tensor
    correct: Tensor
    whole: Tensor
    low: Tensor

    @classmethod
    def of(cls, table: Tensor) -> "Cells":
        """Of a table (4, B); one whose ``low`` was not carried yet is as good."""
        count, correct, whole, low = table.unbind(0)
        return cls(count, correct, whole + (low >> limbs.BITS), low & limbs.MASK)

    @property
    def total(self) -> Tensor:
        return self.count.sum()

    @property
    def possible(self) -> bool:
        """Whether some rows, fewer than 2^63, have these sums."""
        above = (self.whole > self.count) | ((self.whole == self.count) & (self.low > 0))
        wrong = (self.correct < 0) | (self.correct > self.count) | (self.whole < 0) | above
        return not bool(wrong.any()) and float(self.count.double().sum()) < 2.0**63

    @property
    def confidence_sum(self) -> Tensor:
        return limbs.to_float(self.whole, self.low)

    @property
    def excess(self) -> Tensor:
        """``n_b (conf_b - acc_b)`` (B,): zero where the cell is empty, so nothing is ever 0 / 0."""
        return limbs.to_float(self.whole - self.correct, self.low)

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

    def joined(self, group: Tensor, n_groups: int) -> "Cells":
        """Cells (n_groups,) made of those whose ``group`` (B,) is theirs."""
        table = self.count.new_zeros(4, n_groups)
        for row, values in zip(table, self, strict=True):
            row.index_add_(0, group, values)
        return Cells.of(table)


def count_cells(
    confidence: Tensor,
    correct: Tensor,
    n_bins: int = 10,
    *,
    closed: str = "left",
    group: Tensor | None = None,
    n_groups: int = 1,
) -> Cells:
    """Counts over (group, bin), flattened, through the one kernel that knows where a value falls."""
    checks.not_empty("confidence", checks.floating("confidence", confidence, 1))
    totals = ops.fixed_point_bin_counts(confidence, correct, n_bins, closed=closed, group=group, n_groups=n_groups)
    table = totals.new_zeros(4, totals[0].numel())
    limbs.add_totals(table, totals.reshape(3, -1))
    return Cells.of(table)


def add_classes(
    table: Tensor, probs: Tensor, labels: Tensor, n_bins: int, closed: str = "left", *, validate: bool = True
) -> None:
    """Add every class's probability (N, C), right where it is the label (N,), to ``table`` (4, C * n_bins), in place;
    as it was where a probability is refused."""
    n, n_classes = probs.shape
    totals = table.new_empty(3, n_classes, n_bins)
    step = max(1, _CHUNK // max(1, n))
    for start in range(0, n_classes, step):
        columns = probs[:, start : start + step].T
        classes = torch.arange(len(columns), device=probs.device)
        totals[:, start : start + step], invalid = ops.bin_totals(
            columns.reshape(-1),
            (labels == (classes + start)[:, None]).reshape(-1),
            n_bins,
            group=classes.repeat_interleave(n),
            n_groups=len(columns),
            closed=closed,
        )
        if validate and checks.values_visible(invalid) and int(invalid):
            checks.unit_interval("probs", probs)
    limbs.add_totals(table, totals.view(3, -1))


def ordered_sum(x: Tensor) -> Tensor:
    """The sum of ``x`` (B,) by a fixed tree of additions, each its own operation: the same bits on every device."""
    size = 1 << (x.shape[0] - 1).bit_length()
    x = pad(x, (0, size - x.shape[0]))
    while size > 1:
        size //= 2
        x = x[:size] + x[size:]
    return x[0]


def mean_confidence(cells: Cells) -> Tensor:
    return limbs.to_float(*limbs.total(cells.whole, cells.low)) / cells.total


def expected_error(cells: Cells, norm: str = "l1") -> Tensor:
    """``l1``: sum of n_b/N |gap_b|; ``l2``: root of the sum of n_b/N gap_b^2; ``max``: the largest
    |gap_b|."""
    if norm == "max":
        return maximum_error(cells)
    if norm == "l2":
        return (ordered_sum(cells.excess.square() / cells.count.clamp(min=1)) / cells.total).sqrt()
    return absolute_excess(cells) / cells.total


def absolute_excess(cells: Cells) -> Tensor:
    """``sum_b n_b |gap_b|``, rounded once: the terms are added as integers, in whatever order."""
    return limbs.to_float(*limbs.total(*limbs.absolute(cells.whole - cells.correct, cells.low)))


def maximum_error(cells: Cells, weighted: bool = False) -> Tensor:
    total = cells.total
    size = total if weighted else cells.count.clamp(min=1)
    return (cells.excess.abs() / size).max() / (total > 0)  # NaN without rows


def debiased_error(cells: Cells) -> Tensor:
    several, count, correct = cells.count > 1, cells.count.clamp(min=2).double(), cells.correct.double()
    bias = correct * (1 - correct / count) / (count - 1)
    terms = torch.where(several, cells.excess.square() / count - bias, 0.0)
    return (ordered_sum(terms) / cells.total).clamp(min=0).sqrt()


def check_values(confidence: Tensor) -> Tensor:
    """``confidence`` in [0, 1], for metrics that look at the values before ``bin_counts`` does."""
    checks.not_empty("confidence", checks.floating("confidence", confidence, 1))
    checks.unit_interval("confidence", confidence)
    return at_most_one(confidence)


def check_probabilities(
    probs: Tensor, labels: Tensor, ignore_index: int | None, *, rows_sum_to_one: bool = True
) -> tuple[Tensor, Tensor]:
    """Probabilities (N, C) and labels (N,) int64 of the rows that count, of which there must be one."""
    probs, labels = without_ignored("probs", probs, labels, ignore_index)
    return at_most_one(checks.probabilities("probs", probs, rows=True, rows_sum_to_one=rows_sum_to_one)), labels


def without_ignored(name: str, x: Tensor, labels: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """The rows of ``x`` (N, C) whose label (N,) is not ``ignore_index``, and these labels, in [0, C), int64."""
    n, n_classes = checks.matrix(name, x, rows=True).shape
    checks.same_device("labels", checks.integers("labels", labels, n), name, x)
    if (kept := not_ignored(labels, checked_ignore_index(ignore_index))) is not None:
        x, labels = x[kept], labels[kept]
        if not len(labels):
            raise ValueError(f"labels must not all be ignore_index, got {n} times {ignore_index}")
    return x, checks.labels("labels", labels, len(labels), n_classes).long()
