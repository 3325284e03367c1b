"""The table of docs/calibrators.md: every method's ECE on the bundled small CLIPs."""

from typing import Any

from pyfastcal import demo
from pyfastcal.evaluate import METHODS
from pyfastcal.report.summary import label, mean_spread

TASKS, SEEDS = ("digits", "shapes"), range(5)


def measure() -> dict[str, Any]:
    """Every method on base and new classes of the bundled tasks, run by run."""
    found: dict[str, Any] = {}
    for task in TASKS:
        report = demo.run(task, SEEDS, methods=["all"])
        found[task] = {
            split: {
                method: [
                    {key: row[key] for key in ("accuracy", "confidence", "ece", "nll", "note")}
                    for evaluation in report.evaluations(split)
                    for row in evaluation.rows
                    if row["method"] == method
                ]
                for method in METHODS
            }
            for split in ("base", "new")
        }
    return found


def table(found: dict[str, Any]) -> str:
    columns = [(task, split) for task in found for split in ("base", "new")]
    lines = [f"| ECE, % | {' | '.join(f'{task}, {split}' for task, split in columns)} |"]
    lines.append("| --- |" + " --- |" * len(columns))
    for method in METHODS:
        cells = []
        for task, split in columns:
            values = [run["ece"] for run in found[task][split][method] if run["ece"] is not None]
            mean, spread = mean_spread(values) if values else (None, None)
            cells.append("-" if mean is None else f"{100 * mean:.1f} ± {100 * (spread or 0):.1f}")
        lines.append(f"| {label(method)} | {' | '.join(cells)} |")
    return "\n".join(lines)
