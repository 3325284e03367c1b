"""docs/experiments.md tells what docs/experiments.json holds, and one run of that is made again.

Tolerance: tuning amplifies what other processors round differently over hundreds of steps: 2 points."""

import json
from pathlib import Path

import pytest

from pyfastcal import experiment
from pyfastcal.clip.prompts import LEARNERS
from scripts.figures import experiments as card
from scripts.figures.page import with_tables

FOUND = json.loads(card.FIGURES.read_text())


def test_the_document_tells_what_was_measured() -> None:
    tasks = {task.name for task in experiment.bundled(["drawings"])}
    assert FOUND["runs"].keys() == {f"{task}/{learner}/0" for task in tasks for learner in LEARNERS}
    text = card.CARD.read_text()
    assert with_tables(text, card.tables_of(FOUND, text)) == text


def test_a_place_without_a_table_is_named() -> None:
    with pytest.raises(ValueError, match="results must have the tables nowhere of experiments.md"):
        card.tables_of(FOUND, "<!-- begin: nowhere -->\n<!-- end: nowhere -->")


def test_a_run(tmp_path: Path) -> None:
    results = experiment.run(tmp_path, experiment.bundled(["clothing"]), ["KgCoOp"], [0])
    ((name, found),) = card.runs_of(results.rows).items()
    for split, told in FOUND["runs"][name].items():
        assert found[split].keys() == told.keys()
        for key, value in told.items():
            assert found[split][key] == (None if value is None else pytest.approx(value, abs=2.0)), (split, key)
