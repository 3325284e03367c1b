"""The report's table and findings as text, for stdout."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..io.text import counted, printable
from .summary import Report, findings, format_value, label, split_name, summarise

HEADINGS = {"accuracy": "Accuracy", "confidence": "Confidence", "nll": "NLL", "brier": "Brier"}
SHOWN = ("accuracy", "confidence", "ece", "ace", "mce", "piece", "nll")  # the report and the JSON have all
WIDE = 92  # columns that the table needs; narrower terminals go without the last metric


class Terminal:
    """Stdout, ``width`` columns wide off a terminal, where nothing is wrapped to 80. No text is read as markup."""

    def __init__(self, width: int) -> None:
        self._console = Console()
        if not self._console.is_terminal:
            self._console = Console(width=width)
        self.width = self._console.width

    def say(self, text: str, style: str | None = None) -> None:
        self._console.print(printable(text), style=style, markup=False, highlight=False)

    def table(
        self, title: str, heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], wrap: bool = False
    ) -> None:
        """``heads``: of all columns; ``rows``: (heading, cells); ``wrap``: whether cells may have several lines."""
        table = Table(title=_plain(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD)
        table.padding, table.pad_edge = (0, 0, 0, 1), False
        table.add_column(_plain(heads[0]), no_wrap=True)
        for head in heads[1:]:
            table.add_column(_plain(head), justify="right", no_wrap=not wrap)
        for head, cells in rows:
            table.add_row(*(_plain(text.replace(" ± ", "±")) for text in (head, *cells)))
        self._console.print(table)


def _plain(text: str, style: str = "") -> Text:
    return Text(printable(text), style)


def print_report(report: Report) -> None:
    """One table per split, then the findings."""
    terminal = Terminal(140)
    rows = summarise(report)
    shown = SHOWN if terminal.width >= WIDE else SHOWN[:-1]
    heads = ["Method", *(HEADINGS.get(metric, metric.upper()) for metric in shown)]
    for split in report.splits:
        of = [(label(row["method"]), [format_value(m, row[m]) for m in shown]) for row in rows if row["split"] == split]
        terminal.table(f"{split_name(split)}, % ({_runs(report)})", heads, of)
    for row in (r for r in rows if r["note"]):
        terminal.say(f"{label(row['method'])}, {split_name(row['split'])}: {row['note']}", "dim")
    for split in report.splits:
        for line in report.skipped(split):
            terminal.say(line, "yellow")
    for sentence in findings(report):
        terminal.say(f"• {sentence}")


def _runs(report: Report) -> str:
    n = len(report.runs)
    return f"mean ± standard deviation of {counted(n, 'run')}" if n > 1 else "one run"
