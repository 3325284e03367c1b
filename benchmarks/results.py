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

import torch

import pyfastcal as fc

from .harness import Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ("numpy", "faiss-cpu", "torchmetrics", "statsmodels", "scipy")


def stamp(device: str = "cpu", **options: Any) -> dict[str, Any]:
    """CPU, threads, capability, versions, commit and date; the GPU and its driver where they were measured."""
    info = fc.build_info()
    commit = _git("rev-parse", "HEAD") or os.environ.get("PYFASTCAL_COMMIT")  # a copy of the tree has no history
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
        "device": device,
        **(gpu() if device == "cuda" else {}),
        **options,
    }


def gpu() -> dict[str, Any]:
    """The current GPU, its driver and memory; what torch was built with."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.split()[:1]
    except OSError:
        driver = []
    return {
        "gpu": properties.name,
        "gpu_memory": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver": driver[0] if driver else None,
        "cuda": torch.version.cuda,
    }


def cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def write(rows: list[Row], stamp: dict[str, Any], folder: Path) -> Path:
    """``folder/<date>-<GPU or CPU>[-<ops>].json``, whole or not at all."""
    name = f"{stamp['date'][:10]}-{_slug(stamp.get('gpu') or stamp['cpu'])}"
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


def newest(folder: Path, device: str = "cpu") -> tuple[dict[str, Any], list[Row]] | None:
    """Stamp and rows of the newest complete run in ``folder``."""
    runs = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    runs = [run for run in runs if not run["stamp"]["only"] and not run["stamp"]["quick"]]
    runs = [run for run in runs if run["stamp"].get("device", "cpu") == device]
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
