"""NLL and the Brier score of every image, from features."""

import torch
from torch import Tensor

from .. import ops
from ..io.features import FeatureSet
from ..reference.common import working
from .methods import Calibrated

CHUNK = 1 << 14  # entries of features compared at a time: they stay in cache, and are too few to be split over threads


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
