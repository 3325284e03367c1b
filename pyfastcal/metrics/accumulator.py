"""A stream of predictions in one int64 tensor of fixed size, from which all binned metrics follow.

The state is sums of integers alone: the same bits for any split, order, number of threads, ranks or restarts; two
states add up to the state of both streams (``merge``, or one sum over ranks); exact for up to 2^63 rows.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import checks, reference
from . import _equal_mass, _fine, _limbs
from ._cells import Cells, expected_error, maximum_error

_MAGIC = b"pyfastcal.accumulator/1\n"
_ROWS = 8000  # taken at a time: it all stays in cache, and below what torch would split over threads
_MOST_ROWS = 1 << 24  # the same where threads cost nothing
_MOST = 1 << 30  # values of a mean from here on count as infinite


class Accumulator:
    """Counts of a stream, for accuracy, mean confidence, ECE, ACE, MCE, PIECE and the means of other values.

    Args:
        n_bins: equal-width bins of ECE, MCE and PIECE, equal-mass bins of ACE.
        closed: ``"left"`` or ``"right"``: which end of an equal-width bin belongs to it.
        n_proximity_bins: equal-mass groups of PIECE; None: no PIECE, and a much smaller state.
        means: names of further values per row whose means are wanted, such as ``("nll", "brier")``.
        device: where the state is kept.

    ECE and what else has fixed bins is the functional form's value to the bit. ACE and PIECE are those of values
    whose bin boundaries keep fine cells whole; ``error_intervals`` says between which numbers the exact ones lie.

    ``state`` is public: a contiguous int64 tensor whose sum over ranks (``torch.distributed.all_reduce``) is the state
    of all their rows.
    """

    def __init__(
        self,
        n_bins: int = 10,
        *,
        closed: str = "left",
        n_proximity_bins: int | None = 10,
        means: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self.n_bins = checks.integer("n_bins", n_bins, 1)
        self.closed = checks.choice("closed", closed, ("left", "right"))
        if n_proximity_bins is not None:
            checks.integer("n_proximity_bins", n_proximity_bins, 1)
        self.n_proximity_bins = n_proximity_bins
        self.means = tuple(means)
        if not all(isinstance(name, str) for name in self.means) or len(set(self.means)) != len(self.means):
            raise ValueError(f"means must be different names, got {means!r}")
        # columns of the table: the fine cells, then equal-width bins for each fine cell of proximity and for none
        self._groups = 1 if n_proximity_bins is None else _fine.PROXIMITY.size + 1
        self._columns = _fine.CONFIDENCE.size + self._groups * self.n_bins
        self._edges = reference.uniform_edges(self.n_bins)
        self._lookup = _lookup(self._edges)
        self.state = torch.zeros(1 + 3 * len(self.means) + 4 * self._columns, dtype=torch.int64, device=device)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that made it, fit for JSON; accumulators with the same ``config`` can be merged."""
        names = ("n_bins", "closed", "n_proximity_bins")
        return {name: getattr(self, name) for name in names} | {"means": list(self.means)}

    @property
    def rows(self) -> int:
        return int(self.state[0])

    def update(
        self,
        confidence: Tensor,
        correct: Tensor,
        proximity: Tensor | None = None,
        *,
        validate: bool = True,
        **values: Tensor,
    ) -> "Accumulator":
        """Add rows: ``confidence`` (N,) floating in [0, 1], ``correct`` (N,) booleans or zeros and ones,
        ``proximity`` (N,) floating in [0, 1], and a floating (N,) for each of ``means``.

        Nothing is read back from a GPU. What is not looked at there, or with ``validate=False``, shows in
        ``compute``: it raises if a row had a confidence or proximity outside [0, 1].

        Raises:
            ValueError: naming the argument; the state is then as it was.
        """
        if validate:
            correct = self._check(confidence, correct, proximity, values)
        confidence = confidence.detach()
        step = _ROWS if confidence.device.type == "cpu" else _MOST_ROWS
        for start in range(0, len(confidence), step):
            rows = slice(start, start + step)
            self._add(confidence[rows], correct[rows], None if proximity is None else proximity.detach()[rows])
        self.state[0] += len(confidence)
        for index, name in enumerate(self.means):
            self._add_mean(self._mean_sums[:, index], values[name].detach())
        return self

    def merge(self, other: "Accumulator") -> "Accumulator":
        """Add the rows of ``other``; ValueError if its ``config`` differs."""
        if other.config != self.config:
            raise ValueError(f"other must have the configuration {self.config}, got {other.config}")
        self.state += other.state.to(self.state.device)
        self._carry()
        return self

    def compute(self) -> dict[str, Tensor]:
        """0-d float64 by name: ``accuracy``, ``confidence``, ``ece``, ``ace``, ``mce``, ``mce_weighted``, ``piece``
        (unless ``n_proximity_bins`` is None; NaN if a row came without proximity), and the ``means``. NaN without rows.

        Raises:
            ValueError: if a row had a confidence or proximity outside [0, 1], unseen until now.
        """
        fine, bins, grouped = self._cells()
        results = {
            "accuracy": bins.correct.sum() / bins.total,
            "confidence": _limbs.to_float(*_limbs.total(bins.whole, bins.low)) / bins.total,
            "ece": expected_error(bins),
            "ace": _equal_mass.streamed_error(fine, self.n_bins),
            "mce": maximum_error(bins) if self.rows else torch.tensor(torch.nan, dtype=torch.float64),
            "mce_weighted": maximum_error(bins, weighted=True),
        }
        if self.n_proximity_bins is not None:
            results["piece"] = torch.tensor(torch.nan, dtype=torch.float64)
            if grouped is not None:
                results["piece"] = _equal_mass.streamed_error(grouped, self.n_proximity_bins, self.n_bins)
        whole, low, infinite = self._mean_sums.cpu()
        sums = _limbs.to_float(whole, low).masked_fill(infinite > 0, torch.inf) / self.rows
        results |= zip(self.means, sums, strict=True)
        return {name: value.to(self.state.device, torch.float64) for name, value in results.items()}

    def error_intervals(self) -> dict[str, tuple[float, float]]:
        """``ace`` and ``piece`` (where ``compute`` has it): numbers between which the exact value, the one over single
        rows, is proven to lie. docs/metrics.md has the proof."""
        fine, _, grouped = self._cells()
        lower, upper = _fine.CONFIDENCE.bounds()
        found = {"ace": _equal_mass.error_interval(fine, self.n_bins, lower[:, None], upper[:, None])}
        if grouped is not None:
            edges = self._edges.double()
            slack = 2.0**-32  # of fixed point
            arguments = self.n_proximity_bins, edges[None, :-1] - slack, edges[None, 1:] + slack, self.n_bins
            found["piece"] = _equal_mass.error_interval(grouped, *arguments)
        return {name: (float(low), float(high)) for name, (low, high) in found.items()}

    def reliability(self) -> Cells:
        """The equal-width bins, (n_bins,): what reliability diagrams and signed gaps are drawn from."""
        return self._cells()[1]

    def reset(self) -> "Accumulator":
        self.state.zero_()
        return self

    def to(self, device: torch.device | str) -> "Accumulator":
        self.state = self.state.to(device)
        return self

    def to_bytes(self) -> bytes:
        """Configuration and state: the same bytes for the same rows, however they came."""
        self._carry()
        head = json.dumps(self.config).encode()
        body = self.state.cpu().numpy().astype("<i8", copy=False).tobytes()
        return _MAGIC + zlib.compress(struct.pack("<q", len(head)) + head + body, 1)

    @classmethod
    def from_bytes(cls, data: bytes, device: torch.device | str = "cpu") -> "Accumulator":
        """What ``to_bytes`` gave; ValueError if ``data`` is anything else, or damaged."""
        try:
            if not data.startswith(_MAGIC):
                raise ValueError("another format")
            content = zlib.decompress(data[len(_MAGIC) :])
            (size,) = struct.unpack_from("<q", content)
            made = cls(**json.loads(content[8 : 8 + size]))
            state = torch.frombuffer(bytearray(content[8 + size :]), dtype=torch.int64)
            if state.shape != made.state.shape:
                raise ValueError(f"{len(state)} numbers, not {len(made.state)}")
        except (ValueError, TypeError, zlib.error, struct.error) as error:
            raise ValueError(f"data must be the bytes of an accumulator: {error}") from error
        made.state = state.to(device)
        return made

    def _check(self, confidence: Any, correct: Any, proximity: Any, values: dict[str, Any]) -> Tensor:
        if not _inside(checks.floating("confidence", confidence, 1)):
            checks.unit_interval("confidence", confidence)
        n = confidence.shape[0]
        correct = checks.correctness("correct", correct, n)
        given = {"correct": correct}
        if proximity is not None:
            if self.n_proximity_bins is None:
                raise ValueError("proximity must be None where n_proximity_bins is, got a value")
            if not _inside(checks.vector("proximity", proximity, n, "confidence")):
                checks.unit_interval("proximity", proximity)
            given["proximity"] = proximity
        for name in values:
            if name not in self.means:
                raise ValueError(f"{name} must be one of means, which are {self.means}")
        for name in self.means:
            given[name] = checks.vector(name, values.get(name), n, "confidence")
            if checks.values_visible(given[name]) and bool(given[name].isnan().any()):
                raise ValueError(f"{name} must be numbers, got NaN")
        for name, x in given.items():
            checks.same_device(name, x, "confidence", confidence)
        if confidence.device != self.state.device:
            raise ValueError(f"confidence must be on {self.state.device} as the state is, got {confidence.device}")
        return correct

    def _add(self, confidence: Tensor, correct: Tensor, proximity: Tensor | None) -> None:
        correct = correct.bool()
        count = torch.ones_like(correct, dtype=torch.int64)
        if not (_inside(confidence) and (proximity is None or _inside(proximity))):  # or not to be looked at
            valid = (confidence >= 0) & (confidence <= 1)
            if proximity is not None:
                valid &= (proximity >= 0) & (proximity <= 1)
                proximity = torch.where(valid, proximity, 0)
            confidence, correct, count = torch.where(valid, confidence, 0), valid & correct, valid.long()
        confidence = confidence.double()
        fine = _fine.CONFIDENCE(confidence)
        bins = self._bin(confidence, fine)
        if proximity is None:
            bins += self._columns - self.n_bins
        else:
            bins += _fine.PROXIMITY(proximity.double()) * self.n_bins + _fine.CONFIDENCE.size
        correct, fixed = correct.long(), _limbs.to_fixed(confidence)
        _limbs.add_rows(self._table, torch.cat([fine, bins]), [count, count, correct, correct, fixed, fixed])

    def _bin(self, confidence: Tensor, fine: Tensor) -> Tensor:
        """``reference.bin_index``, looked up where no fine cell holds two edges."""
        if self._lookup is None:
            return reference.bin_index(confidence, self._edges.to(confidence.device), self.closed)
        if self._lookup[0].device != fine.device:
            self._lookup = tuple(x.to(fine.device) for x in self._lookup)
        before, edge = (x.index_select(0, fine) for x in self._lookup)
        return before.add_(confidence >= edge if self.closed == "left" else confidence > edge)

    def _add_mean(self, sums: Tensor, values: Tensor) -> None:
        infinite = ~(values.abs() < _MOST)
        fixed = (torch.where(infinite, 0, values).double() * _limbs.ONE).round().long()
        sums += torch.stack([(fixed >> _limbs.BITS).sum(), (fixed & _limbs.MASK).sum(), infinite.sum()])
        _limbs.carry(sums[0], sums[1])

    def _cells(self) -> tuple[Cells, Cells, Cells | None]:
        """On the CPU: the fine cells, the equal-width bins, and (fine proximity, bin) if every row has a proximity."""
        table = self._table.cpu()
        fine = Cells.of(table[:, : _fine.CONFIDENCE.size])
        if lost := self.rows - int(fine.total):
            what = "confidence" if self.n_proximity_bins is None else "confidence and proximity"
            raise ValueError(f"{what} must lie in [0, 1], got {lost} rows that did not")
        grouped = Cells.of(table[:, _fine.CONFIDENCE.size :])
        bins = grouped.joined(torch.arange(self.n_bins).repeat(self._groups), self.n_bins)
        last = self._groups * self.n_bins - self.n_bins
        complete = self.n_proximity_bins is not None and not bool(grouped.count[last:].any())
        return fine, bins, Cells(*(x[:last] for x in grouped)) if complete else None

    def _carry(self) -> None:
        _limbs.carry(self._table[_limbs.WHOLE], self._table[_limbs.LOW])
        _limbs.carry(self._mean_sums[0], self._mean_sums[1])

    @property
    def _mean_sums(self) -> Tensor:
        """(3, means): whole, low, how many were infinite."""
        return self.state[1 : 1 + 3 * len(self.means)].view(3, -1)

    @property
    def _table(self) -> Tensor:
        return self.state[1 + 3 * len(self.means) :].view(4, self._columns)


def _inside(x: Tensor) -> bool:
    """Whether all of ``x`` (N,) lies in [0, 1]; no where it cannot be looked at."""
    if not checks.values_visible(x):
        return False
    for rows in x.split(_ROWS) if len(x) else ():
        low, high = rows.aminmax()
        if not (0 <= low.item() and high.item() <= 1):  # nor for NaN
            return False
    return True


def _lookup(edges: Tensor) -> tuple[Tensor, Tensor] | None:
    """For each fine cell how many interior edges lie in cells before it, and the one inside (2: none); None if some
    cell holds two."""
    inner = edges[1:-1].double()
    held = torch.bincount(_fine.CONFIDENCE(inner), minlength=_fine.CONFIDENCE.size)
    if int(held.max()) > 1:
        return None
    edge = torch.full((_fine.CONFIDENCE.size,), 2.0, dtype=torch.float64)
    edge[_fine.CONFIDENCE(inner)] = inner
    return held.cumsum(0) - held, edge
