"""The published numbers, and the word on whether a direction agrees, on constructed results."""

import json
from typing import Any

import pytest

from pyfastcal.experiment import beside, tables
from pyfastcal.experiment.agreement import agreement, change, direction, sign, tally
from pyfastcal.experiment.cell import Settings
from pyfastcal.experiment.published import FILE, Published, published
from pyfastcal.experiment.results import Results

METRICS = ("accuracy", "confidence", "ece", "ace", "mce", "mce_weighted", "piece")
NOTHING: dict[str, Any] = {"tables": {}, "directions": {"tables": [], "columns": [], "rows": []}}


def row(method: str, seed: int, ece: float | None, task: str = "digits") -> dict[str, Any]:
    keys = {"task": task, "model": "digits", "learner": "CoOp", "method": method, "split": "new", "seed": seed}
    return keys | {"shots": 16, "note": ""} | dict.fromkeys(METRICS, ece)


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [
        ("lower", "lower", "yes"),
        ("same", "same", "yes"),
        ("lower", "higher", "no"),
        ("lower", "same", "no"),
        ("same", "lower", "same"),
        ("lower", None, "-"),
        (None, "lower", "-"),
    ],
)
def test_words(ours: str | None, theirs: str | None, word: str) -> None:
    assert agreement(ours, theirs) == word


def test_our_direction_is_told_by_a_quarter_of_a_point_and_the_spread() -> None:
    assert [direction((x, None)) for x in (-0.0026, -0.0024, 0.0, 0.0026)] == ["lower", "same", "same", "higher"]
    assert direction((-0.02, 0.03)) == "same" and direction((-0.02, 0.01)) == "lower"
    assert direction(None) is None
    assert [sign(x) for x in (-0.0001, 0.0, 0.0001)] == ["lower", "same", "higher"]
    assert tally(["yes", "-", "yes"]) == "yes" and tally(["-"]) == "-" and tally(["no", "yes", "no"]) == "1 yes, 2 no"


def test_a_change_is_taken_run_by_run() -> None:
    before = [row("conf", 0, 0.10), row("conf", 0, 0.30, "shapes"), row("conf", 1, 0.20), row("conf", 2, None)]
    after = [row("dac", 1, 0.16), row("dac", 0, 0.08), row("dac", 2, 0.5), row("dac", 0, None, "shapes")]
    mean, spread = change(before, after, "ece")
    assert mean == pytest.approx(-0.03) and spread == pytest.approx(0.02 / 2**0.5)  # -0.02 and -0.04
    assert change(before, [], "ece") is None


def test_the_file() -> None:
    found = published()
    assert found.number("tuned", "ece", learner="CoOp", method="conf", split="new") == pytest.approx(0.2136)
    assert found.number("table 2", "ece", learner="mean", method="conf", split="new") is None
    zero = {"learner": "zero-shot", "method": "zs"}
    ends = [
        found.direction("tuned", "ece", zero, learner="CoOp", method="conf", split=split) for split in ("base", "new")
    ]
    assert ends == ["lower", "higher"]
    content = json.loads(FILE.read_text())
    for table in content["tables"].values():  # no number without a source, no source without numbers
        assert bool(table["rows"]) == bool(table["source"])


def test_a_constant_is_compared_with_no_calibration() -> None:
    cells = [["conf", "new", None, 5.0], ["cac", "new", 15, 4.0], ["cac", "new", 25, 9.0], ["cac", "base", 15, 4.0]]
    table = {"source": "a page", "columns": ["method", "split", "at", "ece"], "rows": cells}
    found, against = Published(NOTHING | {"tables": {"k": table}}), {"method": "conf", "at": None}
    ends = [found.direction("k", "ece", against, method="cac", split="new", at=k) for k in (15.0, 25.0, 20.0)]
    assert ends == ["lower", "higher", None]
    assert found.direction("k", "ece", against, method="cac", split="base", at=15.0) is None  # no Conf there


@pytest.mark.parametrize(
    ("source", "cells", "message"),
    [
        ("a page", ["new", "dacc", 3.0], "method must be one of zs, .*, got 'dacc'"),
        ("a page", ["old", "dac", 3.0], "split must be one of base, new, got 'old'"),
        ("a page", ["new", "dac", 300], r"ece must be a number in \[0, 100\], got 300"),
        ("a page", ["new", "dac"], "must have a source and rows of split, method, ece"),
        (None, ["new", "dac", 3.0], "must have a source"),
    ],
)
def test_rows_that_do_not_fit_are_named(source: str | None, cells: list[Any], message: str) -> None:
    table = {"source": source, "columns": ["split", "method", "ece"], "rows": [cells]}
    with pytest.raises(ValueError, match=f"^table 9: {message}"):
        Published(NOTHING | {"tables": {"table 9": table}})


def test_a_table_with_numbers_and_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours: DAC 12 -> 9, CAC 12 -> 12.1; published: DAC 5 -> 6, CAC "lower"."""
    content = json.loads(FILE.read_text())
    numbers = [["CoOp", "conf", "new", 5.0, None, None, None], ["CoOp", "dac", "new", 6.0, None, None, None]]
    content["tables"]["table 2"] |= {"source": "a page", "rows": numbers}
    monkeypatch.setattr(beside, "published", lambda: Published(content))
    rows = [row("conf", 0, 0.12), row("dac", 0, 0.09), row("cac", 0, 0.121)]
    parts = {"levels": {"base": {}, "new": {}}, "classes": {"base": {}, "new": {}}, "ablations": []}
    parts |= {"contrast": {split: {"zs": 0.1, "tuned": 0.1} for split in ("base", "new")}}
    cell = {"task": "digits", "model": "digits", "learner": "CoOp", "seed": 0, "shots": 16, "rows": rows} | parts
    results = Results([cell], Settings(("conf", "dac", "cac")), [("digits", "digits")])
    found = {table.name: table for table in tables.all_tables(results)}
    table = found["table 2 new"]
    assert table.heads[:3] == ["ECE", "ECE, published", "ECE, agrees"] and "those of a page" in table.note
    cells = {head: line[:3] for head, line in table.rows}
    assert cells["CoOp, Conf"] == ["12.0", "5.0", ""]
    assert cells["CoOp, DAC"] == ["9.0", "6.0", "no"]
    assert cells["CoOp, CAC"] == ["12.1", "lower", "same"]
    assert cells["mean, DAC"] == ["9.0", "lower", "yes"]  # no number of the mean: the claim
    one = dict(found["table 1 published"].rows)
    assert one["CoOp, DAC"][3:] == ["9.0", "lower", "yes"] and "CoOp, Conf" not in one
