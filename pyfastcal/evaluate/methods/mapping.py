"""Methods that map probabilities to others: density ratio, histogram binning, the isotonic regressions."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ... import ops
from ...calibration import (
    BinMeanShift,
    DensityRatioCalibration,
    HistogramBinning,
    IsotonicRegression,
    MultiIsotonicRegression,
    ProbabilityMap,
)
from ...calibration.probability_map import share_rest
from ...io.features import ClassSet, FeatureSet
from .method import PROXIMITY_NEIGHBOURS, Apply, Calibrated, NotApplicable, image_proximity, labelled, logits_of

CHUNK = 1 << 21  # probabilities that exist at a time


def density_ratio(classes: ClassSet, base: FeatureSet | None) -> Apply:
    """Confidences are those of the model's own predictions, as published, even where another class comes out on top."""
    base = labelled(base)
    den = DensityRatioCalibration().fit(_probabilities(base, base.classes).float(), base.labels, _base_proximity(base))

    def apply(features: FeatureSet, near: Tensor | None) -> Calibrated:
        inputs = features.image_features, classes.text_features, classes.logit_scale
        confidence, prediction = ops.similarity_confidence(*inputs)
        confidence = den.confidence(confidence, proximity=near)

        def calibrate(probs: Tensor, rows: slice) -> Tensor:
            return share_rest(probs, prediction[rows], confidence[rows])

        settings = {"right": len(den.right), "wrong": len(den.wrong)}
        return _mapped(features, classes, calibrate, prediction, settings)

    return apply


def histogram_binning(classes: ClassSet, base: FeatureSet | None) -> Apply:
    calibrator = HistogramBinning()
    return _probability_map(calibrator, classes, base, {"n_bins": calibrator.n_bins})


def isotonic_regression(classes: ClassSet, base: FeatureSet | None) -> Apply:
    return _probability_map(IsotonicRegression(), classes, base)


def multi_isotonic_regression(classes: ClassSet, base: FeatureSet | None) -> Apply:
    return _probability_map(MultiIsotonicRegression(), classes, base)


def bin_mean_shift(classes: ClassSet, base: FeatureSet | None) -> Apply:
    calibrator = BinMeanShift(MultiIsotonicRegression())
    return _probability_map(calibrator, classes, base, {"n_proximity_bins": calibrator.n_proximity_bins})


def _probability_map(
    calibrator: ProbabilityMap | BinMeanShift,
    classes: ClassSet,
    base: FeatureSet | None,
    settings: dict[str, float] | None = None,
) -> Apply:
    base = labelled(base)
    if calibrator.knows_only_its_classes and not _same_classes(classes, base.classes):
        raise NotApplicable("there is a map for each class of the base file and none for other classes")
    by_proximity = isinstance(calibrator, BinMeanShift)
    near_base = (_base_proximity(base),) if by_proximity else ()
    try:
        calibrator.fit(_probabilities(base, base.classes), base.labels, *near_base)
    except ImportError as error:  # isotonic regression without scikit-learn
        raise NotApplicable(str(error)) from error

    def apply(features: FeatureSet, near: Tensor | None) -> Calibrated:
        def calibrate(probs: Tensor, rows: slice) -> Tensor:
            return calibrator(probs, near[rows]) if by_proximity else calibrator(probs)

        prediction = None
        if not calibrator.knows_only_its_classes:  # one map, which keeps predictions
            inputs = features.image_features, classes.text_features, classes.logit_scale
            prediction = ops.similarity_confidence(*inputs)[1]
        return _mapped(features, classes, calibrate, prediction, settings or {})

    return apply


def _mapped(
    features: FeatureSet,
    classes: ClassSet,
    calibrate: Callable[[Tensor, slice], Tensor],
    prediction: Tensor | None,
    settings: dict[str, float],
) -> Calibrated:
    """A method that maps probabilities (M, C) of the images in a slice to others, a piece at a time. Without
    ``prediction``, the most probable class of the outcome is the prediction."""
    n, step = len(features.labels), max(1, CHUNK // len(classes.text_features))
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, max(1, n), step):
        rows = slice(start, start + step)
        probs = calibrate(_probabilities(features, classes, rows), rows)
        predicted = probs.argmax(1) if prediction is None else prediction[rows]
        confidence, true = (probs.gather(1, index[:, None])[:, 0] for index in (predicted, features.labels[rows]))
        brier = probs.square().sum(1) - 2 * true + 1
        parts.append((confidence.float(), predicted, -true.log(), brier))
    confidence, predicted, nll, brier = (torch.cat(part) for part in zip(*parts, strict=True))
    if bool(nll.isinf().any()):
        warnings.warn("gives some true classes a probability of 0, so that NLL is infinite", stacklevel=2)
    return Calibrated(confidence, predicted, settings=settings, scores={"nll": nll, "brier": brier})


def _same_classes(classes: ClassSet, others: ClassSet) -> bool:
    """By their names; where one side has none, by their text features."""
    if classes.classnames is not None and others.classnames is not None:
        return classes.classnames == others.classnames
    return torch.equal(classes.text_features, others.text_features)


def _base_proximity(base: FeatureSet) -> Tensor:
    near = image_proximity(base, None)
    if near is None:
        raise NotApplicable(f"the proximity to {PROXIMITY_NEIGHBOURS} base images is needed: the base file has too few")
    return near


def _probabilities(features: FeatureSet, classes: ClassSet, rows: slice = slice(None)) -> Tensor:
    """(M, C) float64."""
    return logits_of(features.image_features[rows], classes.text_features, classes.logit_scale).double().softmax(-1)
