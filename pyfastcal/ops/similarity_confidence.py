"""Confidence and prediction straight from features."""

import torch
from torch import Tensor

from .. import reference
from ..arguments import checks, ranges
from .confidence import fake_confidence
from .entry import are_plain, check_result, entry, float32, narrowed, plain_number, run
from .extension import cpu_op, fake


def _at_once(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: float | Tensor = 100.0,
    *,
    logit_bias: float | Tensor | None = None,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    normalize: bool = True,
) -> tuple[Tensor, Tensor] | None:
    op = cpu_op("checked_similarity_confidence")
    if op is None or not are_plain(image_features, text_features, logit_bias, class_weight, sample_weight):
        return None
    if image_features.dtype is torch.float64:
        return None
    if (scale := plain_number(logit_scale)) is None:
        return None
    weights = narrowed(logit_bias), narrowed(class_weight), narrowed(sample_weight)
    return op(image_features, text_features, scale, *weights, normalize)


@entry(reference.similarity_confidence, row=("image_features",), per_row=("sample_weight",), at_once=_at_once)
def similarity_confidence(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: float | Tensor = 100.0,
    *,
    logit_bias: float | Tensor | None = None,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """``confidence`` straight from features: no (N, C) tensor of logits is made.

    Definition: ``reference.similarity_confidence``.

    A row's result does not depend on the other rows of its batch, to the bit.

    Args:
        image_features: (N, D) floating point, or those of one image (D,).
        text_features: (C, D) floating point, on the same device.
        logit_scale: within [1e-30, 1e20] (CLIP's ``logit_scale.exp()``).
        logit_bias: added to the logits before they are weighted: one number, which a softmax does not see, or one per
            class (C,), within [-1e30, 1e30].
        class_weight: (C,) the factor of each predicted class (DAC's gamma), within [1e-30, 1e30].
        sample_weight: (N,) the factor of each row (CAC's gamma), likewise; all three multiplied are in [1e-30, 1e20].
        normalize: divide every feature vector by its L2 norm first, or by 1e-12 where that is shorter, as
            ``torch.nn.functional.normalize`` does. Without it products must stay within float32.

    Returns:
        confidence (N,) float32 (float64 if the features are), differentiable by every tensor among the arguments;
        prediction (N,) int64, the first class at ties. Of one image () each.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no classes; NaN or infinity; a scale, weights or bias out of
            range; without ``normalize``, products that float32 cannot hold.
    """
    features = {"image_features": image_features, "text_features": text_features}
    checks.comparable(**features)
    checks.same_device("text_features", text_features, "image_features", image_features)
    n_classes = text_features.shape[0]
    bias = ranges.class_bias("logit_bias", logit_bias, n_classes, "image_features", image_features)
    scale, learned = ranges.learned_scale("logit_scale", logit_scale)
    ranges.weights("image_features", image_features, n_classes, class_weight, sample_weight, scale)

    def definition(image, sample_weight, text, class_weight, bias, learned):
        weights = {"class_weight": class_weight, "sample_weight": sample_weight}
        by = scale if learned is None else learned
        return reference.similarity_confidence(image, text, by, logit_bias=bias, normalize=normalize, **weights)

    def kernel(image, sample_weight, text, class_weight, bias, _):
        factors = float32(class_weight), float32(sample_weight)
        return torch.ops.pyfastcal.similarity_confidence(image, text, scale, float32(bias), *factors, normalize)

    rows, shared = (image_features, sample_weight), (text_features, class_weight, bias, learned)
    result = run(kernel, definition, n_classes, rows, shared, finite=True, **features)
    check_result(result[0], **features)
    return result


@fake("similarity_confidence")
def _(image_features, text_features, logit_scale, logit_bias, class_weight, sample_weight, normalize):
    return fake_confidence(image_features)


@fake("checked_similarity_confidence")
def _(image_features, text_features, logit_scale, logit_bias, class_weight, sample_weight, normalize):
    return fake_confidence(image_features)
