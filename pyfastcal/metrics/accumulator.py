"""A stream of predictions in one int64 tensor of fixed size, from which all binned metrics follow.

The state is sums of integers alone: the same bits for any split, order, number of threads, ranks or restarts; two
states add up to the state of both streams (``merge``, or one sum over ranks); exact for up to 2^63 rows.
"""

import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import checks
from . import equal_mass
from .cells import expected_error, maximum_error, mean_confidence
from .layout import Layout, Reading
from .rows import checked_ignore_index, not_ignored
from .state_checks import check_state, moved

_MAGIC = b"pyfastcal.accumulator/1\n"
_LONGEST_HEAD = 1 << 21  # as many names as there may be, each character escaped, and more


class Accumulator:
    """Counts of a stream, for accuracy, mean confidence, ECE, ACE, MCE, PIECE and the means of other values.

    Args:
        n_bins: equal-width bins of ECE, MCE and PIECE, equal-mass bins of ACE.
        closed: ``"left"`` or ``"right"``: which end of an equal-width bin belongs to it.
        n_proximity_bins: equal-mass groups of PIECE; None: no PIECE, and a smaller state.
        means: names of further values per row whose means are wanted, such as ``("nll", "brier")``.
        device: where the state is kept.

    ECE and whatever else has fixed bins is the functional form's value to the bit. ACE and PIECE are those of bins
    whose boundaries keep fine cells whole; ``error_intervals`` says between which numbers the exact ones lie.

    ``state`` is public: a contiguous int64 tensor whose sum over ranks (``torch.distributed.all_reduce``) is the state
    of all their rows, and after ``carry`` the very bits that one accumulator of all rows would hold.
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
        self._layout = Layout(n_bins, closed, fine=True, n_proximity_bins=n_proximity_bins, means=means)
        self.state = torch.zeros(self._layout.size, dtype=torch.int64, device=device)

    @property
    def state(self) -> Tensor:
        return check_state("state", self._state, self._layout.size)

    @state.setter
    def state(self, state: Tensor) -> None:
        self._state = check_state("state", state, self._layout.size)
        self._layout.follow(state.device)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that made it, fit for JSON; accumulators with the same ``config`` can be merged."""
        return self._layout.config

    @property
    def rows(self) -> int:
        return int(self.state[0])

    def update(
        self,
        confidence: Tensor,
        correct: Tensor,
        proximity: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        ignore_index: int | None = None,
        validate: bool = True,
        **values: Tensor,
    ) -> "Accumulator":
        """Add rows: ``confidence`` (N,) floating in [0, 1], ``correct`` (N,) booleans or zeros and ones, ``proximity``
        (N,) floating in [0, 1], and a floating (N,) for each of ``means``: kept to 2^-32, from 2^30 on as infinite.
        Rows whose ``labels`` (N,), integers, are ``ignore_index`` are left out, as if they had not been given.

        Types, shapes and devices are always checked. Nothing is read back from a GPU. What is not looked at there, or
        with ``validate=False``, shows in ``compute``: it raises if a row had a confidence or proximity outside [0, 1].

        Raises:
            ValueError: naming the argument; the state is then as it was.
        """
        plain = labels is None and ignore_index is None and not values
        if plain and self._layout.added_at_once(self.state, confidence, correct, None, proximity, validate=validate):
            return self
        kept = _kept(confidence, labels, ignore_index)
        self._layout.add(self.state, confidence, correct, proximity, values, kept=kept, validate=validate)
        return self

    def merge(self, other: "Accumulator") -> "Accumulator":
        """Add the rows of ``other``; ValueError if its ``config`` differs."""
        if not isinstance(other, Accumulator):
            raise ValueError(f"other must be an Accumulator, got {checks.describe(other)}")
        if other.config != self.config:
            raise ValueError(f"other must have the configuration {self.config}, got {other.config}")
        self.state += moved("other", other.state, self.state.device)
        return self.carry()

    def carry(self) -> "Accumulator":
        """Bring a ``state`` that is a sum of states to the form that ``update`` leaves. ``compute`` and ``to_bytes`` do
        not need it."""
        self._layout.carry(self.state)
        return self

    def compute(self) -> dict[str, Tensor]:
        """0-d float64 by name: ``accuracy``, ``confidence``, ``ece``, ``ace``, ``mce``, ``mce_weighted``, ``piece``
        (unless ``n_proximity_bins`` is None; NaN if a row came without proximity), and the ``means``. NaN without rows.

        Raises:
            ValueError: if a row had a confidence or proximity outside [0, 1], unseen until now.
        """
        return {name: value.to(self.state.device) for name, value in summary(self._layout, self.read()).items()}

    def error_intervals(self) -> dict[str, tuple[float, float]]:
        """Of ``ace``, and of ``piece`` where every row had a proximity: numbers between which the exact value, that of
        bins which part the rows of a cell, is proven to lie. docs/metrics.md has the proof."""
        return intervals(self._layout, self.read())

    def read(self) -> Reading:
        """The counts behind the metrics; its ``bins`` are what reliability diagrams and signed gaps are made of."""
        return self._layout.read(self.state)

    def reset(self) -> "Accumulator":
        self.state.zero_()
        return self

    def to(self, device: torch.device | str) -> "Accumulator":
        self.state = self.state.to(device)
        return self

    def to_bytes(self) -> bytes:
        """Configuration and state: the same bytes for the same rows, however they came."""
        self.carry()
        head = json.dumps(self.config).encode()
        body = self.state.cpu().numpy().astype("<i8", copy=False).tobytes()
        return _MAGIC + zlib.compress(len(head).to_bytes(8, "little") + head + body, 1)

    @classmethod
    def from_bytes(cls, data: bytes, device: torch.device | str = "cpu") -> "Accumulator":
        """What ``to_bytes`` gave, read in no more memory than a few such states take.

        Raises:
            ValueError: ``data`` is anything else, damaged, followed by more, or holds numbers that no rows have.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise ValueError(f"data must be bytes, got {checks.describe(data)}")
        try:
            layout, state = _unpacked(bytes(data))
            layout.verify(state)
        except (ValueError, TypeError, RecursionError, zlib.error) as error:
            raise ValueError(f"data must be the bytes of an accumulator: {str(error)[:200]}") from error
        made = cls(**layout.config, device="meta")  # whose state takes no memory
        made.state = state.to(device)
        return made


def _unpacked(data: bytes) -> tuple[Layout, Tensor]:
    """What ``to_bytes`` packed. No more is inflated than what the layout needs, and that it needs it is known first."""
    if not data.startswith(_MAGIC):
        raise ValueError("another format")
    inflate = zlib.decompressobj()
    content = inflate.decompress(data[len(_MAGIC) :], 8 + _LONGEST_HEAD)
    size = int.from_bytes(content[:8], "little", signed=True)
    head, body = content[8 : 8 + size], content[8 + size :]
    if len(content) < 8 or not 0 < size <= _LONGEST_HEAD or len(head) < size:
        raise ValueError("no configuration")
    layout = Layout(**json.loads(head), fine=True)
    if json.dumps(layout.config).encode() != head:
        raise ValueError("another configuration")
    body += inflate.decompress(inflate.unconsumed_tail, max(1, 8 * layout.size + 1 - len(body)))
    if len(body) != 8 * layout.size:
        raise ValueError(f"{'more' if len(body) > 8 * layout.size else 'fewer'} than {layout.size} numbers")
    if not inflate.eof or inflate.unused_data:
        raise ValueError("it does not end where it should")
    return layout, torch.from_numpy(np.frombuffer(bytearray(body), dtype="<i8").astype(np.int64, copy=False))


def _kept(confidence: Any, labels: Any, ignore_index: Any) -> Tensor | None:
    """Which rows count (None: all)."""
    if ignore_index is None:
        if labels is not None:
            raise ValueError("ignore_index must be given with labels, got None")
        return None
    if labels is None:
        raise ValueError(f"labels must be given with ignore_index={ignore_index}, got None")
    labels = checks.integers("labels", labels, len(checks.floating("confidence", confidence, 1)), "confidence")
    checks.same_device("labels", labels, "confidence", confidence)
    return not_ignored(labels, checked_ignore_index(ignore_index))


def summary(layout: Layout, counts: Reading) -> dict[str, Tensor]:
    """What ``Accumulator.compute`` gives, on the CPU."""
    bins = counts.bins
    results = {
        "accuracy": bins.correct.sum() / bins.total.double(),
        "confidence": mean_confidence(bins),
        "ece": expected_error(bins),
        "ace": adaptive_error(layout, counts),
        "mce": maximum_error(bins),
        "mce_weighted": maximum_error(bins, weighted=True),
    }
    if layout.n_proximity_bins is not None:
        results["piece"] = proximity_informed_error(layout, counts)
    return results | counts.means


def adaptive_error(layout: Layout, counts: Reading) -> Tensor:
    return equal_mass.streamed_error(counts.fine, layout.n_bins)


def proximity_informed_error(layout: Layout, counts: Reading) -> Tensor:
    """NaN if a row had no proximity."""
    if counts.grouped is None:
        return torch.tensor(torch.nan, dtype=torch.float64)
    return equal_mass.streamed_error(counts.grouped, layout.n_proximity_bins, layout.n_bins)


def intervals(layout: Layout, counts: Reading) -> dict[str, tuple[float, float]]:
    """What ``Accumulator.error_intervals`` gives."""
    found = {}
    if counts.fine is not None:
        found["ace"] = equal_mass.adaptive_interval(counts.fine, layout.n_bins)
    if counts.grouped is not None:
        found["piece"] = equal_mass.grouped_interval(counts.grouped, layout.n_proximity_bins, layout.edges)
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}
