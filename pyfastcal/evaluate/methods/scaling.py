"""Methods that scale logits by a factor per row: none, temperature, DAC, CAC."""

from torch import Tensor

from ... import ops, reference
from ...calibration import Chain, ContrastAwareCalibration, DistanceAwareCalibration, TemperatureScaling
from ...io.features import ClassSet, FeatureSet
from .method import Apply, Calibrated, labelled, logits_of, zeroshot_texts


def uncalibrated(classes: ClassSet, base: FeatureSet | None) -> Apply:
    def apply(features: FeatureSet, near: Tensor | None) -> Calibrated:
        return Calibrated(
            *ops.similarity_confidence(features.image_features, classes.text_features, classes.logit_scale)
        )

    return apply


def zero_shot(classes: ClassSet, base: FeatureSet | None) -> Apply:
    """The model before tuning, for comparison: its predictions are its own."""
    texts = zeroshot_texts(classes)

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
    base = labelled(base, "alpha and k are ")
    texts = zeroshot_texts(base.classes, "of the base file")
    logits = logits_of(base.image_features, base.text_features, base.logit_scale)
    zeroshot_logits = logits_of(base.zeroshot_images, texts, base.logit_scale)
    return _contrast_aware(
        classes,
        ContrastAwareCalibration().fit(
            logits, zeroshot_logits=zeroshot_logits, labels=base.labels, logit_scale=base.logit_scale
        ),
    )


def temperature(classes: ClassSet, base: FeatureSet | None) -> Apply:
    ts = _fitted_temperature(base)
    weight = ts.feature_weights(classes.text_features, classes.text_features)[0]
    return _class_weighted(classes, weight, {"temperature": float(ts.temperature)})


def temperature_and_distance(classes: ClassSet, base: FeatureSet | None) -> Apply:
    """Both factors; each is fitted without the other, and on base classes DAC's is 1."""
    ts, dac = _fitted_temperature(base), _fitted_distance(classes, base)
    weight = Chain(ts, dac).feature_weights(classes.text_features, classes.text_features)[0]
    return _class_weighted(classes, weight, {"temperature": float(ts.temperature), "k": dac.k})


def _contrast_aware(classes: ClassSet, cac: ContrastAwareCalibration) -> Apply:
    texts = zeroshot_texts(classes)
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


def _fitted_temperature(base: FeatureSet | None) -> TemperatureScaling:
    base = labelled(base)
    return TemperatureScaling().fit(logits_of(base.image_features, base.text_features, base.logit_scale), base.labels)


def _fitted_distance(classes: ClassSet, base: FeatureSet | None) -> DistanceAwareCalibration:
    banks = {}
    if base is not None:
        banks = dict(base_tuned=base.text_features, base_zeroshot=zeroshot_texts(base.classes, "of the base file"))
    return DistanceAwareCalibration().fit(tuned=classes.text_features, zeroshot=zeroshot_texts(classes), **banks)


def _class_weighted(classes: ClassSet, weight: Tensor, settings: dict[str, float]) -> Apply:
    def apply(features: FeatureSet, near: Tensor | None) -> Calibrated:
        inputs = features.image_features, classes.text_features, classes.logit_scale
        confidence, prediction = ops.similarity_confidence(*inputs, class_weight=weight)
        return Calibrated(confidence, prediction, weight[prediction], weight, settings=settings)

    return apply
