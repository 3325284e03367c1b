"""The story in one picture: reliability diagrams of the new classes without and with calibration."""

from ..io.text import printable
from . import figures
from .summary import Report, headline, label, split_name

METHODS = ("conf", "dac", "cac", "cac-fit")


def draw(path: str, report: Report) -> None:
    """Draw the last split ("new" in the demo), a panel per method and the runs pooled, to a PNG file at
    ``path``."""
    mpl = figures.matplotlib()
    from matplotlib.figure import Figure

    split = report.splits[-1]
    pooled = {method: report.pooled(split, method) for method in METHODS}
    panels = {method: cells for method, cells in pooled.items() if cells is not None}
    theme = figures.PAPER
    with mpl.rc_context(figures.AS_WRITTEN):
        figure = Figure(figsize=(2.6 * len(panels), 3.2), dpi=160, facecolor="white", layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=[12, 1])
        parts = above.subfigures(1, len(panels), squeeze=False)[0]
        for part, (method, cells) in zip(parts, panels.items(), strict=True):
            numbers = headline(report, split, method)
            figures.reliability(part, theme, cells, numbers, label(method))
        runs = f", {len(report.runs)} runs" if len(report.runs) > 1 else ""
        keys = [(0.02, theme.muted, f"{printable(report.title)}, {printable(split_name(split)).lower()}{runs}")]
        keys += [(0.55, theme.over, "■ over-confident"), (0.77, theme.under, "■ under-confident")]
        for x, colour, text in keys:
            below.text(x, 0.5, text, color=colour, va="center", size=8.5)
        figure.savefig(path, format="png")
