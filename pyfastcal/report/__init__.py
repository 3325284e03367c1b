"""What comes out of an evaluation: text, JSON, one HTML file, one picture, all of the same :class:`Report`."""

import json
import os
from pathlib import Path
from typing import Any

from ..io.paths import atomic_write, write_text
from .environment import environment
from .mistakes import most_confident
from .neighbours import weighed
from .page import render
from .picture import draw
from .summary import Report, Run, findings, summarise
from .terminal import print_report

__all__ = [
    "Report",
    "Run",
    "environment",
    "findings",
    "print_report",
    "render",
    "summarise",
    "write_json",
    "write_picture",
    "write_report",
]


def write_report(path: str | os.PathLike, report: Report) -> Path:
    """Write ``report`` as one self-contained HTML file; nothing partial is left on failure."""
    return write_text(path, render(report))


def write_picture(path: str | os.PathLike, report: Report) -> Path:
    """Write the reliability diagrams before and after as one PNG picture."""
    return atomic_write(path, lambda name: draw(name, report))


def write_json(path: str | os.PathLike, report: Report) -> Path:
    """Write the rows of every run (fractions, null where there is no number), their summary and the findings; of the
    run whose images are at hand the mistakes and neighbours that the page shows, too."""
    runs = []
    for run in report.runs:
        skipped = [{"shard": name, "reason": why} for e in run.evaluations for name, why in e.skipped.items()]
        rows = [row for e in run.evaluations for row in e.rows]
        parts: dict[str, Any] = {"run": run.name, "rows": rows} | ({"skipped": skipped} if skipped else {})
        if run is report.illustrated:
            parts |= {"mistakes": most_confident(run, report.methods)}
            parts |= {"neighbours": [one.facts() for one in weighed(run)]}
        runs.append(parts)
    content = {"title": report.title, "n_bins": report.n_bins, "runs": runs, "summary": summarise(report)}
    content |= {"findings": findings(report), "environment": report.environment}
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
