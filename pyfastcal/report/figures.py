"""The report's figures, drawn with matplotlib: one small panel each, as inline SVG that follows the page's
light or dark colours, or on an axes of a picture.

Colours (Okabe and Ito's, safe for colour-blind readers) have one meaning each: vermilion is over-confidence,
blue is under-confidence, green marks new classes, grey base classes.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..installation.extras import require
from ..io.text import counted, printable
from ..metrics.cells import Cells
from .markup import escape
from .summary import signed


@dataclass(frozen=True)
class Theme:
    ink: str
    muted: str
    grid: str
    bar: str
    over: str
    under: str
    new: str
    base: str


PAPER = Theme("#1c2024", "#5b6570", "#d9dee3", "#c3cad2", "#d55e00", "#0072b2", "#00875f", "#8a939c")
# Colours that no figure uses otherwise: each stands for a CSS variable of the page, put in its place by _svg.
PAGE = Theme("#010101", "#010102", "#010103", "#010104", "#010105", "#010106", "#010107", "#010108")
# Names are drawn as they are: no "$" or backslash in them is a formula.
AS_WRITTEN = {"text.parse_math": False, "text.usetex": False, "font.size": 8.5, "axes.linewidth": 0.7}
FEW = 20  # bars of bins with fewer images than this are drawn faint: their height is mostly chance


def matplotlib() -> ModuleType:
    """Matplotlib without a display."""
    require("matplotlib", "report").use("Agg", force=False)
    return require("matplotlib", "report")


def svg(draw: Callable[..., str], *args: Any, size: tuple[float, float] = (3.3, 3.3), **kwargs: Any) -> str:
    """Call ``draw(figure, theme, ...)``, which returns the text alternative, and return one inline SVG
    element."""
    mpl = matplotlib()
    from matplotlib.figure import Figure

    with mpl.rc_context(AS_WRITTEN | {"svg.fonttype": "none", "svg.hashsalt": "pyfastcal"}):
        figure = Figure(figsize=size, layout="constrained")
        alternative = draw(figure, PAGE, *args, **kwargs)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), alternative)


_counter = 0


def _inline(text: str, alternative: str) -> str:
    """Matplotlib's SVG file as an element of the page: no prologue or name spaces, ids of its own, CSS
    colours."""
    global _counter
    _counter += 1
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], f"f{_counter}-"), text)
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None
    opening = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(alternative)}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1).strip()


def _tag(tag: str, prefix: str) -> str:
    tag = re.sub(r' id="([^"]+)"', rf' id="{prefix}\1"', tag)
    tag = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{prefix}\1"', tag)
    tag = tag.replace("url(#", f"url(#{prefix}")
    tag = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", tag)
    tag = re.sub(r"font: (\w+) ([\d.]+)px [^;\"]*", r"font-size: \2px; font-weight: \1", tag)
    for name, colour in vars(PAGE).items():
        tag = tag.replace(colour, f"var(--{name})")
    return tag


def style(axes: Any, theme: Theme) -> None:
    """Two thin spines, muted ticks: the data is the darkest thing on the page."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=7.5, length=2.5, width=0.6)
    axes.xaxis.label.set(color=theme.muted, size=8)
    axes.yaxis.label.set(color=theme.muted, size=8)


