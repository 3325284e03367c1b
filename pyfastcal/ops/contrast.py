"""CAC's contrast distance, straight from the features of two models."""

import torch
from torch import Tensor

from .. import reference
from ..arguments import checks, ranges
from .entry import check_result, entry, run
from .extension import fake


@entry(reference.contrast_distance, row=("image_features", "zeroshot_image_features"))
def contrast_distance(
    image_features: Tensor,
    text_features: Tensor,
    zeroshot_image_features: Tensor,
    zeroshot_text_features: Tensor,
    *,
    on: str = "similarity",
    logit_scale: float | Tensor = 100.0,
    normalize: bool = True,
) -> Tensor:
    """CAC's z: how far each row of the tuned CLIP lies from that of the zero-shot CLIP. No (N, C) tensor is made.

    Definition: ``reference.contrast_distance``.

    Args:
        image_features, text_features: (N, D), (C, D) floating point, of the tuned CLIP; of one image (D,).
        zeroshot_image_features, zeroshot_text_features: (N, D0), (C, D0), of the original CLIP; of one image (D0,).
        on: ``"similarity"`` or ``"probability"``.
        logit_scale: within [1e-30, 1e20]; only probabilities depend on it.
        normalize: divide every feature vector by its L2 norm first, or by 1e-12 where that is shorter, as
            ``torch.nn.functional.normalize`` does. Without it products must stay within float32.

    Returns:
        z (N,) float32 (float64 if the features are), () of one image. Differentiable by the features and the scale.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no classes; NaN or infinity; another ``on``; without
            ``normalize``, products that float32 cannot hold.
    """
    tuned = {"image_features": image_features, "text_features": text_features}
    zeroshot = {"zeroshot_image_features": zeroshot_image_features, "zeroshot_text_features": zeroshot_text_features}
    checks.comparable(**tuned)
    checks.comparable(**zeroshot)
    for (like, other), (name, x) in zip(tuned.items(), zeroshot.items(), strict=True):
        checks.same_rows(name, x, like, other)
        checks.same_device(name, x, like, other)
    checks.choice("on", on, ("similarity", "probability"))
    scale, learned = ranges.learned_scale("logit_scale", logit_scale)

    def definition(image, image0, text, text0, learned):
        by = scale if learned is None else learned
        return reference.contrast_distance(image, text, image0, text0, on=on, logit_scale=by, normalize=normalize)

    def kernel(image, image0, text, text0, _):
        return torch.ops.pyfastcal.contrast_distance(image, text, image0, text0, on == "probability", scale, normalize)

    rows, shared = (image_features, zeroshot_image_features), (text_features, zeroshot_text_features, learned)
    z = run(kernel, definition, text_features.shape[0], rows, shared, finite=True, **tuned, **zeroshot)
    check_result(z, **tuned, **zeroshot)
    return z


@fake("contrast_distance")
def _(
    image_features, text_features, zeroshot_image_features, zeroshot_text_features, probability, logit_scale, normalize
):
    return image_features.new_empty(image_features.shape[0], dtype=torch.float32)
