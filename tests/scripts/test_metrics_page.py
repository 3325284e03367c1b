"""docs/metrics.md: what its captions say is what is measured, and its figures are there."""

import re

import pytest

import pyfastcal as fc
from scripts.figures import metrics
from tests.scripts.pages import check_caption, check_links

TEXT = metrics.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", metrics.FIGURES)
def test_captions(name):
    check_caption(TEXT, name, metrics.FIGURES[name])


def test_figures_and_names():
    check_links(TEXT, metrics.FIGURES)
    for name in re.findall(r"`metrics\.(\w+)`", TEXT):
        assert hasattr(fc.metrics, name), name
    for name in fc.metrics.STREAMING:
        assert f"`{name}`" in TEXT or f"{name}." in TEXT, name
        assert getattr(fc, name) is getattr(fc.metrics, name) and getattr(fc, name).__doc__
