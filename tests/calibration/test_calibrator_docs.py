"""docs/calibrators.md: what its captions say is what is measured, its table is of the runs, its names are there."""

import json
import re

import calibrator_figures
import doc_figures
import pytest

import pyfastcal as fc
from pyfastcal.evaluate import METHODS
from tests.doc_captions import check_caption

TEXT = calibrator_figures.PAGE.read_text(encoding="utf-8")
RESULTS = json.loads(calibrator_figures.RESULTS.read_text())


@pytest.mark.parametrize("name", calibrator_figures.FIGURES)
def test_captions(name):
    check_caption(TEXT, name, calibrator_figures.FIGURES[name])


def test_the_table_is_of_the_runs():
    assert calibrator_figures.with_table(TEXT, RESULTS) == TEXT
    for splits in RESULTS.values():
        assert set(splits["base"]) == set(splits["new"]) == set(METHODS)
        for split, methods in splits.items():
            for method, runs in methods.items():
                assert len(runs) == len(calibrator_figures.SEEDS)
                for run in runs:
                    cannot = split == "new" and method in ("hb", "ir")
                    assert (run["ece"] is None) == cannot == ("none for other classes" in run["note"])


def test_figures_and_names():
    drawn = {path.stem for path in doc_figures.FOLDER.glob("*.svg")}
    assert set(re.findall(r"\(figures/(\w+)\.svg\)", TEXT)) == set(calibrator_figures.FIGURES) <= drawn
    for name in re.findall(r"`(?:fc\.)?([A-Z]\w+(?:Scaling|Calibration|Binning|Regression|Shift))", TEXT):
        assert hasattr(fc, name), name
    anchors = {re.sub(r"[^a-z -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", TEXT, re.M)}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", TEXT)) <= anchors
