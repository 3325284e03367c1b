"""Cosine similarities whose bits depend on nothing but their own two vectors."""

import torch
from torch import Tensor

from .. import reference
from ..arguments import checks
from .entry import check_result, entry, run
from .extension import fake


@entry(reference.similarity, row=("image_features",))
def similarity(image_features: Tensor, text_features: Tensor, *, normalize: bool = True) -> Tensor:
    """The cosine similarities (N, C), for what needs all of a row; ``similarity_confidence`` needs no such tensor.

    Definition: ``reference.similarity``.

    A row's bits do not depend on the other rows of its batch nor on the number of threads, unlike those of a matrix
    product in torch. On a GPU a vector that is not finite makes NaN of all its similarities.

    Args:
        image_features: (N, D) floating point, or those of one image (D,).
        text_features: (C, D), on the same device.
        normalize: divide every feature vector by its L2 norm first, or by 1e-12 where that is shorter, as
            ``torch.nn.functional.normalize`` does. Without it products must stay within float32.

    Returns:
        (N, C) float32 (float64 if the features are), (C,) of one image. Differentiable by the features.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no classes; NaN or infinity; without ``normalize``, products
            that float32 cannot hold.
    """
    features = {"image_features": image_features, "text_features": text_features}
    checks.comparable(**features)
    checks.same_device("text_features", text_features, "image_features", image_features)
    checks.all_finite(**features)

    def definition(image: Tensor, text: Tensor) -> Tensor:
        return reference.similarity(image, text, normalize=normalize)

    def kernel(image: Tensor, text: Tensor) -> Tensor:
        return torch.ops.pyfastcal.similarity(image, text, normalize)

    rows, shared = (image_features,), (text_features,)
    result = run(kernel, definition, text_features.shape[0], rows, shared, finite=False, **features)
    if not normalize:  # cosines always fit
        check_result(result, **features)
    return result


@fake("similarity")
def _(image_features, text_features, normalize):
    return image_features.new_empty(image_features.shape[0], text_features.shape[0], dtype=torch.float32)
