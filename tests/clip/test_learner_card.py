"""docs/learners.md tells what docs/learners.json holds, and some of that is measured again.

Tolerance: tuning amplifies what other processors round differently over hundreds of steps: 2 points."""

import json

import pytest

from pyfastcal.clip import tasks
from pyfastcal.clip.prompts import LEARNERS
from scripts.figures import learners as card
from scripts.figures.page import with_tables
from scripts.figures.zero_shot import zero_shot

RUNS = json.loads(card.FIGURES.read_text())


def test_the_document_tells_what_was_measured():
    assert RUNS.keys() == {f"{t}/{s}/{n}" for t in card.TASKS for s in card.SEEDS for n in ("zero-shot", *LEARNERS)}
    text = card.CARD.read_text()
    assert with_tables(text, card.tables(RUNS)) == text


@pytest.mark.parametrize("name", ["CoCoOp", "KgCoOp", "MaPLe", "ProGrad"])  # the quickest
def test_figures_of_a_learner(clip, name):
    told = RUNS[f"digits/0/{name}"]
    found = card.tuned(clip, tasks.load("digits", seed=0), name, seed=0)
    assert found.keys() == told.keys() and found["losses"] == pytest.approx(told["losses"], rel=0.1)
    for part in ("base", "new"):
        assert found[part].keys() == told[part].keys()
        for key, value in told[part].items():
            assert found[part][key] == pytest.approx(value, abs=2.0), (part, key)


def test_zero_shot_figures(clip):
    found = zero_shot(clip, tasks.load("digits", seed=1))
    for part, told in RUNS["digits/1/zero-shot"].items():
        assert found[part] == pytest.approx(told, abs=1.0)
