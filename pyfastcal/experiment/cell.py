"""One cell of an experiment: tune a learner on a task, encode, calibrate by every method, measure."""

import functools
import math
import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .. import metrics, ops
from ..clip import scale_and_bias
from ..clip.prompts import LEARNERS, PromptLearner
from ..evaluate.evaluation import METRICS, Evaluation
from ..evaluate.split import evaluate_split
from ..io.features import FeatureSet
from ..io.progress import Progress
from ..report.panels import POINTS, class_points
from . import ablations
from .sources import Part, Source

NAMES = {"zs": "zero-shot"}  # methods that are called otherwise in the papers' tables than by `pyfastcal evaluate`
SHORT = {known: name for name, known in NAMES.items()}
LEAST_EPOCHS = 5  # MaPLe's, the fewest that any learner is published with


@dataclass(frozen=True)
class Settings:
    """What is the same for all cells. ``shots``: images of each base class in the main tables; ``epochs``: at most so
    many, None for those published."""

    methods: tuple[str, ...]
    n_bins: int = 10
    shots: int = 16
    epochs: int | None = None


@dataclass(frozen=True)
class Cell:
    """A learner on a task, with its model, a seed and a number of shots."""

    source: Source
    learner: str
    seed: int
    shots: int

    @property
    def what(self) -> dict[str, Any]:
        """What tells its rows apart from those of other cells."""
        source = {"task": self.source.name, "model": self.source.model}
        return source | {"learner": self.learner, "seed": self.seed, "shots": self.shots}

    @property
    def name(self) -> str:
        return f"{self.source.folder}/{self.learner}-{self.shots}shots-seed{self.seed}"


def run(cell: Cell, settings: Settings, progress: Progress | None = None) -> dict[str, Any]:
    """All that the report needs to know of the cell, as JSON can hold it.

    Fewer shots than ``settings.shots`` are the first of those, so that the images of few shots are among those of
    more, and validation and test images are the same for all.
    """
    start = time.process_time()
    material = cell.source.load(cell.seed, settings.shots, progress)
    kind = LEARNERS[cell.learner]
    train = material.train if cell.shots == settings.shots else material.train.few(cell.shots)
    epochs = epochs_of(kind, len(train.labels), cell.source.most_steps, settings.epochs)
    learner = kind(material.clip, material.tokenizer, material.template, epochs=epochs)
    images = train.stacked() if learner.tunes_images else train.features
    tell = functools.partial(progress, f"{cell.name}: epochs") if progress else None
    learner.fit(images, train.labels, material.base_classes, seed=cell.seed, progress=tell)
    tuned = time.process_time() - start
    splits = {
        "base": feature_set(learner, material.base_test, material.base_classes),
        "new": feature_set(learner, material.new_test, material.new_classes),
    }
    base = feature_set(learner, material.validation, material.base_classes)
    known = [NAMES.get(method, method) for method in settings.methods]
    evaluations = [evaluate_split(f, base, known, settings.n_bins, split=name) for name, f in splits.items()]
    common = cell.what
    main = cell.shots == settings.shots
    return common | {
        "rows": [row for e in evaluations for row in rows_of(common, e, settings)],
        "levels": {e.split: levels(e) for e in evaluations},
        "classes": {e.split: points(e) for e in evaluations} if main else {},
        "contrast": {name: contrast(features) for name, features in splits.items()} if main else {},
        "ablations": [
            common | {"split": name} | row
            for name, features in splits.items()
            for row in (ablations.rows(features, base, settings.n_bins) if main else ())
        ],
        "losses": [learner.losses[0], learner.losses[-1]],
        "seconds": {"tuning": round(tuned, 2), "all": round(time.process_time() - start, 2)},
    }


def epochs_of(kind: type[PromptLearner], images: int, most_steps: int | None, most_epochs: int | None = None) -> int:
    """The published number, or as many as fit into ``most_steps`` batches of ``images`` but no fewer than
    ``LEAST_EPOCHS``, since the first warms up; at most ``most_epochs``."""
    epochs = kind.epochs
    if most_steps is not None:
        fit = most_steps // math.ceil(images / kind.batch_size)
        epochs = min(epochs, max(LEAST_EPOCHS, fit))
    return epochs if most_epochs is None else min(epochs, most_epochs)


def feature_set(learner: PromptLearner, part: Part, classnames: list[str]) -> FeatureSet:
    """The features of a split, tuned and before, on the CPU."""
    tuned = learner.features(part.images).cpu() if learner.tunes_images else part.features
    scale, bias = scale_and_bias(learner)
    return FeatureSet(
        image_features=tuned,
        text_features=learner.text_features(classnames).cpu(),
        labels=part.labels,
        logit_scale=scale,
        zeroshot_text_features=learner.zeroshot_text_features(classnames).cpu(),
        zeroshot_image_features=part.features if learner.tunes_images else None,
        logit_bias=bias,
        classnames=list(classnames),
    )


def rows_of(common: dict[str, Any], evaluation: Evaluation, settings: Settings) -> list[dict[str, Any]]:
    """A row of ``results.json`` per method."""
    rows = []
    for method, row in zip(settings.methods, evaluation.rows, strict=True):
        about = {key: common[key] for key in ("task", "model", "learner")} | {"method": method, "split": row["split"]}
        about |= {key: common[key] for key in ("seed", "shots")}
        sizes = {"images": row["images"], "classes": row["classes"]}
        rows.append(about | {key: row[key] for key in METRICS} | sizes | {"note": row["note"]})
    return rows


def levels(evaluation: Evaluation) -> dict[str, list[list[int]]]:
    """The equal-width bins of each method, the integers of :class:`pyfastcal.metrics.cells.Cells`."""
    return {SHORT.get(method, method): [x.tolist() for x in cells] for method, cells in evaluation.cells.items()}


def points(evaluation: Evaluation) -> dict[str, list[list[float]]]:
    """The classes of the papers' figure 3: proximity, and confidence (per cent) or gap (points)."""
    found = {}
    for method, what in POINTS:
        pair = class_points(evaluation, method, what)
        if pair is not None:
            found[f"{method} {what}"] = [[round(float(v), 4) for v in x] for x in pair]
    return found


def contrast(features: FeatureSet) -> dict[str, float]:
    """CAC's contrast metric before and after tuning, of cosine similarities."""

    def of(images: Tensor, texts: Tensor) -> float:
        return float(metrics.contrast(ops.similarity(images, texts), features.labels))

    return {
        "zs": of(features.zeroshot_images, features.zeroshot_text_features),
        "tuned": of(features.image_features, features.text_features),
    }
