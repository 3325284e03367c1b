"""The sections of the report that are tables."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from ..io.text import counted
from .figures import FEW
from .markup import coloured, escape, section, table
from .summary import TABLE_METRICS, Report, changes, format_value, label, signed, split_name, summarise, verdict

HEADINGS = {
    "accuracy": "Accuracy",
    "confidence": "Confidence",
    "ece": "ECE",
    "ace": "ACE",
    "mce": "MCE",
    "mce_weighted": "MCE weighted",
    "piece": "PIECE",
    "nll": "NLL",
    "brier": "Brier",
}
DARKEST = 0.25  # the gap from which on the tint of a confidence level does not get darker


def results(report: Report) -> str:
    """All metrics, a table per split."""
    rows, html = summarise(report), ""
    for split in report.splits:
        evaluations = report.evaluations(split)
        sizes = f"{_span((e.rows[0]['images'] for e in evaluations), 'image')}, "
        sizes += f"{_span((e.rows[0]['classes'] for e in evaluations), 'class')} a run"
        caption = f"{escape(split_name(split))} <small>({sizes})</small>"
        body = [(label(row["method"]), _cells(row)) for row in rows if row["split"] == split]
        html += table(caption, ["Method", *(HEADINGS[m] for m in TABLE_METRICS)], body)
    notes = [row for row in rows if row["note"] and row["runs"]]
    if notes:
        items = (f"{label(r['method'])}, {split_name(r['split'])}: {r['note']}" for r in notes)
        html += f'<ul class="note">{"".join(f"<li>{escape(item)}</li>" for item in items)}</ul>'
    for split in report.splits:
        lines = report.skipped(split)
        html += f'<ul class="note">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""
    several = "Mean and standard deviation over the runs, in" if len(report.runs) > 1 else "In"
    note = (
        f"{several} percent; NLL and Brier score as they are. Lower is better, but for accuracy, and for "
        "confidence, which is best where it equals accuracy."
    )
    return section("Results", note, html)


def _cells(row: dict[str, Any]) -> str:
    if not row["runs"]:
        return f'<td class="why" colspan="{len(TABLE_METRICS)}">- {escape(row["note"])}</td>'
    cells = ""
    for metric in TABLE_METRICS:
        mean, _, spread = format_value(metric, row[metric]).partition(" ± ")
        kind = ' class="key"' if metric == "ece" else ""
        cells += f"<td{kind}>{mean}{f' <small>± {spread}</small>' if spread else ''}</td>"
    return cells


def run_by_run(report: Report) -> str:
    """Was there over-confidence in a run, and did each method help in it."""
    html = ""
    for split in report.splits if len(report.runs) > 1 else ():
        methods = [m for m in report.methods if m not in ("conf", "zero-shot") and changes(report, split, m)]
        if split == "base" or not methods:
            continue
        after = {m: {run: (a, b) for run, a, b in changes(report, split, m)} for m in methods}
        rows = []
        for run, plain, _ in changes(report, split, "conf"):
            gap = 100 * plain["gap"]
            cells = f"<td>{coloured(gap, signed(gap))}</td><td>{100 * plain['ece']:.1f}</td>"
            rows.append((run, cells + "".join(_outcome(after[m].get(run)) for m in methods)))
        heads = ["Run", "Confidence − accuracy", *(f"ECE {label(m)}" for m in ("conf", *methods))]
        html += table(escape(split_name(split)), heads, rows)
    return section(
        "Run by run",
        "Whether each method helped, by at least a quarter of a point of ECE against Conf.",
        html,
    )


def _outcome(pair: tuple[dict[str, Any], dict[str, Any]] | None) -> str:
    if pair is None:
        return "<td>-</td>"
    return f"<td>{100 * pair[1]['ece']:.1f} <small>{verdict(*pair)}</small></td>"


def confidence_levels(report: Report) -> str:
    """The papers' table 3: the signed gap at each level of confidence."""
    edges = [f"{100 * b / report.n_bins:.4g}" for b in range(report.n_bins + 1)]
    heads = ["Confidence, %", *map("–".join, pairwise(edges))]
    html = ""
    for split in report.splits:
        rows = []
        for method, cells in report.diagrams(split):
            rows.append((label(method), "".join(map(_level, cells.gap.tolist(), cells.count.tolist()))))
        html += table(escape(split_name(split)), heads, rows, "level") if rows else ""
    note = (
        "Mean confidence minus accuracy in points, with the number of images below. "
        f"{coloured(1, 'Positive: over-confident')}, {coloured(-1, 'negative: under-confident')}. "
        f"Pale and slanted: fewer than {FEW} images."
    )
    return section("Signed gap per confidence level", note, html)


def _level(gap: float, count: int) -> str:
    if not count:
        return "<td>·</td>"
    few = count < FEW
    text = signed(100 * gap, 0)
    text = f"<i>{text}</i>" if few else text
    share = min(abs(gap) / DARKEST, 1) * (20 if few else 55)
    tint = f"color-mix(in srgb, var(--{'over' if gap > 0 else 'under'}) {share:.0f}%, transparent)"
    return f'<td style="background:{tint}">{text}<br><small>{count:,}</small></td>'


def _span(sizes: Iterable[int], noun: str) -> str:
    low, high = min(values := list(sizes)), max(values)
    return counted(low, noun) if low == high else f"{low:,} to {counted(high, noun)}"
