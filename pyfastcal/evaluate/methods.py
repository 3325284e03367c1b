"""The calibration methods of an evaluation.

A method is one function in ``METHODS``: ``fit(classes, base)`` does what is done once, with the classes of
the split and the base file, and returns ``apply(features, near)``, which makes a :class:`Calibrated` of
images of those classes, be they the whole split or a shard of it. A row of the result depends on its own
image alone, so that a split gives the same in memory, in shards and on several machines. Where a method
cannot apply, ``fit`` (or ``apply``) raises :class:`NotApplicable` with the reason, and its row shows that
reason in place of numbers.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import ops, reference
from ..calibration import (
    BinMeanShift,
    Chain,
    ContrastAwareCalibration,
    DensityRatioCalibration,
    DistanceAwareCalibration,
    HistogramBinning,
    IsotonicRegression,
    MultiIsotonicRegression,
    ProbabilityMap,
    TemperatureScaling,
)
from ..calibration.probability_map import share_rest
from ..calibration.proximity import proximity
from ..io.features import ClassSet, FeatureSet

PROXIMITY_NEIGHBOURS = 5
CHUNK = 1 << 21  # probabilities that exist at a time
EVERY = slice(None)


class NotApplicable(Exception):
    """Why a method cannot be used on these features."""


@dataclass(frozen=True)
class Calibrated:
    """What a method makes of a split: (N,) confidences and predictions, the (N,) factor of every row of
    logits, the (C,) weight per class where there is one, and the constants it was used with. ``scores``: NLL and
    Brier score of every image, (N,) each, of methods that are not a factor."""

    confidence: Tensor
    prediction: Tensor
    factor: Tensor | None = None
    class_weight: Tensor | None = None
    source: tuple[Tensor, Tensor] | None = None  # image and text features, where they are not the tuned ones
    settings: dict[str, float] = field(default_factory=dict)
    observed: dict[str, float] = field(default_factory=dict)  # of these images, so that shards differ in it
    scores: dict[str, Tensor] | None = None


# images of the classes fitted on, and the (N,) proximity of each to the base images (None: it cannot be had)
Apply = Callable[[FeatureSet, Tensor | None], Calibrated]
Fit = Callable[[ClassSet, FeatureSet | None], Apply]


def uncalibrated(classes: ClassSet, base: FeatureSet | None) -> Apply:
    def apply(features: FeatureSet, near: Tensor | None) -> Calibrated:
        return Calibrated(
            *ops.similarity_confidence(features.image_features, classes.text_features, classes.logit_scale)
        )

    return apply


def zero_shot(classes: ClassSet, base: FeatureSet | None) -> Apply:
    """The model before tuning, for comparison: its predictions are its own."""
    texts = _zeroshot_texts(classes)

    def apply(features: FeatureSet, near: Tensor | None) -> Calibrated:
        source = features.zeroshot_images, texts
        return Calibrated(*ops.similarity_confidence(*source, classes.logit_scale), source=source)

    return apply


def distance_aware(classes: ClassSet, base: FeatureSet | None) -> Apply:
    dac = _fitted_distance(classes, base)
    return _class_weighted(classes, dac.class_weight, {"k": dac.k})


def contrast_aware(classes: ClassSet, base: FeatureSet | None) -> Apply:
    return _contrast_aware(classes, ContrastAwareCalibration())


def contrast_aware_fitted(classes: ClassSet, base: FeatureSet | None) -> Apply:
    base = _labelled(base, "alpha and k are ")
    texts = _zeroshot_texts(base.classes, "of the base file")
    logits = _logits(base.image_features, base.text_features, base.logit_scale)
    zeroshot_logits = _logits(base.zeroshot_images, texts, base.logit_scale)
    return _contrast_aware(
        classes,
        ContrastAwareCalibration().fit(
            logits, zeroshot_logits=zeroshot_logits, labels=base.labels, logit_scale=base.logit_scale
        ),
    )


def _contrast_aware(classes: ClassSet, cac: ContrastAwareCalibration) -> Apply:
    texts = _zeroshot_texts(classes)
    constants = {name: float(getattr(cac, name)) for name in ("alpha", "k", "lambda1", "lambda2")}

    def apply(features: FeatureSet, near: Tensor | None) -> Calibrated:
        tuned = features.image_features, classes.text_features
        others = dict(zeroshot_image_features=features.zeroshot_images, zeroshot_text_features=texts)
        confidence, prediction = cac.predict_features(*tuned, **others, logit_scale=classes.logit_scale)
        z = ops.contrast_distance(*tuned, **others, on=cac.on, logit_scale=classes.logit_scale)
        factor = reference.weight_of_distance(z, cac.alpha, cac.k, cac.lambda1, cac.lambda2)
        observed = {"median_z": float(z.median())}
        return Calibrated(confidence, prediction, factor, settings=constants, observed=observed)

    return apply


def temperature(classes: ClassSet, base: FeatureSet | None) -> Apply:
    ts = _fitted_temperature(base)
    weight = ts.feature_weights(classes.text_features, classes.text_features)[0]
    return _class_weighted(classes, weight, {"temperature": float(ts.temperature)})


def temperature_and_distance(classes: ClassSet, base: FeatureSet | None) -> Apply:
    """Both factors; each is fitted without the other, and on base classes DAC's is 1."""
    ts, dac = _fitted_temperature(base), _fitted_distance(classes, base)
    weight = Chain(ts, dac).feature_weights(classes.text_features, classes.text_features)[0]
    return _class_weighted(classes, weight, {"temperature": float(ts.temperature), "k": dac.k})


