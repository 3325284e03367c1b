"""Features of a split in, one row of metrics per calibration method (see ``methods``) out."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from .. import metrics, ops
from ..io.features import ClassSet, FeatureSet
from ..metrics._cells import Cells, count_cells
from ..metrics.accumulator import mean_confidence
from ..reference._common import working
from .methods import DEFAULT_METHODS, METHODS, Calibrated, NotApplicable, check_methods, image_proximity

CHUNK = 1 << 14  # entries of features compared at a time: they stay in cache, and are too few to be split over threads


@dataclass(frozen=True)
class Evaluation:
    """One split: the rows of metrics, and what the figures of a report are drawn from. ``cells``, by method: the
    equal-width bins; ``features`` and ``calibrated``: of all images, None and nothing where they were not in memory
    at once; ``skipped``: the shards that could not be read, with the reasons."""

    split: str
    features: FeatureSet | None
    base: FeatureSet | None
    rows: list[dict[str, Any]]
    calibrated: dict[str, Calibrated]
    cells: dict[str, Cells]
    skipped: dict[str, str] = field(default_factory=dict)

    def correct(self, method: str) -> Tensor:
        assert self.features is not None
        return self.calibrated[method].prediction == self.features.labels


METRICS = ("accuracy", "confidence", "ece", "ace", "mce", "mce_weighted", "piece", "nll", "brier")


def evaluate(
    features: FeatureSet,
    base: FeatureSet | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    n_bins: int = 10,
    *,
    split: str = "new",
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """One row (a dictionary) of metrics per method: see :func:`evaluate_split`, whose ``rows`` these are."""
    return evaluate_split(features, base, methods, n_bins, split=split, progress=progress).rows


def evaluate_split(
    features: FeatureSet,
    base: FeatureSet | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    n_bins: int = 10,
    *,
    split: str = "new",
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Calibrate and measure one split.

    ``base`` holds the classes the model was tuned on, with images held out from the tuning: DAC measures
    distances to its text features, fitted methods are fitted on its labelled images, and PIECE takes a row's
    proximity (K = 5) to its image features; without it, to the split's own (self excluded).

    A row has ``split``, ``method``, ``images``, ``classes``, the metrics of ``METRICS`` (fractions; None
    where they cannot be had), ``gap`` (confidence minus accuracy), ``settings`` and ``note`` (why there are
    no numbers, or what the method warned of). ``progress`` is called with each method's name when it is done.
    """
    methods = check_methods(methods)
    features.validate("features")
    if base is not None:
        check_base(base.validate("base"), features.classes)
    near = image_proximity(features, base)
    rows, calibrated, cells = [], {}, {}
    for method in methods:
        row = empty_row(split, method, len(features.labels), len(features.text_features))
        with recorded() as notes:
            try:
                done = METHODS[method](features.classes, base)(features, near)
            except (NotApplicable, ValueError) as error:  # the features were checked: the method cannot use them
                row["note"] = str(error)
                done = None
        if done is not None:
            calibrated[method] = done
            cells[method] = count_cells(done.confidence, done.prediction == features.labels, n_bins)
            row["note"] = "; ".join(dict.fromkeys(notes))
            row["settings"] = done.settings | done.observed
            row |= measure(done, features, near, n_bins)
        rows.append(row)
        if progress:
            progress(method)
    return Evaluation(split, features, base, rows, calibrated, cells)


def empty_row(split: str, method: str, images: int, classes: int) -> dict[str, Any]:
    """A row with no numbers yet."""
    row: dict[str, Any] = {"split": split, "method": method, "images": images, "classes": classes}
    return row | dict.fromkeys((*METRICS, "gap")) | {"settings": {}, "note": ""}


@contextmanager
def recorded() -> Iterator[list[str]]:
    """What is warned of in the block, as text."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    notes += [str(warning.message) for warning in caught]


def measure(result: Calibrated, features: FeatureSet, near: Tensor | None, n_bins: int = 10) -> dict[str, Any]:
    """The metrics of one method on one split; ``near``: (N,) proximity of the images, or None (no PIECE
    then)."""
    confidence, correct = result.confidence, result.prediction == features.labels
    values = {
        "accuracy": correct.double().mean(),
        "confidence": mean_confidence(count_cells(confidence, correct, n_bins)),
        "ece": metrics.expected_calibration_error(confidence, correct, n_bins),
        "ace": metrics.adaptive_calibration_error(confidence, correct, n_bins),
        "mce": metrics.maximum_calibration_error(confidence, correct, n_bins),
        "mce_weighted": metrics.maximum_calibration_error(confidence, correct, n_bins, weighted=True),
    }
    if near is not None:
        values["piece"] = metrics.proximity_informed_ece(confidence, correct, near, n_bins=n_bins)
    values |= {key: score.sum() / len(score) for key, score in proper_scores(result, features).items()}
    return numbers(values)


def numbers(values: dict[str, Tensor]) -> dict[str, float | None]:
    """The metrics of a row from 0-d tensors: None where there is no finite value, and ``gap``."""
    found = {key: float(value) for key, value in values.items()}
    found["gap"] = found["confidence"] - found["accuracy"]
    return {key: value if isfinite(value) else None for key, value in found.items()}


def proper_scores(result: Calibrated, features: FeatureSet) -> dict[str, Tensor]:
    """``nll`` and ``brier`` of each image, (N,) float64, without the (N, C) probabilities.

    With logits ``s`` scaled by f, and ``conf(f) = exp(f max s) / sum_c exp(f s_c)`` the confidence,
    ``-log p_y = f (max s - s_y) - log conf(f)`` and ``sum_c p_c^2 = conf(f)^2 / conf(2 f)``.
    """
    if result.scores is not None:
        return result.scores
    images, texts = result.source or (features.image_features, features.text_features)
    weight, scale = result.factor, features.logit_scale
    confidence = result.confidence.double()
    doubled, _ = ops.similarity_confidence(images, texts, 2 * scale, sample_weight=weight)
    margin = scale * _margin(images, texts, result.prediction, features.labels)
    nll = (margin if weight is None else weight.double() * margin) - confidence.log()
    return {"nll": nll, "brier": confidence.square() / doubled.double() - 2 * (-nll).exp() + 1}


def _margin(images: Tensor, texts: Tensor, prediction: Tensor, labels: Tensor) -> Tensor:
    """Similarity of each image to the class predicted minus that to the true one, (N,) float64. To the rounding of
    float32, which the logits have in any case."""
    margin = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    wrong = (prediction != labels).nonzero()[:, 0]
    for rows in wrong.split(max(1, CHUNK // images.shape[1])):
        pairs = (images, rows), (texts, prediction[rows]), (texts, labels[rows])
        image, one, other = (working(x.index_select(0, i)) for x, i in pairs)  # x[i] would start threads
        to_one, to_other = ((image * text).sum(-1) / _length(text) for text in (one, other))
        margin[rows] = ((to_one - to_other) / _length(image)).double()
    return margin


def _length(rows: Tensor) -> Tensor:
    return rows.square().sum(-1).sqrt().clamp(min=1e-12)


def check_base(base: FeatureSet, classes: ClassSet) -> None:
    """ValueError unless the base file is of the model that the classes are of."""
    for key in ("image_features", "text_features"):
        mine, theirs = classes.text_features.shape[1], getattr(base, key).shape[1]
        if mine != theirs:
            raise ValueError(f"base {key} must have {mine} columns as those of the features have, got {theirs}")
