"""A page of docs/. Its figures are drawn by functions of an axes, each of which returns its caption with the numbers
that it measured while drawing; its tables stand between comments that name them. Tests measure again and make sure
that the page tells what is measured."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyfastcal.report import figures
from scripts import ROOT

DOCS = ROOT / "docs"
FOLDER = DOCS / "figures"
NUMBER = r"\d[\d,]*\.?\d*(?:e-\d+)?"
INK, MUTED, BAR, OVER, UNDER, GREEN = (
    getattr(figures.PAPER, name) for name in ("ink", "muted", "bar", "over", "under", "new")
)
Draw = Callable[[Any], str]


def percent(value: Any, digits: int = 1) -> str:
    return f"{100 * float(value):.{digits}f} %"


def by_name(*functions: Draw) -> dict[str, Draw]:
    return {function.__name__: function for function in functions}


def draw(function: Draw) -> tuple[Any, str]:
    """The figure and its caption."""
    mpl = figures.matplotlib()
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 8, "axes.linewidth": 0.7}):
        figure = Figure(figsize=(3.6, 3.0), layout="constrained", facecolor="white")
        axes = figure.subplots()
        caption = function(axes)
        figures.style(axes, figures.PAPER)
    return figure, caption


def caption_place(name: str) -> str:
    """A pattern: the image of a page, and below it the caption between asterisks."""
    return rf"(!\[[^\]]*\]\(figures/{name}\.svg\)\n\n)\*(.*?)\*\n"


def with_caption(page: str, name: str, caption: str) -> str:
    """The page with the figure's caption in its place, after the image."""
    place = caption_place(name)
    assert re.search(place, page, flags=re.S), f"the page has no figure {name}"
    text = textwrap.fill(f"*{caption}*", 140, break_on_hyphens=False)
    return re.sub(place, lambda found: f"{found[1]}{text}\n", page, flags=re.S)


def write(path: Path, drawn: dict[str, Draw]) -> None:
    """Draw the figures and put their captions on the page."""
    mpl, page = figures.matplotlib(), path.read_text(encoding="utf-8")
    FOLDER.mkdir(exist_ok=True)
    for name, function in drawn.items():
        figure, caption = draw(function)
        with mpl.rc_context({"svg.hashsalt": "pyfastcal", "svg.fonttype": "none"}):
            figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None})
        page = with_caption(page, name, caption)
        print(f"{name}: {caption}")
    path.write_text(page, encoding="utf-8")


def with_tables(page: str, tables: dict[str, str]) -> str:
    """The page's text with the tables between the comments that name them."""
    for marker, table in tables.items():
        begin, end = f"<!-- begin: {marker} -->", f"<!-- end: {marker} -->"
        page, n = re.subn(rf"{begin}\n.*?{end}", f"{begin}\n{table}\n{end}", page, flags=re.DOTALL)
        if n != 1:
            raise ValueError(f"page must have one table {marker!r}, got {n}")
    return page
