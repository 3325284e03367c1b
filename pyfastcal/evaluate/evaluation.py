"""What an evaluation gives: a row of metrics per method, and what is drawn of them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from torch import Tensor

from .. import metrics
from ..io.features import FeatureSet
from ..metrics.cells import Cells, expected_error, maximum_error, mean_confidence
from .methods import Calibrated
from .scores import proper_scores

METRICS = ("accuracy", "confidence", "ece", "ace", "mce", "mce_weighted", "piece", "nll", "brier")


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


def measure(result: Calibrated, features: FeatureSet, near: Tensor | None, cells: Cells) -> dict[str, Any]:
    """The metrics of one method on one split, whose equal-width bins are the ``cells``; ``near``: (N,) proximity of the
    images, or None (no PIECE then)."""
    confidence, correct, n_bins = result.confidence, result.prediction == features.labels, len(cells.count)
    values = {
        "accuracy": correct.double().mean(),
        "confidence": mean_confidence(cells),
        "ece": expected_error(cells),
        "ace": metrics.adaptive_calibration_error(confidence, correct, n_bins),
        "mce": maximum_error(cells, weighted=False),
        "mce_weighted": maximum_error(cells, weighted=True),
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
