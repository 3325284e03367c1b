"""Scales logits by how far they lie from zero-shot ones, in one call, where the kernels can;
``calibration.contrast_aware`` defines the same in torch operations, to the bit."""

import torch
from torch import Tensor

from .entry import are_plain
from .extension import cpu_op, fake


def scale_by_contrast(
    logits: Tensor, zeroshot_logits: Tensor, logit_scale: float, constants: tuple[Tensor | None, ...]
) -> Tensor | None:
    """``logits`` (N, C), or (C,), times ``contrast_weight`` of each row, every argmax where it was; None where there
    is no kernel, an argument is not plain or not as it should be, or there is something to warn of: the caller looks at
    it then.

    Args:
        zeroshot_logits: of the same shape.
        constants: alpha, k, lambda1 and lambda2, () float64 each.
    """
    if torch.compiler.is_compiling() or type(logit_scale) is not float or not are_plain(logits, zeroshot_logits):
        return None
    if (op := cpu_op("scale_by_contrast")) is None or logits is None or zeroshot_logits is None:
        return None
    try:
        return op(logits, zeroshot_logits, logit_scale, *constants)
    except RuntimeError:
        return None


@fake("scale_by_contrast")
def _(logits, zeroshot_logits, logit_scale, alpha, k, lambda1, lambda2):
    return torch.empty_like(logits)