def reliability(
    figure: Any,
    theme: Theme,
    cells: Cells,
    numbers: dict[str, float],
    title: str = "",
) -> str:
    """Accuracy per bin of confidence with the gap to the mean confidence, and below it how many images there
    are. ``numbers``: what ``summary.headline`` gives, for the words; ``title``: drawn above together with
    them, where the figure stands alone."""
    top, bottom = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
    counts, right, sums = cells.count, cells.correct, cells.confidence_sum
    n_bins = len(counts)
    width = 1 / n_bins
    for b in torch.nonzero(counts).flatten().tolist():
        accuracy, mean = float(right[b] / counts[b]), float(sums[b] / counts[b])
        gap, alpha = mean - accuracy, 0.35 if counts[b] < FEW else 1.0
        at = {"x": (b + 0.5) * width, "width": 0.86 * width}
        colour = theme.over if gap > 0 else theme.under
        top.bar(height=accuracy, color=theme.bar, alpha=alpha, **at)
        top.bar(height=gap, bottom=accuracy, color=colour, alpha=0.85 * alpha, **at)
        top.plot([(b + 0.07) * width, (b + 0.93) * width], [accuracy] * 2, color=theme.ink, lw=1.1, alpha=alpha)
    top.plot([0, 1], [0, 1], color=theme.muted, lw=0.8, ls=(0, (4, 3)))
    middles = [(b + 0.5) * width for b in range(n_bins)]
    bottom.bar(middles, counts.tolist(), 0.86 * width, color=theme.muted, alpha=0.6)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    top.set(xlim=(0, 1), ylim=(0, 1), yticks=ticks, yticklabels=[f"{t:g}" for t in ticks], ylabel="accuracy")
    most = int(counts.max())
    bottom.set(xlim=(0, 1), xticks=ticks, xticklabels=[f"{t:g}" for t in ticks], xlabel="confidence")
    bottom.set(ylim=(0, 1.08 * most), yticks=[most], yticklabels=[f"{most:,}"], ylabel="images")
    for axes in (top, bottom):
        style(axes, theme)
    figure.align_ylabels([top, bottom])
    if title:
        top.set_title(title + "\n", loc="left", color=theme.ink, size=10, weight="bold", linespacing=1.5)
        top.set_title(f"ECE {numbers['ece']:.1f} %\n", loc="right", color=theme.ink, size=9, linespacing=1.6)
        words = f"accuracy {numbers['accuracy']:.1f}, confidence {numbers['confidence']:.1f} %"
        top.text(0, 1.04, words, va="bottom", size=8, color=theme.muted, transform=top.transAxes)
    return (
        f"Reliability diagram: accuracy {numbers['accuracy']:.1f} %, mean confidence "
        f"{numbers['confidence']:.1f} %, gap {signed(numbers['gap'])} points, ECE {numbers['ece']:.1f} %, "
        f"{counted(int(counts.sum()), 'image')}. {_bins(counts, right, sums)}"
    )


def _bins(counts: Tensor, right: Tensor, sums: Tensor) -> str:
    """The bins in words, for those who cannot see the bars."""
    parts = [
        f"{100 * float(sums[b] / counts[b]):.0f} % against {100 * float(right[b] / counts[b]):.0f} %"
        for b in torch.nonzero(counts).flatten().tolist()
    ]
    return f"Confidence against accuracy by bin: {', '.join(parts)}."


def by_proximity(
    figure: Any, theme: Theme, points: Sequence[tuple[str, Tensor, Tensor]], ylabel: str, reach: float | None
) -> str:
    """Classes as points: proximity to the base classes against ``ylabel``. ``points``: (split, x (C,), y
    (C,)); ``reach``: half the height of an axis about 0 for gaps, None for an axis from 0 to 100."""
    axes = figure.subplots()
    for split, x, y in points:
        marker = {"marker": "o", "s": 18, "facecolors": "none", "edgecolors": theme.base}
        if split != "base":
            marker = {"marker": "D", "s": 22, "color": theme.new}
        axes.scatter(x.tolist(), y.tolist(), linewidths=0.9, alpha=0.85, **marker)
    axes.margins(0.08)
    axes.locator_params(axis="x", nbins=5)
    if reach is None:
        axes.set_ylim(0, 105)
    else:
        axes.axhline(0, color=theme.muted, lw=0.8)
        axes.set_ylim(-reach, reach)
        for y, side, colour in ((0.98, "over", theme.over), (0.02, "under", theme.under)):
            at = {"ha": "right", "va": "top" if side == "over" else "bottom", "transform": axes.transAxes}
            axes.text(0.98, y, f"{side}-confident", size=7.5, color=colour, **at)
    axes.set(xlabel="proximity to the base classes", ylabel=ylabel)
    style(axes, theme)
    return f"Scatter plot of {ylabel} against proximity to the base classes. {correlations(points)}"


def correlations(points: Sequence[tuple[str, Tensor, Tensor]]) -> str:
    """``Rank correlation: new +0.42 (24 points) ...``"""
    parts = []
    for split, x, y in points:
        r = spearman(x, y)
        parts.append(f"{split} {'none' if r is None else signed(r, 2)} ({counted(len(x), 'point')})")
    return f"Rank correlation: {', '.join(parts)}."


