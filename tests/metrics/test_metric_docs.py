"""docs/metrics.md: what its captions say is what is measured, and its figures are there."""

import re

import doc_figures
import metric_figures
import pytest

import pyfastcal as fc
from tests.doc_captions import check_caption

TEXT = metric_figures.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", metric_figures.FIGURES)
def test_captions(name):
    check_caption(TEXT, name, metric_figures.FIGURES[name])


def test_figures_and_names():
    drawn = {path.stem for path in doc_figures.FOLDER.glob("*.svg")}
    assert set(re.findall(r"\(figures/(\w+)\.svg\)", TEXT)) == set(metric_figures.FIGURES) <= drawn
    for name in re.findall(r"`metrics\.(\w+)`", TEXT):
        assert hasattr(fc.metrics, name), name
    for name in fc.metrics.STREAMING:
        assert f"`{name}`" in TEXT or f"{name}." in TEXT, name
        assert getattr(fc, name) is getattr(fc.metrics, name) and getattr(fc, name).__doc__
    anchors = {re.sub(r"[^a-z -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", TEXT, re.M)}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", TEXT)) <= anchors
