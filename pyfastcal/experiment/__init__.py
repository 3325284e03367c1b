"""The papers' base-to-new experiment end to end: prompt learners x tasks x calibration methods x seeds.

docs/experiments.md shows what it gives on the bundled small CLIPs, and how to run it on a CLIP of one's own."""

import json
import os
from collections.abc import Sequence
from typing import Any

from ..arguments import checks
from ..arguments.names import chosen
from ..clip.prompts import LEARNERS
from ..evaluate.methods import METHODS as KNOWN
from ..io.paths import write_text
from ..io.progress import Progress
from .bundled_tasks import BUNDLED, BundledTask, bundled
from .cell import SHORT, Settings
from .grid import Folder, cells_of, unfit, work
from .results import Results
from .sources import FolderTask, Source

__all__ = [
    "ABOUT",
    "BUNDLED",
    "METHODS",
    "BundledTask",
    "FolderTask",
    "Results",
    "bundled",
    "check_learners",
    "check_methods",
    "run",
]

METHODS = ("zs", "conf", "ts", "den", "hb", "ir", "mir", "dac", "ts+dac", "cac", "cac-fit")
ABOUT = (
    "The CLIPs are small ones trained for these tasks, with 0.5 or 5 M parameters: what they show says nothing of "
    "large models, and no figure here is a paper's."
)
FEW_SHOTS = (1, 2, 4, 8)  # what is tuned on besides, where ``shots`` are more


def check_learners(names: Sequence[str]) -> tuple[str, ...]:
    """Names of ``LEARNERS``, in any case, each once; ``all`` stands for all. ValueError at an unknown one."""
    by_name = {name.lower(): name for name in ("all", *LEARNERS)}
    named = chosen("learners", (by_name.get(name.lower(), name) for name in names), LEARNERS)
    return tuple(name for name in LEARNERS if name in named)


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Methods of ``pyfastcal evaluate``, "zero-shot" called "zs", each once; ``all`` stands for ``METHODS``. ValueError
    at an unknown one."""
    known = [SHORT.get(name, name) for name in KNOWN]
    return chosen("methods", (SHORT.get(name, name) for name in names), known, METHODS)


def run(
    out: str | os.PathLike,
    sources: Sequence[Source],
    learners: Sequence[str] = ("all",),
    seeds: Sequence[int] = (0, 1, 2),
    *,
    methods: Sequence[str] = ("all",),
    shots: int = 16,
    few_shots: Sequence[int] | None = None,
    few_shot_learners: Sequence[str] = ("CoOp",),
    n_bins: int = 10,
    epochs: int | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Results:
    """Tune every learner on every task with every seed, calibrate base and new classes by every method, measure.

    Args:
        out: folder of the result. ``results.json``: one row per task, model, learner, method, split ("base" or "new")
            and seed, metrics as fractions, null with a ``note`` where a method cannot apply. ``ablations.json``: shots,
            the constants of CAC, normalisations. ``cells/``: a file per cell; one that is there is not made
            again, so that a killed run goes on when it is called again, and a finished one can grow.
        sources: the tasks, each with a model: :func:`bundled`, :class:`FolderTask`. Where models are several, a learner
            that a model cannot take is left out on it, which the results tell; where there is one, that is an error.
            The first model of a task is that of all tables but those by backbone.
        learners, methods: see :func:`check_learners`, :func:`check_methods`.
        shots: images of each base class that are tuned on; ``few_shots``: numbers of them that
            ``few_shot_learners`` are tuned on besides (None: those of 1, 2, 4, 8 that are fewer).
        epochs: at most so many for every learner, for a quick look; None for those published.
        jobs: cells worked on at a time, in as many processes.

    A cell is deterministic: the same on one machine whatever ``jobs`` is, and after a restart.

    Raises:
        ValueError: naming the argument; also where ``out`` holds an experiment with other settings.
    """
    learners, methods = check_learners(learners), check_methods(methods)
    few_shot_learners = check_learners(few_shot_learners) if few_shot_learners else ()
    for seed in seeds:
        checks.integer("seeds", seed, 0)
    if not seeds or not sources:
        raise ValueError(f"{'sources' if seeds else 'seeds'} must name at least one, got none")
    checks.integer("jobs", jobs, 1)
    checks.integer("n_bins", n_bins, 1)
    checks.integer("shots", shots, 1)
    for number in (few_shots := tuple(n for n in FEW_SHOTS if n < shots) if few_shots is None else tuple(few_shots)):
        checks.integer("few_shots", number, 1, shots, "shots")
    settings = Settings(methods, n_bins, shots, None if epochs is None else checks.integer("epochs", epochs, 1))
    several = len({source.model for source in sources}) > 1
    left_out = unfit(sources, learners) if several else {}
    seeds = tuple(dict.fromkeys(seeds))
    cells = cells_of(sources, learners, seeds, settings, few_shots, few_shot_learners, left_out)
    if not cells:
        raise ValueError(f"learners must have one that a model takes, got {', '.join(learners)}")
    folder = Folder(out, settings, sources, left_out)
    work(folder, cells, settings, jobs, progress)
    pairs = [(source.name, source.model) for source in sources]
    results = Results([folder.read(cell) for cell in cells], settings, pairs, left_out)
    write_text(folder.path / "results.json", _json(results.rows))
    write_text(folder.path / "ablations.json", _json(results.ablations))
    return results


def _json(rows: list[dict[str, Any]]) -> str:
    """One row per line."""
    return "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]\n"
