"""docs/metrics.md: what its captions say is what is measured, and its figures are there."""

import re
import sys
from pathlib import Path

import pytest

import pyfastcal as fc

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import metric_figures

TEXT = metric_figures.PAGE.read_text(encoding="utf-8")
NUMBER = r"\d[\d,]*\.?\d*(?:e-\d+)?"


@pytest.mark.parametrize("name", metric_figures.FIGURES)
def test_captions(name):
    """The words exactly, the numbers but for what other processors round differently."""
    found = re.search(rf"\(figures/{name}\.svg\)\n\n\*(.*?)\*\n", TEXT, flags=re.S)
    assert found is not None
    told, measured = " ".join(found[1].split()), metric_figures.draw(name)[1]
    assert re.sub(NUMBER, "#", told) == re.sub(NUMBER, "#", measured)
    for a, b in zip(re.findall(NUMBER, told), re.findall(NUMBER, measured), strict=True):
        assert float(a.replace(",", "")) == pytest.approx(float(b.replace(",", "")), rel=0.05, abs=0.1)


def test_figures_and_names():
    drawn = {path.stem for path in metric_figures.FOLDER.glob("*.svg")}
    assert set(re.findall(r"\(figures/(\w+)\.svg\)", TEXT)) == set(metric_figures.FIGURES) <= drawn
    for name in re.findall(r"`metrics\.(\w+)`", TEXT):
        assert hasattr(fc.metrics, name), name
    for name in fc.metrics.STREAMING:
        assert f"`{name}`" in TEXT or f"{name}." in TEXT, name
        assert getattr(fc, name) is getattr(fc.metrics, name) and getattr(fc, name).__doc__
    anchors = {re.sub(r"[^a-z -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", TEXT, re.M)}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", TEXT)) <= anchors
