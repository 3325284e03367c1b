"""What the tests of the pages of docs/ share."""

import re

import doc_figures
import pytest


def check_caption(page: str, name: str, function: doc_figures.Draw) -> None:
    """The words exactly, the numbers but for what other processors round differently."""
    found = re.search(doc_figures.caption_place(name), page, flags=re.S)
    assert found is not None
    told, measured = " ".join(found[2].split()), doc_figures.draw(function)[1]
    assert re.sub(doc_figures.NUMBER, "#", told) == re.sub(doc_figures.NUMBER, "#", measured)
    numbers = (re.findall(doc_figures.NUMBER, text) for text in (told, measured))
    for a, b in zip(*numbers, strict=True):
        assert float(a.replace(",", "")) == pytest.approx(float(b.replace(",", "")), rel=0.05, abs=0.1)
