"""The range of factors and of the logits that they scale: what is accepted gives finite numbers, all else is named."""

import math

import torch
from torch import Tensor

from .. import checks

SMALLEST, LARGEST = 1e-30, 1e30  # of a factor, far from the ends of float32
_ROUNDED = 1 + 1e-6  # float32's 1e30 is a little more


def check_bounded(name: str, x: Tensor) -> Tensor:
    """Within [-1e30, 1e30], where it can be looked at."""
    if checks.values_visible(x) and x.numel():
        low, high = (float(end) for end in torch.aminmax(x.detach()))
        if not (low >= -LARGEST * _ROUNDED and high <= LARGEST * _ROUNDED):
            checks.finite(name, x)
            raise ValueError(f"{name} must lie in [{-LARGEST:g}, {LARGEST:g}], got {max(low, high, key=abs):g}")
    return x


def check_factor(name: str, x: float | Tensor) -> float:
    """A number in [1e-30, 1e30]: a factor, or a temperature."""
    return checks.number(name, x, low=SMALLEST, high=LARGEST)


def check_factors(name: str, x: Tensor) -> Tensor:
    """Likewise all entries of a tensor, where they can be looked at."""
    if checks.values_visible(x):
        wide = x.detach().double()  # half precision has no 1e30 to compare with
        outside = wide[~((wide * _ROUNDED >= SMALLEST) & (wide <= LARGEST * _ROUNDED))]
        if len(outside):
            raise ValueError(f"{name} must lie in [{SMALLEST:g}, {LARGEST:g}], got {outside[0].item():g}")
    return x


def check_logit_scale(name: str, scale: float | Tensor) -> float | Tensor:
    """A number in [1e-30, 1e30]; a tensor passes unread while torch.compile traces."""
    if isinstance(scale, Tensor) and torch.compiler.is_compiling():
        return scale
    return check_factor(name, scale)


def check_product(class_weight: Tensor | None, sample_weight: Tensor | None, logit_scale: float | Tensor) -> None:
    """The factors of a row and the logit scale, all multiplied."""
    weights = [w.detach() for w in (class_weight, sample_weight) if w is not None and w.numel()]
    if isinstance(logit_scale, Tensor) or not all(checks.values_visible(w) for w in weights):
        return
    largest = math.prod((float(w.max()) for w in weights), start=logit_scale)
    least = math.prod((float(w.min()) for w in weights), start=logit_scale)
    if not (largest <= LARGEST * _ROUNDED and least * _ROUNDED >= SMALLEST):
        got = f"{largest if largest > LARGEST else least:.3g}"
        raise ValueError(f"logit_scale times the factors must lie in [{SMALLEST:g}, {LARGEST:g}], got {got}")


def largest_of_logits(name: str, logits: Tensor) -> float | None:
    """The largest magnitude of the logits (N, C), masked ones aside, after checking them: each finite or minus
    infinity, a class of every row finite. None where values cannot be looked at."""
    checks.matrix(name, logits)
    if not checks.values_visible(logits):
        return None
    if not len(logits):
        return 0.0
    low, high = (float(x) for x in torch.aminmax(logits.detach()))  # NaN where there is one
    if math.isfinite(low) and math.isfinite(high):
        return max(-low, high)
    masked = logits.detach() == -torch.inf
    bad = int((~torch.isfinite(logits) & ~masked).sum())
    if bad:
        raise ValueError(
            f"{name} must be finite, or -inf where a class is masked, got {bad} other value{'s' if bad > 1 else ''}"
        )
    empty = int(masked.all(dim=1).sum())
    if empty:
        raise ValueError(f"{name} must have a class that is not masked in every row, got {empty} of -inf alone")
    low, high = (float(x) for x in torch.aminmax(logits.detach().masked_fill(masked, 0)))
    return max(-low, high)


def check_scaled(scaled: Tensor, logits: Tensor, largest: float | None, factor: Tensor) -> None:
    """Raise where the scaled logits left the range of their dtype, as those of half precision may."""
    limit = torch.finfo(logits.dtype).max
    if largest is None or not len(logits) or largest * float(factor.detach().max()) < 0.99 * limit:
        return
    if bool((scaled.isinf() & logits.isfinite()).any()):
        raise ValueError(
            f"logits must stay within {str(logits.dtype).removeprefix('torch.')}, up to {limit:g}, after scaling, "
            f"got {largest:g} before and factors up to {float(factor.detach().max()):g}"
        )
