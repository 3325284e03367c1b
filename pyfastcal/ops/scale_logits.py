"""Scales logits in one call, where the kernels can; ``calibration.logit_scaling`` does the same in torch operations, to
the bit."""

import torch
from torch import Tensor
from torch.compiler import is_compiling

from .entry import are_plain, innermost_transform, narrowed
from .extension import cpu_op, fake


def scale_logits(
    logits: Tensor, *, class_weight: Tensor | None = None, sample_weight: Tensor | None = None
) -> Tensor | None:
    """``logits`` (N, C), or (C,), times the factor of each row, every argmax where it was; None where there is no
    kernel, or an argument is not plain or not as it should be: the caller looks at it then.

    The factor is one of ``class_weight`` (C,) at the argmax and ``sample_weight`` (N,), both rounded to float32.
    """
    if is_compiling() or not are_plain(logits, class_weight, sample_weight):
        return None
    if (op := cpu_op("scale_logits")) is None or logits is None or logits.dtype is torch.float64:
        return None
    try:
        return op(logits, narrowed(class_weight), narrowed(sample_weight))
    except RuntimeError:
        return None


def divide_logits(logits: Tensor, temperature: Tensor | None) -> Tensor | None:
    """The same of one factor for all rows, ``1 / temperature``: () float64. What it competes with is a single division:
    its checks are ``are_plain`` by hand; of what is not float32 or narrower, and of None, it is the op that says no."""
    if is_compiling() or type(logits) is not Tensor or not logits.is_cpu or innermost_transform() is not None:
        return None
    try:
        if (logits.requires_grad or temperature.requires_grad) and not are_plain(logits, temperature):
            return None
        return cpu_op("divide_logits")(logits, temperature)
    except (AttributeError, RuntimeError, TypeError):
        return None


@fake("scale_logits")
def _(logits, class_weight, sample_weight):
    return torch.empty_like(logits)


@fake("divide_logits")
def _(logits, temperature):
    return torch.empty_like(logits)
