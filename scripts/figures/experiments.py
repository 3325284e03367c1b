"""The figures of docs/experiments.md: ``python -m scripts.figures.experiments DIR`` writes the document's tables and
docs/experiments.json from what ``pyfastcal experiment --seeds 3 --out DIR`` left in DIR.

The JSON file holds the tables and, run by run, what a test measures again."""

import argparse
import json
from pathlib import Path
from typing import Any

from pyfastcal.experiment import Results
from pyfastcal.experiment.tables import Table, all_tables
from pyfastcal.io.paths import write_text
from pyfastcal.report import environment
from scripts.figures.page import DOCS, with_tables

CARD, FIGURES = DOCS / "experiments.md", DOCS / "experiments.json"


def runs_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """``task/learner/seed`` -> split -> accuracy and confidence without calibration, ECE of each method; per cent."""
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        found = runs.setdefault(f"{row['task']}/{row['learner']}/{row['seed']}", {}).setdefault(row["split"], {})
        if row["method"] == "conf":
            found |= {key: _percent(row[key]) for key in ("accuracy", "confidence")}
        found[f"ece {row['method']}"] = _percent(row["ece"])
    return runs


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


def tables_of(found: dict[str, Any]) -> dict[str, str]:
    """The document's tables, by their markers."""
    return {one["name"]: Table(**one).markdown() for one in found["tables"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/experiments.json and the tables of docs/experiments.md.")
    parser.add_argument("folder", type=Path, nargs="?", help="an experiment's folder; without it, of the JSON file")
    args = parser.parse_args()
    if args.folder is not None:
        results = Results.load(args.folder)
        tables = [vars(table) for table in all_tables(results)]
        found = {"environment": environment(), "tables": tables, "runs": runs_of(results.rows)}
        write_text(FIGURES, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    CARD.write_text(with_tables(CARD.read_text(), tables_of(json.loads(FIGURES.read_text()))))


if __name__ == "__main__":
    main()
