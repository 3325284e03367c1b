"""The classwise error as a ``torchmetrics.Metric`` class; ``streaming`` has the others, and says what they share."""

from typing import Any

import torch
from torch import Tensor

from ..arguments import checks
from ..arguments.arrays import accepts_numpy
from . import limbs
from .cells import Cells, absolute_excess, add_classes
from .rows import masked, not_ignored
from .state_checks import impossible, moved
from .stateful import Sums


class ClasswiseCalibrationError(Sums):
    """``mean_c ECE(probs[:, c], labels == c)``, as ``metrics.classwise_ece``, to the bit.

    Args:
        n_classes: number C of columns of ``probs``.
        n_bins: equal-width bins of every class.
        average: False gives the error of each class, (C,).
        closed, ignore_index, validate, kwargs: as in ``CalibrationError``.
    """

    def __init__(
        self,
        n_classes: int,
        n_bins: int = 10,
        *,
        average: bool = True,
        closed: str = "left",
        ignore_index: int | None = None,
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        n_bins, n_classes = checks.cells(n_bins, n_classes, groups_name="n_classes")
        closed = checks.choice("closed", closed, ("left", "right"))
        name = f"counts_classwise_{closed}_{n_classes}_{n_bins}"
        super().__init__(name, 1 + 4 * n_classes * n_bins, ignore_index, validate, **kwargs)
        self.n_classes, self.n_bins, self.closed, self.average = n_classes, n_bins, closed, average

    @accepts_numpy
    def update(self, probs: Tensor, labels: Tensor) -> None:
        """Add rows: ``probs`` (N, C) floating in [0, 1], which need not sum to 1; ``labels`` (N,) integers in
        [0, C), or ``ignore_index``."""
        labels = self._checked_labels(probs, labels)
        kept, validate = not_ignored(labels, self.ignore_index), self.validate
        if validate:
            checks.labels("labels", masked(kept, labels, 0), len(probs), self.n_classes)
        rows: int | Tensor = len(probs)
        if kept is not None:
            every = kept[:, None]
            if validate:
                checks.unit_interval("probs", masked(every, probs, 0))
            probs, rows, validate = masked(every, probs, torch.nan), kept.sum(), False  # NaN enters no cell
        state = self._writable()
        add_classes(state[1:].view(4, -1), probs, labels, self.n_bins, self.closed, validate=validate)
        state[:1] += rows

    def compute(self) -> Tensor:
        self._verify(self.state)
        state = self.state.cpu()
        rows, cells = int(state[0]), Cells.of(state[1:].view(4, -1))
        if lost := rows * self.n_classes - int(cells.total):
            raise ValueError(f"probs must lie in [0, 1], got {lost} that did not")
        if self.average:
            error = absolute_excess(cells) / cells.total
        else:
            error = cells.excess.abs().view(self.n_classes, -1).sum(1) / rows
        return error.to(self.state.device)

    def plot(self, val: Any = None, ax: Any = None) -> tuple[Any, Any]:
        """torchmetrics' plot of ``val``, or of the value so far."""
        return self._plot(val, ax)

    def _carry(self) -> None:
        table = self.state[1:].view(4, -1)
        limbs.carry(table[limbs.WHOLE], table[limbs.LOW])

    def _verify(self, state: Tensor) -> None:
        state = moved(self._state_name, state, torch.device("cpu"))
        cells = Cells.of(state[1:].view(4, -1))
        if not cells.possible or int(cells.total) > int(state[0]) * self.n_classes:
            raise impossible(self._state_name)

    def _checked_labels(self, probs: Any, labels: Any) -> Tensor:
        """``labels``, if all is as it should be but for the values."""
        if checks.matrix("probs", probs).shape[1] != self.n_classes:
            raise ValueError(f"probs must have {self.n_classes} columns, one per class, got {checks.describe(probs)}")
        if probs.device != self.state.device:
            raise ValueError(f"probs must be on {self.state.device} as the counts are, got {probs.device}")
        labels = checks.integers("labels", labels, len(probs))
        checks.same_device("labels", labels, "probs", probs)
        return labels
