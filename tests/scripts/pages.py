"""What the tests of the pages of docs/ share."""

import re
from collections.abc import Iterable

import pytest

from scripts.figures import page


def check_caption(text: str, name: str, function: page.Draw) -> None:
    """The words exactly, the numbers but for what other processors round differently."""
    found = re.search(page.caption_place(name), text, flags=re.S)
    assert found is not None
    told, measured = " ".join(found[2].split()), page.draw(function)[1]
    assert re.sub(page.NUMBER, "#", told) == re.sub(page.NUMBER, "#", measured)
    numbers = (re.findall(page.NUMBER, text) for text in (told, measured))
    for a, b in zip(*numbers, strict=True):
        assert float(a.replace(",", "")) == pytest.approx(float(b.replace(",", "")), rel=0.05, abs=0.1)


def check_links(text: str, figures: Iterable[str]) -> None:
    """The page shows these figures, which are there, and points to headings that it has."""
    drawn = {path.stem for path in page.FOLDER.glob("*.svg")}
    assert set(re.findall(r"\(figures/(\w+)\.svg\)", text)) == set(figures) <= drawn
    anchors = {re.sub(r"[^a-z -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", text)) <= anchors
