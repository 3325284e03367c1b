"""What a table of an experiment is, and how its cells are written."""

from dataclasses import dataclass
from typing import Any

from ..io.text import counted
from ..report.summary import format_value, label, signed
from .results import Results, Row, Value

SPLITS = ("base", "new")
MAIN = ("conf", "dac", "cac", "cac-fit")  # methods of the tables 2 and 3
NOT_HAVE = "-"


@dataclass(frozen=True)
class Table:
    """``rows``: (heading, cells); ``name`` tells it apart in documents."""

    name: str
    title: str
    note: str
    heads: list[str]
    rows: list[tuple[str, list[str]]]

    def markdown(self) -> str:
        lines = ["| " + " | ".join(["", *self.heads]) + " |", "| --- " * (len(self.heads) + 1) + "|"]
        return "\n".join(lines + ["| " + " | ".join([head, *cells]) + " |" for head, cells in self.rows])


def percent(value: Value) -> str:
    """``12.9 ± 1.3``; ``-`` where there is none."""
    return format_value("ece", value)


def gap(row: Row) -> Any:
    """Confidence minus accuracy; None where there are none."""
    return None if row["accuracy"] is None else row["confidence"] - row["accuracy"]


def points(value: Value) -> str:
    if value is None:
        return NOT_HAVE
    mean, spread = value
    return signed(100 * mean) + ("" if spread is None else f" ± {100 * spread:.1f}")


def plain(value: Value, digits: int = 2) -> str:
    return NOT_HAVE if value is None else f"{value[0]:.{digits}f}"


def method_name(method: str) -> str:
    return {"zs": "ZS"}.get(method, label(method))


def over(results: Results) -> str:
    """What a mean over all runs is over."""
    runs = f"{counted(len(results.tasks), 'task')} and {counted(len(results.seeds), 'seed')}"
    return runs if len(results.seeds) == 1 else f"{runs}; ±: standard deviation of the seeds' means"
