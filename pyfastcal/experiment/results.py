"""The cells of an experiment put together: rows, and means over tasks and seeds."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..clip.prompts import LEARNERS
from ..metrics.cells import Cells
from ..report.figures import spearman
from ..report.summary import mean_spread
from .cell import Settings
from .grid import read

Row = dict[str, Any]
Value = tuple[float, float | None] | None  # a mean, and its spread over the seeds


class Results:
    """What :func:`pyfastcal.experiment.run` found. ``rows``: the main table, as in ``results.json``; ``ablations``: as
    in ``ablations.json``."""

    def __init__(
        self,
        cells: list[dict[str, Any]],
        settings: Settings,
        sources: Sequence[tuple[str, str]],
        left_out: dict[tuple[str, str], str] | None = None,
    ) -> None:
        """``cells``: what :func:`.cell.run` gave, in any order; the tables have them in that of ``sources``, pairs of
        task and model. ``left_out``: by (model, learner) why there are none of them."""
        learners, sources = list(LEARNERS), list(sources)

        def place(cell: dict[str, Any]) -> tuple[int, ...]:
            source = sources.index((cell["task"], cell["model"]))
            return source, learners.index(cell["learner"]), cell["seed"], -cell["shots"]

        cells = sorted(cells, key=place)
        self.settings, self.sources, self.left_out, self._every = settings, sources, dict(left_out or {}), cells
        self.cells = [cell for cell in cells if cell["shots"] == settings.shots]
        self.rows: list[Row] = [row for cell in self.cells for row in cell["rows"]]
        self.ablations = shots_of(cells) + [row for cell in self.cells for row in cell["ablations"]]
        self.tasks = _distinct(cell["task"] for cell in self.cells)
        self.models = _distinct(cell["model"] for cell in self.cells)
        self.learners = _distinct(cell["learner"] for cell in self.cells)
        self.learners.sort(key=learners.index)
        self.seeds = _distinct(cell["seed"] for cell in self.cells)
        self.methods = list(settings.methods)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Results":
        """What is done of the experiment in a folder. ValueError where there is none."""
        path = Path(folder)
        about = read(path / "experiment.json")
        settings = Settings(**about["settings"] | {"methods": tuple(about["settings"]["methods"])})
        cells = [read(file) for file in sorted(path.glob("cells/*/*.json"))]
        sources = [(source["task"], source["model"]) for source in about["sources"].values()]
        left_out = {(model, name): why for model, whys in about["left out"].items() for name, why in whys.items()}
        return cls(cells, settings, sources, left_out)

    def main(self) -> "Results":
        """Those of each task's first model: what all tables are of but those by backbone."""
        first = dict(reversed(self.sources))
        sources = [(task, model) for task, model in self.sources if first[task] == model]
        cells = [cell for cell in self._every if (cell["task"], cell["model"]) in sources]
        left_out = {key: why for key, why in self.left_out.items() if key[0] in first.values()}
        return Results(cells, self.settings, sources, left_out)

    def select(self, **wanted: Any) -> list[Row]:
        """The main rows that have these values."""
        return [row for row in self.rows if all(row[key] == value for key, value in wanted.items())]

    def pooled(self, learner: str, split: str, method: str) -> Cells | None:
        """The bins of all runs of a learner together."""
        found = [
            c["levels"][split][method] for c in self.cells if c["learner"] == learner and method in c["levels"][split]
        ]
        return Cells.of(sum(torch.tensor(cells) for cells in found)) if found else None

    def points(self, method: str, what: str) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
        """(split, proximity, confidence or gap) of the classes of all runs."""
        found = []
        for split in ("base", "new"):
            key = f"{method} {what}"
            pairs = [c["classes"][split][key] for c in self.cells if key in c["classes"][split]]
            if pairs:
                x, y = (torch.tensor([v for pair in pairs for v in pair[i]], dtype=torch.float64) for i in (0, 1))
                found.append((split, x, y))
        return found

    def contrasts(self, learner: str, split: str, which: str) -> Value:
        """The contrast of the runs of a learner, ``which`` "zs" or "tuned"."""
        return average([{"seed": c["seed"], "of": c["contrast"][split][which]} for c in self._of(learner)], "of")

    def correlations(self, learner: str, split: str, what: str) -> Value:
        """The rank correlation, in the runs of a learner, of a class's proximity with ``what``: "conf gap", ..."""
        found = [(c["seed"], c["classes"][split].get(what)) for c in self._of(learner)]
        return average([{"seed": seed, "of": spearman(*map(torch.tensor, pair))} for seed, pair in found if pair], "of")

    def _of(self, learner: str) -> Iterable[dict[str, Any]]:
        return [cell for cell in self.cells if cell["learner"] == learner]


def shots_of(cells: list[dict[str, Any]]) -> list[Row]:
    """The rows of learners that were tuned on several numbers of shots, with the same model."""
    counts: dict[tuple[str, str], set[int]] = {}
    for cell in cells:
        counts.setdefault((cell["model"], cell["learner"]), set()).add(cell["shots"])
    several = [cell for cell in cells if len(counts[cell["model"], cell["learner"]]) > 1]
    several.sort(key=lambda cell: cell["shots"])
    return [{"ablation": "shots", "value": row["shots"]} | row for cell in several for row in cell["rows"]]


def average(rows: Iterable[Row], metric: str | Callable[[Row], float | None]) -> Value:
    """The mean over all runs that have a value, and the standard deviation over the seeds of each seed's mean; None
    where no run has one."""
    get = metric if callable(metric) else lambda row: row[metric]
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        value = get(row)
        if value is not None:
            by_seed.setdefault(row["seed"], []).append(value)
    if not by_seed:
        return None
    every = [value for values in by_seed.values() for value in values]
    return mean_spread(every)[0], mean_spread([mean_spread(values)[0] for values in by_seed.values()])[1]


def _distinct(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))