def density_ratio(classes: ClassSet, base: FeatureSet | None) -> Apply:
    """Confidences are those of the model's own predictions, as published, even where another class comes out on top."""
    base = _labelled(base)
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


def _fitted_temperature(base: FeatureSet | None) -> TemperatureScaling:
    base = _labelled(base)
    return TemperatureScaling().fit(_logits(base.image_features, base.text_features, base.logit_scale), base.labels)


def _fitted_distance(classes: ClassSet, base: FeatureSet | None) -> DistanceAwareCalibration:
    banks = {}
    if base is not None:
        banks = dict(base_tuned=base.text_features, base_zeroshot=_zeroshot_texts(base.classes, "of the base file"))
    return DistanceAwareCalibration().fit(tuned=classes.text_features, zeroshot=_zeroshot_texts(classes), **banks)


def _class_weighted(classes: ClassSet, weight: Tensor, settings: dict[str, float]) -> Apply:
    def apply(features: FeatureSet, near: Tensor | None) -> Calibrated:
        inputs = features.image_features, classes.text_features, classes.logit_scale
        confidence, prediction = ops.similarity_confidence(*inputs, class_weight=weight)
        return Calibrated(confidence, prediction, weight[prediction], weight, settings=settings)

    return apply


def _probability_map(
    calibrator: ProbabilityMap | BinMeanShift,
    classes: ClassSet,
    base: FeatureSet | None,
    settings: dict[str, float] | None = None,
) -> Apply:
    base = _labelled(base)
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


def _labelled(base: FeatureSet | None, what: str = "") -> FeatureSet:
    if base is None:
        raise NotApplicable(f"{what}fitted on labelled base classes: give a base file")
    return base


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
    return _logits(features.image_features[rows], classes.text_features, classes.logit_scale).double().softmax(-1)


METHODS: dict[str, Fit] = {
    "zero-shot": zero_shot,
    "conf": uncalibrated,
    "ts": temperature,
    "den": density_ratio,
    "hb": histogram_binning,
    "ir": isotonic_regression,
    "mir": multi_isotonic_regression,
    "bms-mir": bin_mean_shift,
    "dac": distance_aware,
    "ts+dac": temperature_and_distance,
    "cac": contrast_aware,
    "cac-fit": contrast_aware_fitted,
}
DEFAULT_METHODS = ("conf", "dac", "cac", "cac-fit")


def check_methods(methods: Iterable[str]) -> tuple[str, ...]:
    """The methods, each once, in the order given, ``all`` standing for all there are; ValueError at an unknown name or
    none at all."""
    named = [name for method in methods for name in (METHODS if method == "all" else (method,))]
    chosen = tuple(dict.fromkeys(named))
    for method in chosen:
        if method not in METHODS:
            raise ValueError(f"methods must be among all, {', '.join(METHODS)}, got {method!r}")
    if not chosen:
        raise ValueError(f"methods must name at least one of {', '.join(METHODS)}")
    return chosen


def image_proximity(features: FeatureSet, base: FeatureSet | None) -> Tensor | None:
    bank, own = (features, True) if base is None else (base, False)
    if len(bank.image_features) - own < PROXIMITY_NEIGHBOURS:
        return None
    return proximity(features.image_features, bank.image_features, PROXIMITY_NEIGHBOURS, exclude_self=own)


def _zeroshot_texts(classes: ClassSet, of: str = "of these classes") -> Tensor:
    if classes.zeroshot_text_features is None:
        raise NotApplicable(f"the zeroshot_text_features {of} are needed")
    return classes.zeroshot_text_features


def _logits(images: Tensor, texts: Tensor, logit_scale: float) -> Tensor:
    """(N, C); the logit bias is left out: the same for all classes, it changes no probability."""
    return logit_scale * ops.similarity(images, texts)
