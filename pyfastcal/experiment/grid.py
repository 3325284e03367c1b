"""All cells of an experiment: which there are, which are done, and the processes that work on the rest."""

import json
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..clip.prompts import LEARNERS
from ..io.features import first_line
from ..io.paths import regular, write_text
from ..io.progress import Progress, Steps
from .cell import Cell, Settings, run
from .demo import one_thread
from .processes import processes
from .sources import Source

SLOWEST = ("ProDA", "PromptSRC", "CoCoOp")  # started first, so that no process is left alone with one at the end
FORMAT = "pyfastcal.experiment/2"  # since the second cells say which model they are of


def cells_of(
    sources: Sequence[Source],
    learners: Sequence[str],
    seeds: Sequence[int],
    settings: Settings,
    few_shots: Sequence[int] = (),
    few_shot_learners: Sequence[str] = (),
    left_out: Collection[tuple[str, str]] = (),
) -> list[Cell]:
    """Every cell once, seed by seed and source by source, so that a source's images are encoded once for a seed; of a
    source the learners that take longest first. Few shots are those of a task's first model; ``left_out``: pairs of
    model and learner."""
    order = sorted(learners, key=lambda name: SLOWEST.index(name) if name in SLOWEST else len(SLOWEST))
    first = {source.name: source.model for source in reversed(sources)}
    cells = []
    for seed in seeds:
        for source in sources:
            for learner in (name for name in order if (source.model, name) not in left_out):
                few = few_shots if learner in few_shot_learners and source.model == first[source.name] else ()
                shots = dict.fromkeys((settings.shots, *few))
                cells += [Cell(source, learner, seed, n) for n in shots]
    return cells


def unfit(sources: Sequence[Source], learners: Sequence[str]) -> dict[tuple[str, str], str]:
    """By (model, learner) why the learner cannot be tuned on the model: one that puts prompts into the image tower
    needs a vision transformer."""
    found: dict[tuple[str, str], str] = {}
    for source in {source.model: source for source in sources}.values():
        for learner in learners:
            try:
                LEARNERS[learner](*source.clip())
            except ValueError as error:
                found[source.model, learner] = first_line(error)
    return found


class Folder:
    """The files of an experiment: one per cell, whole or not there at all, and the settings they share."""

    def __init__(
        self,
        path: str | os.PathLike,
        settings: Settings,
        sources: Sequence[Source],
        left_out: dict[tuple[str, str], str] | None = None,
    ) -> None:
        """``left_out``: what :func:`unfit` found, to be told. ValueError where the folder holds cells of other
        settings, or of other images or another model by the same name."""
        self.path = Path(path)
        identity = {s.folder: {"task": s.name, "model": s.model} | s.identity() for s in sources}
        if len(identity) < len(sources):
            raise ValueError(f"data must be folders of different names, got {', '.join(s.name for s in sources)}")
        file, before = self.path / "experiment.json", {"sources": {}, "left out": {}}
        found: dict[str, Any] = {"format": FORMAT, "settings": json.loads(json.dumps(asdict(settings)))}
        if file.exists():
            before = read(file)
            if before.get("format") != FORMAT:
                raise ValueError(f"{file}: is not of an experiment of this version of pyfastcal")
            if not all(isinstance(before.get(key), dict) for key in ("settings", "sources", "left out")):
                raise ValueError(f"{file}: must have settings, sources and what is left out")
            for key, value in found["settings"].items():
                theirs = before["settings"].get(key)
                if theirs != value:
                    raise ValueError(f"{self.path}: holds an experiment with {key} {_said(theirs)}, not {_said(value)}")
            for name, theirs in before["sources"].items():
                if (own := identity.get(name, theirs)) != theirs:
                    raise ValueError(
                        f"{self.path}: holds an experiment in which {name} was made of {theirs}, not {own}"
                    )
        found["sources"] = before["sources"] | identity
        found["left out"] = {name: dict(whys) for name, whys in before["left out"].items()}
        for (model, learner), why in (left_out or {}).items():
            found["left out"].setdefault(model, {})[learner] = why
        write_text(file, json.dumps(found, indent=1) + "\n")

    def file(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.name}.json"

    def read(self, cell: Cell) -> dict[str, Any]:
        """ValueError, naming the file, where it is no result of the cell."""
        found = read(self.file(cell))
        parts = {"rows": list, "levels": dict, "classes": dict, "contrast": dict, "ablations": list}
        whole = all(isinstance(found.get(key), kind) for key, kind in parts.items())
        if not whole or any(found.get(key) != value for key, value in cell.what.items()):
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
    with processes(min(jobs, len(cells) or 1)) as pool:
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
