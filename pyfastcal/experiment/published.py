"""The papers' published numbers, as far as they could be read: ``published.json``, which says where each is from."""

import functools
import json
from pathlib import Path
from typing import Any

from ..clip.prompts import LEARNERS
from ..evaluate.methods import METHODS
from .agreement import DIRECTIONS, sign

FILE = Path(__file__).with_name("published.json")
METRICS = ("ece", "ace", "mce_weighted", "piece")
KEYS = {  # what tells rows apart: the values it may have, None for any
    "split": ("base", "new"),
    "learner": ("mean", "zero-shot", *LEARNERS),
    "method": ("zs", *METHODS),
    "model": None,
    "at": None,
}


class Published:
    """Numbers by table and row. They are entered in per cent and come out as fractions, as ours are."""

    def __init__(self, found: dict[str, Any]) -> None:
        """``found``: the content of ``published.json``. ValueError, naming the table, for rows that do not fit their
        columns, names that are not known, numbers that are none or outside [0, 100], and numbers without a source."""
        self.sources: dict[str, str | None] = {}
        self._numbers: dict[tuple[Any, ...], float] = {}
        for table, content in found["tables"].items():
            self.sources[table] = content["source"]
            for row in content["rows"]:
                self._enter(table, content["columns"], row)
        claims = found["directions"]
        self._claimed_in = tuple(claims["tables"])
        self.claims: list[str] = []  # in words, with their sources
        self._claims: dict[tuple[str, str], str] = {}
        for row in claims["rows"]:
            claim = dict(zip(claims["columns"], row, strict=True))
            if claim["direction"] not in DIRECTIONS or not claim["source"]:
                raise ValueError(f"directions must be one of {', '.join(DIRECTIONS)}, with a source, got {row}")
            self._claims[claim["method"], claim["split"]] = claim["direction"]
            told = f"{claim['method']}, {claim['split']} classes: {claim['direction']} ({claim['source']})"
            self.claims.append(told)

    def _enter(self, table: str, columns: list[str], row: list[Any]) -> None:
        if len(row) != len(columns) or not self.sources[table]:
            raise ValueError(f"{table}: must have a source and rows of {', '.join(columns)}, got {row}")
        cells = dict(zip(columns, row, strict=True))
        keys = {name: cells.pop(name) for name in KEYS if name in cells}
        for name, value in keys.items():
            known = KEYS[name]
            if known is not None and value not in known:
                raise ValueError(f"{table}: {name} must be one of {', '.join(known)}, got {value!r}")
        for metric, number in cells.items():
            if metric not in METRICS:
                raise ValueError(f"{table}: columns must be of {', '.join((*KEYS, *METRICS))}, got {metric!r}")
            if number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 100:
                raise ValueError(f"{table}: {metric} must be a number in [0, 100], got {number!r}")
            self._numbers[_place(table, metric, keys)] = number / 100

    def number(self, table: str, metric: str, **keys: Any) -> float | None:
        """A fraction; None where there is none. ``keys``: those of ``KEYS`` that the table has."""
        return self._numbers.get(_place(table, metric, keys))

    def direction(self, table: str, metric: str, against: dict[str, Any], **keys: Any) -> str | None:
        """Of the change from the row that ``against`` changes ``keys`` to: of the two numbers where both are there,
        else as an abstract claims it, else None."""
        before, after = self.number(table, metric, **keys | against), self.number(table, metric, **keys)
        if before is not None and after is not None:
            return sign(after - before)
        return self._claims.get((keys["method"], keys["split"])) if table in self._claimed_in else None


def _place(table: str, metric: str, keys: dict[str, Any]) -> tuple[Any, ...]:
    at = keys.get("at")
    return table, metric, *(keys.get(name) for name in KEYS if name != "at"), None if at is None else float(at)


@functools.cache
def published() -> Published:
    return Published(json.loads(FILE.read_text(encoding="utf-8")))
