"""What every calibrator has in common: it can be narrowed to some of its classes."""

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..arguments import checks
from ..arguments.arrays import accepts_numpy

C = TypeVar("C", bound="Calibrator")


class Calibrator(nn.Module):
    """Base of all calibrators."""

    @property
    def class_buffers(self) -> tuple[str, ...]:
        """The buffers that hold an entry per class, in the order of the classes; none where nothing belongs to a
        class."""
        return ()

    def _need_fit(self) -> None:
        """Raise a RuntimeError where ``fit`` or ``load_state_dict`` is to come first."""

    @accepts_numpy
    def select(self: C, indices: Tensor | Sequence[int] | Sequence[bool]) -> C:
        """A calibrator of some of the classes, in the order of ``indices``, without a new fit: for logits of those
        columns alone. What was learned of each class stays as it is; a calibrator that knows no classes gives a copy.

        Args:
            indices: (M,) integers in [0, C), each at most once (a class that is there twice would share its
                probability with itself), or booleans (C,), True for the classes that stay; at least one.

        Returns:
            A new calibrator with buffers of its own; this one stays as it is.

        Raises:
            ValueError: ``indices`` are none of these.
            RuntimeError: it holds something per class and is not fitted.
        """
        names = self.class_buffers
        if names:
            self._need_fit()
        n_classes = len(getattr(self, names[0])) if names else None
        chosen = class_indices("indices", indices, n_classes)
        narrowed = copy.deepcopy(self)
        for name in names:
            buffer = getattr(self, name)
            setattr(narrowed, name, buffer[chosen.to(buffer.device)])
        return narrowed


def class_indices(name: str, indices: Tensor | Sequence[int] | Sequence[bool], n_classes: int | None) -> Tensor:
    """(M,) int64, checked; ``n_classes``: how many there are, where that is known."""
    if not isinstance(indices, Tensor):
        try:
            indices = torch.as_tensor(indices if len(indices) else torch.empty(0, dtype=torch.int64))
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ValueError(f"{name} must be integers or booleans, got {checks.describe(indices)}") from None
    indices = checks.tensor(name, indices, 1).cpu()  # to be looked at
    if indices.dtype == torch.bool:
        if n_classes is not None and len(indices) != n_classes:
            raise ValueError(f"{name} must have {n_classes} booleans, one per class, got {len(indices)}")
        indices = indices.nonzero()[:, 0]
    chosen = checks.labels(name, indices, len(indices), n_classes).long()
    if not len(chosen):
        raise ValueError(f"{name} must name at least one class, got none")
    ascending = chosen.sort().values
    twice = ascending[1:][ascending.diff() == 0]
    if len(twice):
        raise ValueError(f"{name} must name every class once, got {int(twice[0])} twice")
    return chosen
