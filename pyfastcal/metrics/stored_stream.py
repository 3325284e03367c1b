"""Exact equal-mass errors of a stream that can be read again: ACE and PIECE to the bit, in memory of fixed size.

The first pass counts fine cells and so learns in which cell each equal-mass bin starts. The next one counts just those
few cells again, each parted into thousands; and so on until a part holds a single value. For single precision that is
two passes, three where the values lie so close to 0 or so many bins share the memory that parts must be larger.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..arguments import checks
from ..arguments.arrays import to_tensor
from . import equal_mass, limbs
from .cells import Cells, absolute_excess
from .fine import CONFIDENCE, PROXIMITY, FineCells
from .layout import Layout, Reading

PARTS = 1 << 21  # cells that a pass counts: 64 MB
_SINGLE = 29  # trailing zeros of the float64 that is a float32


def adaptive_calibration_error_of_stream(
    batches: Iterable[Sequence[Tensor]], n_bins: int = 10, *, group: Any = None
) -> Tensor:
    """``adaptive_calibration_error`` of all batches together, to the bit.

    Args:
        batches: gives (confidence (N,), correct (N,)) again each time it is iterated over: a list, a ``DataLoader``.
        group: ``torch.distributed`` group over whose ranks the batches are spread; None: they are all here.

    Raises:
        ValueError: naming the argument; batches that run out for good, or differ from one pass to the next.
    """
    layout = Layout(n_bins, fine=True)
    counts, single = _first_pass(batches, layout, group, 2)
    refinement = Refinement(counts.fine, CONFIDENCE, n_bins, single=single)
    while not refinement.done:
        for confidence, correct, _ in _again(batches, layout, 2):
            refinement.add(confidence, confidence, correct, torch.zeros(len(confidence), dtype=torch.int64))
        refinement.advance(group)
    return refinement.error()


def proximity_informed_ece_of_stream(
    batches: Iterable[Sequence[Tensor]], n_bins: int = 10, n_proximity_bins: int = 10, *, group: Any = None
) -> Tensor:
    """``proximity_informed_ece`` of all batches together, to the bit, for proximities in [0, 1]; ``batches`` gives
    (confidence, correct, proximity), each (N,). Otherwise as ``adaptive_calibration_error_of_stream``."""
    layout = Layout(n_bins, n_proximity_bins=checks.integer("n_proximity_bins", n_proximity_bins, 1))
    counts, single = _first_pass(batches, layout, group, 3)
    assert counts.grouped is not None
    refinement = Refinement(counts.grouped, PROXIMITY, n_proximity_bins, n_bins, single=single)
    while not refinement.done:
        for confidence, correct, proximity in _again(batches, layout, 3):
            assert proximity is not None
            refinement.add(proximity, confidence, correct, reference.bin_index(confidence, layout.edges))
        refinement.advance(group)
    return refinement.error()


class Refinement:
    """Where equal-mass bins start, ever more exactly.

    Args:
        cells: the first pass's counts of (fine cell, bin), flattened.
        fine: the cells of the values that are ranked.
        n_groups: number G of equal-mass bins.
        n_bins: number of bins that each of them is parted into.
        single: whether all ranked values are float32, float16 or bfloat16.

    While not ``done``: ``add`` all rows, then ``advance``. ``error()`` is then ``sum_{g,b} n_gb/N |gap_gb|``.
    """

    def __init__(self, cells: Cells, fine: FineCells, n_groups: int, n_bins: int = 1, *, single: bool = False) -> None:
        self._total, self._n_bins, self._resolution = cells.total, n_bins, _SINGLE if single else 0
        table = torch.stack(cells).view(4, -1, n_bins)
        index, self._rank = equal_mass.start_cells(table[limbs.COUNT].sum(1), n_groups)
        self._everything = table.sum(1)
        # of each start: what lies below its window (4, G-1, n_bins), and its rank among the window's rows
        self._below = (table.cumsum(1) - table)[:, index]
        self._first, self._end = _first_key(fine, index), _first_key(fine, index + 1)
        self._prepare(table[limbs.COUNT].sum(1)[index])

    @property
    def done(self) -> bool:
        return not len(self._open)

    def add(self, values: Tensor, confidence: Tensor, correct: Tensor, bins: Tensor) -> None:
        """Rows (N,): what is ranked, the confidence, whether correct, and the bin."""
        keys = _keys(values.detach().cpu().double())
        window = torch.bucketize(keys, self._starts, right=True) - 1
        inside = ((window >= 0) & (keys < self._ends[window])).nonzero()[:, 0]
        keys, window = keys[inside], window[inside]
        part = (keys - self._starts[window]) >> self._shifts[window]
        cell = (window * self._parts + part) * self._n_bins + bins.cpu()[inside]
        confidence, correct = (x.detach().cpu()[inside] for x in (confidence, correct))
        rows = torch.ones_like(cell), (correct != 0).long(), limbs.to_fixed(confidence.double())
        limbs.add_rows(self._table, cell, rows)

    def advance(self, group: Any = None) -> None:
        """Narrow every window to the part in which its start lies. ``group``: ranks over which the rows are spread."""
        if group is not None:
            self._table = _sum_over(group, self._table)
        parts = self._table.view(4, -1, self._parts, self._n_bins)
        if not torch.equal(parts[limbs.COUNT].sum((1, 2)), self._expected):
            raise ValueError("batches must give the same rows in every pass")
        for start, window in zip(self._open.tolist(), self._window.tolist(), strict=True):
            counts = parts[limbs.COUNT, window].sum(1)
            index, rank = equal_mass.cells_of_ranks(counts, self._rank[start : start + 1])
            self._below[:, start] += parts[:, window, : int(index)].sum(1)
            self._rank[start] = rank
            shift = self._shifts[window]
            self._first[start] = self._starts[window] + (index << shift)
            self._end[start] = torch.minimum(self._first[start] + (1 << shift), self._ends[window])
            self._held[start] = counts[index]
        self._prepare(self._held)

    def error(self) -> Tensor:
        nothing = torch.zeros_like(self._everything)[:, None]
        borders = torch.cat([nothing, self._below, self._everything[:, None]], dim=1)
        return absolute_excess(Cells.of(borders.diff(dim=1).reshape(4, -1))) / self._total

    def _prepare(self, held: Tensor) -> None:
        """The windows that are left: those in which rows lie below the start, if they can hold two values."""
        self._held = held
        split = (self._rank > 0) & (self._end - self._first > 1 << self._resolution)
        self._open = split.nonzero()[:, 0]
        if self.done:
            return
        self._starts, self._window = self._first[self._open].unique(return_inverse=True)  # sorted
        which = torch.empty_like(self._starts).scatter_(0, self._window, self._open)
        self._ends, self._expected = self._end[which], held[which]
        fit = max(2, PARTS // (len(self._starts) * self._n_bins))
        widths = self._ends - self._starts
        self._shifts = torch.tensor([max(0, ((int(w) - 1) // fit).bit_length()) for w in widths])
        self._parts = int((((widths - 1) >> self._shifts) + 1).max())
        self._table = torch.zeros(4, len(self._starts) * self._parts * self._n_bins, dtype=torch.int64)


def _first_pass(batches: Any, layout: Layout, group: Any, width: int) -> tuple[Reading, bool]:
    state = torch.zeros(layout.size, dtype=torch.int64)
    wide = torch.zeros(1, dtype=torch.int64)
    for confidence, correct, proximity in _again(batches, layout, width):
        layout.add(state, confidence, correct, proximity, validate=False)
        wide += (confidence if proximity is None else proximity).dtype == torch.float64
    if group is not None:
        state, wide = _sum_over(group, state), _sum_over(group, wide)
        layout.carry(state)
    if not int(state[0]):
        raise ValueError("batches must not be empty, got no rows")
    return layout.read(state), not bool(wide)


def _again(batches: Any, layout: Layout, width: int) -> Iterable[tuple[Tensor, Tensor, Tensor | None]]:
    """(confidence, correct, proximity) of each batch, on the CPU, checked: it may differ from one pass to the next."""
    if not isinstance(batches, Iterable) or isinstance(batches, Iterator):
        raise ValueError("batches must be iterable more than once, such as a list or a DataLoader")
    for batch in batches:
        if not isinstance(batch, Sequence) or len(batch) != width:
            names = ("confidence", "correct", "proximity")[:width]
            raise ValueError(f"batches must give ({', '.join(names)}), got {checks.describe(batch)}")
        rows = [to_tensor(x).cpu() if hasattr(x, "dtype") else x for x in batch]
        confidence, correct, proximity = rows if width == 3 else (*rows, None)
        if width == 3:
            checks.tensor("proximity", proximity, 1)  # not None
        layout.check(confidence, correct, proximity, {}, torch.device("cpu"))
        layout.check_values(confidence, correct, proximity, {})
        yield confidence.clamp(max=1), correct, None if proximity is None else proximity.clamp(max=1)


def _sum_over(group: Any, x: Tensor) -> Tensor:
    x = x.clone()
    torch.distributed.all_reduce(x, group=group)
    return x


def _keys(values: Tensor) -> Tensor:
    """int64 in the order of the float64 values, which are not negative."""
    return (values + 0.0).view(torch.int64)  # -0.0 + 0.0 is 0.0


def _first_key(fine: FineCells, cell: Tensor) -> Tensor:
    """The key of the smallest value in each cell or a later one; past the key of 1 where there is none."""
    low, high = torch.zeros_like(cell), torch.full_like(cell, int(_keys(torch.ones(1, dtype=torch.float64))) + 1)
    for _ in range(63):  # bisection: cells are monotone
        middle = (low + high) >> 1
        reached = fine(middle.view(torch.float64)) >= cell
        high = torch.where(reached, middle, high)
        low = torch.where(reached, low, torch.minimum(middle + 1, high))
    return high
