"""What the logit-scaling calibrators share: one positive factor per row in, the same predictions out."""

import torch
from torch import Tensor, nn

from .. import checks


class LogitScaling(nn.Module):
    """Base of the calibrators that multiply each row of logits by one positive factor.

    A subclass says in ``factor`` what the factor (N,) of each row is. Such a calibrator never changes a
    prediction, and a sequence of them is the product of their factors.
    """

    def factor(self, logits: Tensor, *inputs: Tensor | float) -> Tensor:
        """The factor (N,) of each row of ``logits`` (N, C)."""
        raise NotImplementedError


def scale_logits(logits: Tensor, factor: Tensor) -> Tensor:
    """``factor[i] * logits[i]``, in the dtype of ``logits``, with every row's argmax where it was.

    Rounding can make two close logits equal, and argmax would then take the first of them. The prediction is
    lifted by a unit in the last place where that happens.
    """
    prediction = logits.argmax(dim=1, keepdim=True)
    precision = torch.promote_types(logits.dtype, factor.dtype)
    scaled = (logits.to(precision) * factor[:, None].to(precision)).to(logits.dtype)
    top = scaled.gather(1, prediction)
    lifted = top + top.abs() * torch.finfo(logits.dtype).eps
    kept = scaled.argmax(dim=1, keepdim=True) == prediction
    return scaled.scatter(1, prediction, torch.where(kept, top, lifted))


def check_logits(name: str, logits: Tensor) -> Tensor:
    checks.matrix(name, logits)
    checks.finite(name, logits)
    return logits


def check_scale(name: str, scale: float | Tensor) -> float | Tensor:
    """A finite positive number; a tensor passes unread while torch.compile traces."""
    if isinstance(scale, Tensor) and torch.compiler.is_compiling():
        return scale
    return checks.number(name, scale, low=0.0, strict=True)
