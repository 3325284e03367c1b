"""The reliability diagram, on axes of matplotlib."""

from typing import Any

import torch

from ..installation.extras import require
from .reliability import ReliabilityCurve

# Okabe and Ito's colours, safe for colour-blind readers
_BAR, _LINE, _OVER, _UNDER = "#c3cad2", "#1c2024", "#d55e00", "#0072b2"


def draw(curve: ReliabilityCurve, axes: Any = None) -> tuple[Any, Any]:
    """Accuracy per bin with its bootstrap band, the gap to the mean confidence in vermilion where over-confident and
    blue where under-confident, and the share of rows as the width of a faint bar below. Returns figure and axes."""
    plt = require("matplotlib.pyplot", "report")
    axes = plt.subplots(figsize=(4, 4), layout="constrained")[1] if axes is None else axes
    held = torch.nonzero(curve.count).flatten().tolist()
    total = int(curve.count.sum())
    axes.plot([0, 1], [0, 1], color=_LINE, lw=0.8, ls=(0, (4, 3)))
    for b in held:
        left, right = float(curve.edges[b]), float(curve.edges[b + 1])
        middle, width = (left + right) / 2, 0.86 * (right - left)
        accuracy, confidence = float(curve.accuracy[b]), float(curve.confidence[b])
        colour = _OVER if confidence > accuracy else _UNDER
        axes.bar(middle, accuracy, width, color=_BAR)
        axes.bar(middle, confidence - accuracy, width, bottom=accuracy, color=colour, alpha=0.85)
        axes.plot([middle - width / 2, middle + width / 2], [accuracy] * 2, color=_LINE, lw=1.1)
        if not bool(curve.lower[b].isnan()):
            axes.plot([middle] * 2, [float(curve.lower[b]), float(curve.upper[b])], color=_LINE, lw=1.1)
        axes.text(middle, 0.01, f"{100 * int(curve.count[b]) / total:.0f}", ha="center", size=6, color=_LINE)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"{total:,} rows; % of them in each bin below", size=8)
    return axes.figure, axes
