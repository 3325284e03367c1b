"""Evaluate a split that is in memory."""

from collections.abc import Callable, Sequence
from typing import Any

from ..io.features import FeatureSet
from ..metrics.cells import count_cells
from .evaluation import Evaluation, empty_row, measure, recorded
from .methods import DEFAULT_METHODS, METHODS, NotApplicable, check_base, check_methods, image_proximity


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
            row |= measure(done, features, near, cells[method])
        rows.append(row)
        if progress:
            progress(method)
    return Evaluation(split, features, base, rows, calibrated, cells)
