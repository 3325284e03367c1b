"""The files of measurements: what machine and what code they come from, and how they are written and found."""

import json
import os
import platform
import re
import subprocess
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyfastcal as fc

from .harness import Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ("numpy", "faiss-cpu", "torchmetrics", "statsmodels", "scipy")


def stamp(**options: Any) -> dict[str, Any]:
    """CPU, threads, capability, versions, commit and date."""
    info = fc.build_info()
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": info["threads"],
        "capability": info["cpu_capability"],
        "versions": {name: info[name] for name in ("pyfastcal", "python", "torch")}
        | {name: _version(name) for name in PEERS},
        "compiler": info["compiler"],
        "commit": commit,
        "dirty": None if commit is None else bool(changes),
        **options,
    }


def cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def write(rows: list[Row], stamp: dict[str, Any], folder: Path) -> Path:
    """``folder/<date>-<cpu>[-<ops>].json``, whole or not at all."""
    name = f"{stamp['date'][:10]}-{_slug(stamp['cpu'])}"
    if stamp["only"]:
        name += "-" + "-".join(stamp["only"])
    path = folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    measurements = [
        asdict(row) | {"unit": row.unit, "target": row.target and str(row.target), "holds": row.holds} for row in rows
    ]
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps({"stamp": stamp, "rows": measurements}, indent=1) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> tuple[dict[str, Any], list[Row]] | None:
    """Stamp and rows of the newest complete run in ``folder``."""
    runs = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    runs = [run for run in runs if not run["stamp"]["only"] and not run["stamp"]["quick"]]
    if not runs:
        return None
    run = max(runs, key=lambda run: run["stamp"]["date"])
    fields = Row.__dataclass_fields__
    return run["stamp"], [Row(**{k: v for k, v in row.items() if k in fields}) for row in run["rows"]]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return None if result.returncode else result.stdout.strip()