def gamma(figure: Any, theme: Theme, values: dict[str, list[float]]) -> str:
    """DAC's weight per class: a dot per run, the mean as a bar from 1. ``values``: class name -> weights."""
    axes = figure.subplots()
    names = sorted(values, key=lambda name: sum(values[name]) / len(values[name]), reverse=True)
    for row, name in enumerate(names):
        mean = sum(values[name]) / len(values[name])
        axes.plot(
            [1, mean],
            [row, row],
            color=theme.muted,
            lw=2.2,
            alpha=0.55,
            solid_capstyle="butt",
        )
        axes.plot(values[name], [row] * len(values[name]), "o", ms=4, mfc=theme.ink, mec="none", alpha=0.75)
    axes.axvline(1, color=theme.muted, lw=0.8)
    axes.set_yticks(range(len(names)), [printable(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.set_xlabel("γ  (below 1: confidence is lowered)")
    style(axes, theme)
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    spread = f"from {min(map(min, values.values())):.2f} to {max(map(max, values.values())):.2f}"
    ends = f"lowest for {names[-1]}, highest for {names[0]}"
    return f"DAC's weight gamma of {counted(len(names), 'class')}, {spread}; {ends}."


def spearman(x: Tensor, y: Tensor) -> float | None:
    """Rank correlation (ties get their mean rank); None below 3 points or where one side does not vary."""
    if len(x) < 3:
        return None
    ranks = torch.stack([_ranks(x), _ranks(y)])
    r = torch.corrcoef(ranks)[0, 1]
    return None if not torch.isfinite(r) else float(r)


def _ranks(x: Tensor) -> Tensor:
    _, inverse, counts = torch.unique(x.double(), return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def accuracy_and_confidence(figure: Any, theme: Theme, rows: Sequence[tuple[str, float, float]]) -> str:
    """A line per (name, accuracy, mean confidence), in per cent: a dot at the accuracy, a bar to the confidence."""
    axes = figure.subplots()
    for at, (_, accuracy, confidence) in enumerate(rows):
        colour = theme.over if confidence > accuracy else theme.under
        axes.plot([accuracy, confidence], [at, at], color=colour, lw=5, alpha=0.8, solid_capstyle="butt")
        axes.plot([accuracy], [at], "o", ms=5, mfc=theme.ink, mec="none")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.1)
    axes.set_xlabel("%")
    style(axes, theme)
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    told = (f"{name} {accuracy:.1f} and {confidence:.1f} %" for name, accuracy, confidence in rows)
    return f"Accuracy and mean confidence: {', '.join(told)}."


def against_shots(figure: Any, theme: Theme, lines: dict[str, list[tuple[int, float]]]) -> str:
    """ECE (per cent) against the number of shots, a line per method."""
    axes = figure.subplots()
    styles = (("o", theme.muted, "-"), ("D", theme.new, "-"), ("s", theme.under, "--"))
    for points, (marker, colour, dash) in zip(lines.values(), styles, strict=False):
        x, y = [p[0] for p in points], [p[1] for p in points]
        axes.plot(x, y, marker=marker, ms=4, color=colour, lw=1.4, ls=dash)
    highest = max((y for points in lines.values() for _, y in points), default=1.0)
    for names, (x, y) in _ends(lines, 0.06 * highest):
        axes.annotate(names, (x, y), (4, 0), textcoords="offset points", color=theme.ink, size=7.5, va="center")
    ticks = sorted({p[0] for points in lines.values() for p in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlim(ticks[0] / 1.2, ticks[-1] * 2.4)  # room for the names
    axes.set(xlabel="images per base class", ylabel="ECE, %")
    style(axes, theme)
    told = (f"{name} {', '.join(f'{y:.1f} at {x}' for x, y in points)}" for name, points in lines.items())
    return f"ECE in per cent by number of shots: {'; '.join(told)}."


def _ends(lines: dict[str, list[tuple[int, float]]], apart: float) -> list[tuple[str, tuple[float, float]]]:
    """Where each line ends, with its name; lines that end closer to each other than ``apart`` with one of all names."""
    found: list[tuple[str, tuple[float, float]]] = []
    for name, points in sorted(lines.items(), key=lambda line: line[1][-1][1]):
        x, y = points[-1]
        if found and y - found[-1][1][1] < apart:
            found[-1] = f"{found[-1][0]}, {name}", found[-1][1]
        else:
            found.append((name, (x, y)))
    return found
