"""All cells of an experiment: which there are, which are done, and the processes that work on the rest."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ..io.features import first_line
from ..io.paths import regular, write_text
from ..io.progress import Progress, Steps
from .cell import Cell, Settings, run
from .demo import one_thread
from .sources import Source

SLOWEST = ("ProDA", "PromptSRC", "CoCoOp")  # started first, so that no process is left alone with one at the end
FORMAT = "pyfastcal.experiment/1"


def cells_of(
    sources: Sequence[Source],
    learners: Sequence[str],
    seeds: Sequence[int],
    settings: Settings,
    few_shots: Sequence[int] = (),
    few_shot_learners: Sequence[str] = (),
) -> list[Cell]:
    """Every cell once, seed by seed, those that take longest first."""
    order = sorted(learners, key=lambda name: SLOWEST.index(name) if name in SLOWEST else len(SLOWEST))
    cells = []
    for seed in seeds:
        for learner in order:
            shots = [settings.shots] + [n for n in few_shots if learner in few_shot_learners and n != settings.shots]
            cells += [Cell(source, learner, seed, n) for n in shots for source in sources]
    return cells


class Folder:
    """The files of an experiment: one per cell, whole or not there at all, and the settings they share."""

    def __init__(self, path: str | os.PathLike, settings: Settings, sources: Sequence[Source]) -> None:
        """ValueError where the folder holds cells of other settings, or of other images or another model."""
        self.path = Path(path)
        identity = {source.name: source.identity() for source in sources}
        if len(identity) < len(sources):
            raise ValueError(f"data must be folders of different names, got {', '.join(s.name for s in sources)}")
        file, before = self.path / "experiment.json", {"sources": {}}
        found: dict[str, Any] = {"format": FORMAT, "settings": json.loads(json.dumps(asdict(settings)))}
        if file.exists():
            before = read(file)
            if before.get("format") != FORMAT:
                raise ValueError(f"{file}: is not of an experiment")
            if not all(isinstance(before.get(key), dict) for key in ("settings", "sources")):
                raise ValueError(f"{file}: must have settings and sources")
            for key, value in found["settings"].items():
                theirs = before["settings"].get(key)
                if theirs != value:
                    raise ValueError(f"{self.path}: holds an experiment with {key} {_said(theirs)}, not {_said(value)}")
            for name, theirs in before["sources"].items():
                if identity.get(name, theirs) != theirs:
                    raise ValueError(f"{self.path}: holds an experiment in which {name} was made of {theirs}")
        write_text(file, json.dumps(found | {"sources": before["sources"] | identity}, indent=1) + "\n")

    def file(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.name}.json"

    def read(self, cell: Cell) -> dict[str, Any]:
        """ValueError, naming the file, where it is no result of the cell."""
        found, what = read(self.file(cell)), {"task": cell.source.name, "learner": cell.learner}
        what |= {"seed": cell.seed, "shots": cell.shots}
        parts = {"rows": list, "levels": dict, "classes": dict, "contrast": dict, "ablations": list}
        whole = all(isinstance(found.get(key), kind) for key, kind in parts.items())
        if not whole or any(found.get(key) != value for key, value in what.items()):
            raise ValueError(f"{self.file(cell)}: is not the result of {cell.name}")
        return found

    def write(self, cell: Cell, result: dict[str, Any]) -> None:
        write_text(self.file(cell), json.dumps(result, allow_nan=False) + "\n")


def read(file: Path) -> dict[str, Any]:
    """ValueError, naming the file, for one that is no JSON object."""
    try:
        found = json.loads(Path(regular(file)).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not a file of an experiment ({first_line(error)})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: not a file of an experiment")
    return found


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def work(folder: Folder, cells: Sequence[Cell], settings: Settings, jobs: int, progress: Progress | None) -> None:
    """Do what is not done yet, ``jobs`` cells at a time, each in a process of its own with one thread; with one job
    in this process, where a small model gets one thread too. A bundled task comes out the same whichever way."""
    left = [cell for cell in cells if not folder.file(cell).exists()]
    step = Steps(progress, "cells", len(cells))
    for _ in range(len(cells) - len(left)):
        step()
    for cell, result in _results(left, settings, jobs, progress):
        folder.write(cell, result)
        step()


def _results(
    cells: Sequence[Cell], settings: Settings, jobs: int, progress: Progress | None
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    if jobs == 1:
        for cell in cells:
            with one_thread() if cell.source.small else nullcontext(), _named(cell):
                result = run(cell, settings, progress)
            yield cell, result
        return
    # spawned: a fork of a process with torch's threads may hang
    with ProcessPoolExecutor(min(jobs, len(cells) or 1), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        pending = {pool.submit(run, cell, settings): cell for cell in cells}
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = pending.pop(future)
                    with _named(cell):
                        result = future.result()
                    yield cell, result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _named(cell: Cell) -> Iterator[None]:
    """A ValueError says which cell it is of: a learner may not fit a model, a method a task."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{cell.name}: {error}") from error
