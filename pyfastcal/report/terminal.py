"""The report's table and findings as text, for stdout."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .summary import TABLE_METRICS, Report, findings, format_value, label, summarise

HEADINGS = {"accuracy": "Accuracy", "confidence": "Confidence", "nll": "NLL", "brier": "Brier"}
SHOWN = tuple(
    m for m in TABLE_METRICS if m not in ("mce_weighted", "brier")
)  # all are in the report and the JSON


def print_report(report: Report) -> None:
    """One table per split, then the findings. Off a terminal lines are not wrapped to 80 columns."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    rows = summarise(report)
    for split in report.splits:
        title = f"{split} ({_runs(report)}; %, but for NLL)"
        table = Table(
            title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
        )
        table.add_column("Method", no_wrap=True)
        for metric in SHOWN:
            table.add_column(HEADINGS.get(metric, metric.upper()), justify="right", no_wrap=True)
        for row in (r for r in rows if r["split"] == split):
            table.add_row(label(row["method"]), *(format_value(m, row[m]) for m in SHOWN))
        console.print(table)
    for row in rows:
        if row["note"]:
            console.print(f"[dim]{label(row['method'])}, {escape(row['split'])}: {escape(row['note'])}[/dim]")
    for sentence in findings(report):
        console.print(f"• {escape(sentence)}", highlight=False)


def _runs(report: Report) -> str:
    n = len(report.runs)
    return f"mean ± standard deviation of {n} runs" if n > 1 else "one run"
