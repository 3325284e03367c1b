"""What the state of a stream holds, how rows enter it, and how it is read.

A state is one flat int64 tensor: the number of rows; whole, low and infinite count of every mean (3, M); and a table
(4, T) of cells (see ``limbs``). The columns of the table are fine cells of confidence, if wanted, and the equal-width
bins: once, or for each fine cell of proximity and once more for rows that came without.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..arguments import checks
from ..ops.add_rows import add_rows
from . import limbs
from .binning import Binning
from .cells import Cells
from .fine import CONFIDENCE, PROXIMITY
from .rows import ROWS, inside, masked
from .state_checks import impossible, moved, rows_can_have

_MOST_ROWS = 1 << 24  # taken at a time where threads cost nothing
_LARGEST = 1 << 30  # a value that is no smaller counts as infinite in a mean
_MOST_NAMES, _LONGEST_NAME = 1000, 100
_CPU = torch.device("cpu")
_TAKEN = {"self", "confidence", "correct", "proximity", "labels", "ignore_index", "validate"}  # by an update


@dataclass(frozen=True)
class Reading:
    """A state, read: on the CPU, whatever the device, so that the metrics are the same bits too."""

    rows: int
    bins: Cells  # equal-width, (n_bins,)
    fine: Cells | None  # of confidence
    grouped: Cells | None  # (fine cell of proximity, bin), flattened; None if a row had no proximity
    means: dict[str, Tensor]  # 0-d float64


class Layout:
    def __init__(
        self,
        n_bins: int,
        closed: str = "left",
        *,
        fine: bool = False,
        n_proximity_bins: int | None = None,
        means: Sequence[str] = (),
    ) -> None:
        self.groups = 1
        if n_proximity_bins is None:
            n_bins, _ = checks.cells(n_bins)
        else:
            self.groups = PROXIMITY.size + 1
            most = checks.MOST_CELLS // self.groups
            checks.integer("n_bins", n_bins, 1, most, f"in each of {self.groups} cells of proximity")
            n_bins, n_proximity_bins = checks.cells(n_bins, n_proximity_bins, groups_name="n_proximity_bins")
        self.n_bins, self.n_proximity_bins = n_bins, n_proximity_bins
        self.closed = checks.choice("closed", closed, ("left", "right"))
        self.means = _names(means)
        self.fine = CONFIDENCE.size if fine else 0
        self.columns = self.fine + self.groups * self.n_bins
        self.size = 1 + 3 * len(self.means) + 4 * self.columns
        self._binning = Binning(self.n_bins, self.closed, looked_up=self.sparse)

    @property
    def edges(self) -> Tensor:
        """Edges (n_bins + 1,) of the equal-width bins, on the CPU."""
        return self._binning.edges

    @property
    def sparse(self) -> bool:
        """Whether there are so many cells that rows are added one by one."""
        return self.fine > 0 or self.groups > 1

    @property
    def name(self) -> str:
        """The same for layouts whose states hold the same, whatever is then computed from them."""
        tables = "_fine" * bool(self.fine) + "_proximity" * (self.groups > 1)
        return "_".join([f"counts{tables}", self.closed, str(self.n_bins), *self.means])

    @property
    def config(self) -> dict[str, Any]:
        names = ("n_bins", "closed", "n_proximity_bins")
        return {name: getattr(self, name) for name in names} | {"means": list(self.means)}

    def check(self, confidence: Any, correct: Any, proximity: Any, values: Mapping[str, Any], device: Any) -> None:
        """ValueError that names the argument whose type, shape or device ``add`` cannot take."""
        n = checks.floating("confidence", confidence, 1).shape[0]
        given = {"correct": checks.entries("correct", correct, n, "confidence")}
        if proximity is not None:
            if self.n_proximity_bins is None:
                raise ValueError("proximity must be None where n_proximity_bins is, got a value")
            given["proximity"] = checks.vector("proximity", proximity, n, "confidence")
        for name in values:
            if name not in self.means:
                raise ValueError(f"{name} must be one of means, which are {self.means}")
        for name in self.means:
            given[name] = checks.vector(name, values.get(name), n, "confidence")
        for name, x in given.items():
            checks.same_device(name, x, "confidence", confidence)
        if confidence.device != device:
            raise ValueError(f"confidence must be on {device} as the counts are, got {confidence.device}")

    def check_values(
        self, confidence: Tensor, correct: Tensor, proximity: Tensor | None, values: Mapping[str, Tensor]
    ) -> bool:
        """ValueError that names the argument, of those that passed ``check``, whose numbers ``add`` cannot take.
        Returns whether confidences and proximities were seen to lie in [0, 1]: at those that go through the kernel it
        is the kernel that looks."""
        seen = self.sparse
        for name, x in (("confidence", confidence), ("proximity", proximity)):
            if self.sparse and x is not None and not inside(x):
                checks.unit_interval(name, x)
                seen = False
        checks.correctness("correct", correct, len(confidence))
        for name, x in values.items():
            if checks.values_visible(x) and bool(x.isnan().any()):
                raise ValueError(f"{name} must be numbers, got NaN")
        return seen

    def add(
        self,
        state: Tensor,
        confidence: Tensor,
        correct: Tensor,
        proximity: Tensor | None = None,
        values: Mapping[str, Tensor] | None = None,
        *,
        kept: Tensor | None = None,
        validate: bool = True,
    ) -> None:
        """Add rows to ``state``, in place; as it was where this raises. ``kept`` (N,) booleans: those rows alone.
        Without ``validate`` no number is looked at."""
        values = values or {}
        self.check(confidence, correct, proximity, values, state.device)
        confidence, correct = masked(kept, confidence.detach(), 0), masked(kept, correct, False)
        proximity = None if proximity is None else masked(kept, proximity.detach(), 0)
        values = {name: masked(kept, x.detach(), 0) for name, x in values.items()}
        seen = validate and self.check_values(confidence, correct, proximity, values)
        if self.sparse:
            if kept is not None:
                confidence, seen = masked(kept, confidence, torch.nan), False  # NaN enters no cell
            step = ROWS if confidence.device.type == "cpu" else _MOST_ROWS
            for start in range(0, len(confidence), step):
                part = slice(start, start + step)
                near = None if proximity is None else proximity[part]
                self._add_rows(self._table(state), confidence[part], correct[part].bool(), near, seen)
        else:
            self._add_totals(self._table(state), confidence, correct.bool(), kept, validate)
        state[:1] += len(confidence) if kept is None else kept.sum()
        for index, name in enumerate(self.means):
            _add_mean(self._means(state)[:, index], values[name])

    def added_at_once(
        self,
        state: Tensor,
        confidence: Any,
        prediction: Any,
        labels: Any = None,
        proximity: Any = None,
        *,
        ignore_index: int | None = None,
        validate: bool = True,
    ) -> bool:
        """Whether rows were added in one step, which small batches need: a hundred torch operations take longer than
        the rows. Not, and nothing was, where there is anything to say of an argument or to do with it first.
        ``prediction`` (N,) int64, or booleans that say whether each is correct where there are no ``labels`` (N,)."""
        if self.means or confidence is None or prediction is None:
            return False
        return add_rows(
            state,
            confidence,
            prediction,
            labels,
            proximity,
            self._binning.edges,
            ignore_index=ignore_index,
            fine=self.fine > 0,
            grouped=self.groups > 1,
            closed=self.closed,
            validate=validate,
        )

    def read(self, state: Tensor) -> Reading:
        """ValueError if a row had a confidence or proximity outside [0, 1] that could not be looked at, or if no rows
        have this state."""
        state = moved("state", state, _CPU)
        self.verify(state)
        table, rows = self._table(state), int(state[0])
        fine, grouped = Cells.of(table[:, : self.fine]), Cells.of(table[:, self.fine :])
        if lost := rows - int(grouped.total):
            what = "confidence" if self.n_proximity_bins is None else "confidence and proximity"
            raise ValueError(f"{what} must lie in [0, 1], got {lost} row{'s' if lost > 1 else ''} that did not")
        bins = grouped.joined(torch.arange(self.n_bins).repeat(self.groups), self.n_bins)
        whole, low, infinite = self._means(state)
        sums = limbs.to_float(whole, low).masked_fill(infinite > 0, math.inf) / rows
        near = grouped.count.shape[0] - self.n_bins
        complete = self.n_proximity_bins is not None and not bool(grouped.count[near:].any())
        return Reading(
            rows,
            bins,
            fine if self.fine else None,
            Cells(*(x[:near] for x in grouped)) if complete else None,
            dict(zip(self.means, sums, strict=True)),
        )

    def verify(self, state: Tensor, name: str = "state") -> None:
        """ValueError that names it if no rows have this state."""
        state = moved(name, state, _CPU)
        cells = Cells.of(self._table(state))
        if not rows_can_have(int(state[0]), cells, self.fine, self.edges, self._means(state), _LARGEST):
            raise impossible(name)

    def counted(self, state: Tensor) -> int:
        """How many rows entered a cell: all but those with a confidence or proximity outside [0, 1]."""
        return int(self._table(state)[limbs.COUNT, self.fine :].sum())

    def follow(self, device: torch.device) -> None:
        """Keep what rows are compared with on ``device``, so that no update waits for a copy."""
        self._binning.follow(device)

    def carry(self, state: Tensor) -> None:
        """Make of a sum of states the state of all their rows, to the bit, in place."""
        table, means = self._table(state), self._means(state)
        limbs.carry(table[limbs.WHOLE], table[limbs.LOW])
        limbs.carry(means[0], means[1])

    def _table(self, state: Tensor) -> Tensor:
        return state[1 + 3 * len(self.means) :].view(4, self.columns)

    def _means(self, state: Tensor) -> Tensor:
        return state[1 : 1 + 3 * len(self.means)].view(3, -1) if self.means else state.new_zeros(3, 0)

    def _add_totals(
        self, table: Tensor, confidence: Tensor, correct: Tensor, kept: Tensor | None, validate: bool
    ) -> None:
        group, n_groups = (None, 1) if kept is None else ((~kept).long(), 2)
        totals, invalid = ops.bin_totals(
            confidence, correct, self.n_bins, group=group, n_groups=n_groups, closed=self.closed
        )
        if validate and checks.values_visible(invalid) and int(invalid):
            checks.unit_interval("confidence", confidence)
        limbs.add_totals(table, totals[:, 0])

    def _add_rows(
        self, table: Tensor, confidence: Tensor, correct: Tensor, proximity: Tensor | None, seen: bool
    ) -> None:
        count = torch.ones_like(correct, dtype=torch.int64)
        if not (seen or (inside(confidence) and (proximity is None or inside(proximity)))):
            valid = (confidence >= 0) & (confidence <= checks.LARGEST_CONFIDENCE)
            if proximity is not None:
                valid &= (proximity >= 0) & (proximity <= checks.LARGEST_CONFIDENCE)
                proximity = torch.where(valid, proximity, 0)
            confidence, correct, count = torch.where(valid, confidence, 0), valid & correct, valid.long()
        confidence = confidence.double().clamp(max=1)
        fine = CONFIDENCE(confidence)
        cell = self._binning(confidence, fine)
        if self.groups > 1:
            group = PROXIMITY.size if proximity is None else PROXIMITY(proximity.double().clamp(max=1))
            cell += group * self.n_bins
        values = [count, correct.long(), limbs.to_fixed(confidence)]
        if self.fine:
            cell = torch.cat([fine, cell + self.fine])
            values = [x for x in values for _ in range(2)]
        limbs.add_rows(table, cell, values)


def _add_mean(sums: Tensor, values: Tensor) -> None:
    infinite = ~(values.abs() < _LARGEST)
    fixed = (torch.where(infinite, 0, values).double() * limbs.ONE).round().long()
    sums += torch.stack([(fixed >> limbs.BITS).sum(), (fixed & limbs.MASK).sum(), infinite.sum()])
    limbs.carry(sums[0], sums[1])


def _names(means: Any) -> tuple[str, ...]:
    names = tuple(means) if isinstance(means, Iterable) and not isinstance(means, str) else (None,)
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ValueError(f"means must be different names, got {means!r}")
    if len(names) > _MOST_NAMES or any(len(name) > _LONGEST_NAME for name in names):
        raise ValueError(f"means must be at most {_MOST_NAMES} names of at most {_LONGEST_NAME} characters")
    if taken := _TAKEN.intersection(names):
        raise ValueError(f"means must not be called as update's own arguments are, got {min(taken)!r}")
    return names
