"""Scales logits in one call, where the kernels can; ``calibration.logit_scaling`` does the same in torch operations, to
the bit."""

import torch
from torch import Tensor

from .entry import are_plain, narrowed
from .extension import cpu_op, fake


def scale_logits(
    logits: Tensor,
    *,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    temperature: Tensor | None = None,
) -> Tensor | None:
    """``logits`` (N, C), or (C,), times the factor of each row, every argmax where it was; None where there is no
    kernel, or an argument is not plain or not as it should be: the caller looks at it then.

    The factor is one of ``class_weight`` (C,) at the argmax and ``sample_weight`` (N,), both rounded to float32, and
    ``1 / temperature`` () float64.
    """
    if torch.compiler.is_compiling() or not are_plain(logits, class_weight, sample_weight, temperature):
        return None
    if (op := cpu_op("scale_logits")) is None or logits is None or logits.dtype is torch.float64:
        return None
    try:
        return op(logits, narrowed(class_weight), narrowed(sample_weight), temperature)
    except RuntimeError:
        return None


@fake("scale_logits")
def _(logits, class_weight, sample_weight, temperature):
    return torch.empty_like(logits)
