"""Open-vocabulary tasks in small: tune on the base classes, then be asked about new ones.

A task is a module with ``make(seed, shots, ...) -> Task``, entered in ``TASKS``.
"""

import functools
from collections.abc import Callable
from typing import Any

from . import digits, drawings, shapes
from .images import Split
from .task import Task

__all__ = ["DRAWINGS", "TASKS", "Split", "Task", "load"]

DRAWINGS = drawings.NAMES
TASKS: dict[str, Callable[..., Task]] = {"digits": digits.make, "shapes": shapes.make}
TASKS |= {name: functools.partial(drawings.make, name) for name in DRAWINGS}


def load(name: str, seed: int = 0, shots: int = 16, **options: Any) -> Task:
    """Make a task: ``"digits"`` (real images), ``"shapes"`` (rendered ones) or one of ``DRAWINGS``, drawn by people.

    ``seed`` chooses the images of every split, no image in two of them, and, of digits and shapes, which classes are
    base and which new; ``shots``: training images per base class, and as many held out for validation. ``options``:
    see :func:`pyfastcal.clip.tasks.digits.make`, :func:`pyfastcal.clip.tasks.shapes.make` and
    :func:`pyfastcal.clip.tasks.drawings.make`. ValueError for unknown names and options out of range."""
    if name not in TASKS:
        raise ValueError(f"name must be one of {', '.join(map(repr, TASKS))}, got {name!r}")
    return TASKS[name](seed=seed, shots=shots, **options)
