"""What the papers' ablations vary: the constants of CAC, and what a weight is normalised by."""

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .. import metrics, ops, reference
from ..calibration import ContrastAwareCalibration, DistanceAwareCalibration
from ..calibration.proximity import proximity
from ..io.features import FeatureSet

PUBLISHED = {name: float(getattr(ContrastAwareCalibration(), name)) for name in ("alpha", "k", "lambda1", "lambda2")}
CONSTANTS = {  # one at a time, the others as published
    "k": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    "alpha": (1.0, 1.05, 1.1, 1.15, 1.2),
    "lambda1": (0.8, 0.85, 0.9, 0.95),
    "lambda2": (0.95, 1.0, 1.05, 1.1),
}
# What DAC's and CAC's weights are: as published first.
NORMALISATIONS = {
    "dac ratio": "tuned over zero-shot proximity, as published",
    "dac tuned": "tuned proximity alone",
    "cac similarity": "z of cosine similarities, as published",
    "cac probability": "z of softmax probabilities",
    "cac logit": "z of logits over 100, CLIP's scale, which the constants are for",
}
CLIP_SCALE = 100.0


def rows(features: FeatureSet, base: FeatureSet, n_bins: int) -> Iterator[dict[str, Any]]:
    """``ablation`` ("k", ..., "normalisation"), ``value``, ``ece`` and ``median_weight``."""
    z = {on: _distance(features, on) for on in ("similarity", "probability")}
    for name, values in CONSTANTS.items():
        for value in values:
            yield _row(name, value, features, n_bins, sample=_weight(z["similarity"], {name: value}))
    yield from _normalised(features, base, n_bins, z)


def _normalised(features: FeatureSet, base: FeatureSet, n_bins: int, z: dict[str, Tensor]) -> Iterator[dict[str, Any]]:
    dac = DistanceAwareCalibration()
    texts, bank = features.text_features, base.text_features
    if len(bank) >= dac.k:
        zeroshot = dict(zeroshot=features.zeroshot_text_features, base_zeroshot=base.zeroshot_text_features)
        ratio = dac.fit(tuned=texts, base_tuned=bank, **zeroshot).class_weight
        tuned = proximity(texts, bank, dac.k).where(ratio != 1, 1.0)  # base classes are left alone all the same
        yield _row("normalisation", "dac ratio", features, n_bins, per_class=ratio)
        yield _row("normalisation", "dac tuned", features, n_bins, per_class=tuned)
    yield _row("normalisation", "cac similarity", features, n_bins, sample=_weight(z["similarity"]))
    yield _row("normalisation", "cac probability", features, n_bins, sample=_weight(z["probability"]))
    logit = z["similarity"] * (features.logit_scale / CLIP_SCALE)
    yield _row("normalisation", "cac logit", features, n_bins, sample=_weight(logit))


def _distance(features: FeatureSet, on: str) -> Tensor:
    return ops.contrast_distance(
        features.image_features,
        features.text_features,
        zeroshot_image_features=features.zeroshot_images,
        zeroshot_text_features=features.zeroshot_text_features,
        on=on,
        logit_scale=features.logit_scale,
    )


def _weight(z: Tensor, constants: dict[str, float] | None = None) -> Tensor:
    return reference.weight_of_distance(z, **(PUBLISHED | (constants or {})))


def _row(
    ablation: str,
    value: float | str,
    features: FeatureSet,
    n_bins: int,
    *,
    per_class: Tensor | None = None,
    sample: Tensor | None = None,
) -> dict[str, Any]:
    inputs = features.image_features, features.text_features, features.logit_scale
    confidence, prediction = ops.similarity_confidence(*inputs, class_weight=per_class, sample_weight=sample)
    weight = per_class[prediction] if per_class is not None else sample
    ece = float(metrics.expected_calibration_error(confidence, prediction == features.labels, n_bins))
    row = {"ablation": ablation, "value": value, "ece": ece if math.isfinite(ece) else None}
    return row | {"median_weight": float(weight.median())}
