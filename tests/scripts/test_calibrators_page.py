"""docs/calibrators.md: what its captions say is what is measured, its table is of the runs, its names are there."""

import json
import re

import pytest

import pyfastcal as fc
from pyfastcal.evaluate import METHODS
from scripts.figures import calibrators
from scripts.figures.calibrators.table import SEEDS, table
from scripts.figures.page import with_tables
from tests.scripts.pages import check_caption, check_links

TEXT = calibrators.PAGE.read_text(encoding="utf-8")
RESULTS = json.loads(calibrators.RESULTS.read_text())


@pytest.mark.parametrize("name", calibrators.FIGURES)
def test_captions(name):
    check_caption(TEXT, name, calibrators.FIGURES[name])


def test_the_table_is_of_the_runs():
    assert with_tables(TEXT, {"methods": table(RESULTS)}) == TEXT
    for splits in RESULTS.values():
        assert set(splits["base"]) == set(splits["new"]) == set(METHODS)
        for split, methods in splits.items():
            for method, runs in methods.items():
                assert len(runs) == len(SEEDS)
                for run in runs:
                    cannot = split == "new" and method in ("hb", "ir")
                    assert (run["ece"] is None) == cannot == ("none for other classes" in run["note"])


def test_figures_and_names():
    check_links(TEXT, calibrators.FIGURES)
    for name in re.findall(r"`(?:fc\.)?([A-Z]\w+(?:Scaling|Calibration|Binning|Regression|Shift))", TEXT):
        assert hasattr(fc, name), name
