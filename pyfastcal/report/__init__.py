"""The HTML report and the picture: ``write_report(path, report)``, ``write_picture(path, report)``."""

import os
from pathlib import Path

from ..io import atomic_write, write_text
from .environment import environment
from .page import render
from .picture import draw
from .summary import Report, Run, findings, format_value, label, mean_spread, summarise, verdict

__all__ = [
    "Report",
    "Run",
    "environment",
    "findings",
    "format_value",
    "label",
    "mean_spread",
    "render",
    "summarise",
    "verdict",
    "write_picture",
    "write_report",
]


def write_report(path: str | os.PathLike, report: Report) -> Path:
    """Write ``report`` as one self-contained HTML file; nothing partial is left on failure."""
    return write_text(path, render(report))


def write_picture(path: str | os.PathLike, report: Report) -> Path:
    """Write the reliability diagrams before and after as one PNG picture."""
    return atomic_write(path, lambda name: draw(name, report))
