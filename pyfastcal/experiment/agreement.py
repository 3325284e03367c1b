"""Whether what a method does points the same way here as in the papers."""

from collections.abc import Iterable
from typing import Any

from ..report.summary import SAME
from .results import Row, Value, average

DIRECTIONS = ("lower", "same", "higher")
NONE = "-"  # nothing to compare
_RUN = ("task", "model", "learner", "split", "seed")  # what a run's rows have in common


def agreement(ours: str | None, theirs: str | None) -> str:
    """The word of the column "agrees", of two directions ("lower", "same", "higher").

    Both are of a change: of a metric with a method, less the metric without it ("Conf", no calibration). Ours is the
    mean change over runs, each against the same run without the method. It is "same" where it is smaller than a
    quarter of a point or than its spread, the standard deviation of the seeds' mean changes: then the runs do not
    tell a sign. The papers' is the sign of the difference of the two numbers that they print, or what an abstract
    claims where none could be read.

    "yes": the same direction. "no": the other one, or a change where the papers have none. "same": the papers have a
    change, ours is too small to tell. "-": one of the two is not known.
    """
    if ours is None or theirs is None:
        return NONE
    if ours == theirs:
        return "yes"
    return "same" if ours == "same" else "no"


def direction(change: Value) -> str | None:
    """Of our change: a mean and its spread over the seeds."""
    if change is None:
        return None
    mean, spread = change
    return "same" if abs(mean) < max(SAME, spread or 0.0) else sign(mean)


def sign(change: float) -> str:
    """Of a published change: by its sign alone, since it is printed as a fact."""
    return DIRECTIONS[1 + (change > 0) - (change < 0)]


def change(before: Iterable[Row], after: Iterable[Row], metric: str) -> Value:
    """The mean change run by run, with its spread over the seeds. Rows of runs that lack one or the other, or its
    number, are left out."""
    of = {_run(row): row[metric] for row in before if row[metric] is not None}
    rows = [row for row in after if row[metric] is not None and _run(row) in of]
    return average(rows, lambda row: row[metric] - of[_run(row)])


def tally(words: Iterable[str]) -> str:
    """Several of the column's words in one: ``yes`` where they are all the same, else ``3 yes, 1 same``."""
    found = [word for word in words if word != NONE]
    counts = {word: found.count(word) for word in ("yes", "same", "no") if word in found}
    if len(counts) < 2:
        return next(iter(counts), NONE)
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def _run(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in _RUN)
