"""The figures of docs/experiments.md: ``python -m scripts.figures.experiments DIR`` writes the document's tables and
docs/experiments.json from what ``pyfastcal experiment --seeds 3 --out DIR`` left in DIR.

The JSON file holds all tables, of which the document shows those that it has a place for, and, run by run on each
task's first model, what a test measures again."""

import argparse
import json
import re
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


def tables_of(found: dict[str, Any], page: str) -> dict[str, str]:
    """The document's tables, by their markers in its text ``page``. ValueError for a place that has no table."""
    tables = {one["name"]: Table(**one).markdown() for one in found["tables"]}
    places = re.findall("<!-- begin: (?!reason )(.+?) -->", page)  # those are of scripts.figures.reasons
    if missing := [name for name in places if name not in tables]:
        raise ValueError(f"the results must have the tables {', '.join(missing)} of {CARD.name}")
    return {name: tables[name] for name in places}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/experiments.json and the tables of docs/experiments.md.")
    parser.add_argument("folder", type=Path, nargs="?", help="an experiment's folder; without it, of the JSON file")
    args = parser.parse_args()
    if args.folder is not None:
        results = Results.load(args.folder)
        tables = [vars(table) for table in all_tables(results)]
        found = {"environment": environment(), "tables": tables, "runs": runs_of(results.main().rows)}
        write_text(FIGURES, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    page, found = CARD.read_text(), json.loads(FIGURES.read_text())
    CARD.write_text(with_tables(page, tables_of(found, page)))
    if unused := [one["name"] for one in found["tables"] if f"<!-- begin: {one['name']} -->" not in page]:
        print(f"{CARD.name} has no place for: {', '.join(unused)}")


if __name__ == "__main__":
    main()
