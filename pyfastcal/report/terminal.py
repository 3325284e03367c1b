"""The report's table and findings as text, for stdout."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .summary import Report, findings, format_value, label, split_name, summarise

HEADINGS = {"accuracy": "Accuracy", "confidence": "Confidence", "nll": "NLL", "brier": "Brier"}
SHOWN = ("accuracy", "confidence", "ece", "ace", "mce", "piece", "nll")  # the report and the JSON have all
WIDE = 92  # columns that the table needs; narrower terminals go without the last metric


def print_report(report: Report) -> None:
    """One table per split, then the findings. Off a terminal lines are not wrapped to 80 columns."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    rows = summarise(report)
    shown = SHOWN if console.width >= WIDE else SHOWN[:-1]
    for split in report.splits:
        title = f"{split_name(split)}, % ({_runs(report)})"
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        table.padding, table.pad_edge = (0, 0, 0, 1), False
        table.add_column("Method", no_wrap=True)
        for metric in shown:
            table.add_column(HEADINGS.get(metric, metric.upper()), justify="right", no_wrap=True)
        for row in (r for r in rows if r["split"] == split):
            table.add_row(label(row["method"]), *(format_value(m, row[m]).replace(" ", "") for m in shown))
        console.print(table)
    for row in (r for r in rows if r["note"]):
        where = f"{label(row['method'])}, {split_name(row['split'])}"
        console.print(f"{where}: {row['note']}", style="dim", markup=False, highlight=False)
    for split in report.splits:
        for line in report.skipped(split):
            console.print(line, style="yellow", markup=False, highlight=False)
    for sentence in findings(report):
        console.print(f"• {escape(sentence)}", highlight=False)


def _runs(report: Report) -> str:
    n = len(report.runs)
    return f"mean ± standard deviation of {n} runs" if n > 1 else "one run"
