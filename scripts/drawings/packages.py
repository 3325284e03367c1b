"""Packages of the npm registry, fetched once at their pinned versions: ``npm`` must be installed."""

import json
import subprocess
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .sets import SETS, DrawingSet

EMOJIBASE = "17.0.0"  # names, keywords and categories of the code points (MIT)


def fetch(folder: Path) -> None:
    """Every set and emojibase-data into a folder of its own under ``folder``; what is there is not fetched again."""
    wanted = [(f"@iconify-json/{s.name}", s.version, folder / s.name) for s in SETS]
    wanted.append(("emojibase-data", EMOJIBASE, folder / "emojibase"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda package: _fetch(*package), wanted))
    for drawing_set in SETS:
        found = read(folder, drawing_set, "info.json")["license"].get("spdx")
        if found != drawing_set.licence:
            raise ValueError(f"{drawing_set.name}: its licence must be {drawing_set.licence}, got {found}")


def _fetch(name: str, version: str, folder: Path) -> None:
    manifest = folder / "package.json"
    if manifest.exists() and json.loads(manifest.read_text())["version"] == version:
        return
    with tempfile.TemporaryDirectory() as scratch:
        command = ["npm", "pack", f"{name}@{version}", "--silent", "--pack-destination", scratch]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as files:
            for member in files.getmembers():
                member.name = member.name.split("/", 1)[-1]  # without "package/"
            files.extractall(folder, filter="data")


def read(folder: Path, drawing_set: DrawingSet | str, file: str) -> dict:
    """A JSON file of a package; empty where the package has none."""
    path = folder / getattr(drawing_set, "name", str(drawing_set)) / file
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
