"""The files of measurements: what machine and what code they come from, and how they are written and found."""

import hashlib
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

from . import peaks
from .harness import Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PRODUCTS = RESULTS / "products"  # of the contenders that are not all, but ours by each product
COMMIT = ROOT / "build" / "commit.json"  # written where there is a history, read where there is none
PEERS = ("numpy", "faiss-cpu", "torchmetrics", "statsmodels", "scipy")


def stamp(device: str = "cpu", **options: Any) -> dict[str, Any]:
    """CPU, threads, capability, versions, commit and date; the GPU and its driver where they were measured."""
    info = fc.build_info()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": info["threads"],
        "capability": info["cpu_capability"],
        "versions": {name: info[name] for name in ("pyfastcal", "python", "torch")}
        | {name: _version(name) for name in PEERS},
        "compiler": info["compiler"],
        "cuda_product": info["cuda_product"],
        **commit(),
        "device": device,
        **(gpu() if device == "cuda" else {"peaks": peaks.rates()}),
        **options,
    }


def commit() -> dict[str, Any]:
    """The tree's commit, and whether it was changed since. Where a copy of the tree came without its history, or with
    another, ``write_commit`` said, if it said so of these very files."""
    if COMMIT.exists():
        written = json.loads(COMMIT.read_text())
        if written.pop("sources") == _digest():
            return written
    head = _git("rev-parse", "HEAD")
    if head is None:
        return {"commit": None, "dirty": None}
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return {"commit": head, "dirty": bool(changes)}


def write_commit() -> Path:
    """For a copy of this tree that will have no history: build/commit.json, which must be copied too."""
    COMMIT.parent.mkdir(exist_ok=True)
    COMMIT.unlink(missing_ok=True)
    _write(COMMIT, commit() | {"sources": _digest()})
    return COMMIT


def _digest() -> str:
    """Of all that a figure depends on."""
    digest = hashlib.sha256()
    folders = (ROOT / name for name in ("csrc", "pyfastcal", "benchmarks"))
    suffixes = (".cpp", ".h", ".cu", ".cuh", ".py")
    for path in sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in suffixes):
        digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


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


def name_of(stamp: dict[str, Any]) -> str:
    """``<date>-<GPU or CPU>[-<ops>].json``"""
    name = f"{stamp['date'][:10]}-{_slug(stamp.get('gpu') or stamp['cpu'])}"
    return "-".join([name, *stamp["only"]]) + ".json"


def write(rows: list[Row], stamp: dict[str, Any], path: Path) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    measurements = [
        asdict(row) | {"unit": row.unit, "target": row.target and str(row.target), "holds": row.holds} for row in rows
    ]
    _write(path, {"stamp": stamp, "rows": measurements})


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    run = json.loads(path.read_text())
    fields = Row.__dataclass_fields__
    return run["stamp"], [Row(**{k: v for k, v in row.items() if k in fields}) for row in run["rows"]]


def _write(path: Path, content: Any) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def newest(folder: Path, device: str = "cpu") -> tuple[dict[str, Any], list[Row]] | None:
    """Stamp and rows of the newest complete run in ``folder``."""
    runs = [read(path) for path in folder.glob("*.json")]
    runs = [run for run in runs if not run[0]["only"] and not run[0]["quick"]]
    runs = [run for run in runs if run[0].get("device", "cpu") == device]
    return max(runs, key=lambda run: run[0]["date"]) if runs else None


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
