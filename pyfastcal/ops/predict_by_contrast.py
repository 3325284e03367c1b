"""Confidences from the features of two models, weighted by how far these lie apart, in one call, where the kernels can;
``calibration.contrast_aware`` defines the same in three steps, to the bit."""

import torch
from torch import Tensor

from .confidence import fake_confidence
from .entry import are_plain, narrowed, plain_number
from .extension import cpu_op, fake


def predict_by_contrast(
    features: tuple[Tensor, ...],
    logit_scale: float | Tensor,
    logit_bias: Tensor | None,
    constants: tuple[Tensor | None, ...],
    *,
    on: str,
    normalize: bool,
) -> tuple[Tensor, Tensor] | None:
    """``similarity_confidence`` with CAC's weight of each ``contrast_distance``; None where there is no kernel, an
    argument is not plain or not as it should be, or there is something to warn of: the caller looks at it then.

    Args:
        features: image (N, D), or (D,), and text (C, D) of the tuned model, then of the zero-shot one.
        constants: alpha, k, lambda1 and lambda2, () float64 each.
    """
    if torch.compiler.is_compiling() or any(x is None for x in features):
        return None
    if (op := cpu_op("predict_by_contrast")) is None or not are_plain(*features, logit_bias):
        return None
    if (scale := plain_number(logit_scale)) is None:
        return None
    try:
        return op(*features, scale, narrowed(logit_bias), on == "probability", normalize, *constants)
    except RuntimeError:
        return None


@fake("predict_by_contrast")
def _(
    image_features,
    text_features,
    zeroshot_image_features,
    zeroshot_text_features,
    logit_scale,
    logit_bias,
    probability,
    normalize,
    alpha,
    k,
    lambda1,
    lambda2,
):
    return fake_confidence(image_features)
