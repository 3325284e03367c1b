"""The ranges of factors and of the logits that they scale: what is accepted gives finite numbers, all else is named."""

import math

import torch
from torch import Tensor

from . import checks

# Of a factor (a class's, a row's), and of a product of factors.
SMALLEST, LARGEST = 1e-30, 1e30
# Of a logit scale, and of its product with factors: the kernels multiply in fp32 by the inverse length of a row too,
# which is up to 1e12, and by a power of 2 near 1e5.
LARGEST_SCALE = 1e20
_ROUNDED = 1 + 1e-6  # float32's 1e30 is a little more


def bounded(name: str, x: Tensor) -> Tensor:
    """Within [-1e30, 1e30], where it can be looked at."""
    if checks.values_visible(x) and x.numel():
        low, high = _ends(x)
        if not (low >= -LARGEST * _ROUNDED and high <= LARGEST * _ROUNDED):
            checks.finite(name, x)
            raise ValueError(f"{name} must lie in [{-LARGEST:g}, {LARGEST:g}], got {max(low, high, key=abs):g}")
    return x


def factor(name: str, x: float | Tensor, most: float = LARGEST) -> float:
    """A number in [1e-30, 1e30]: a factor, or a temperature."""
    if type(x) is float and SMALLEST <= x <= most:
        return x
    return checks.number(name, checks.number(name, x, low=0, strict=True), low=SMALLEST, high=most)


def factors(name: str, x: Tensor, least: float = SMALLEST, most: float = LARGEST) -> Tensor:
    """Likewise all entries of a tensor, where they can be looked at."""
    _factor_ends(name, x, least, most)
    return x


def _factor_ends(name: str, x: Tensor, least: float = SMALLEST, most: float = LARGEST) -> tuple[float, float] | None:
    """The least and the largest of factors, checked; None where they cannot be looked at, or there are none."""
    if not checks.values_visible(x) or not x.numel():
        return None
    low, high = _ends(x)
    if not (low * _ROUNDED >= least and high <= most * _ROUNDED):
        checks.positive(name, x)
        raise ValueError(f"{name} must lie in [{least:g}, {most:g}], got {high if high > most else low:g}")
    return low, high


def scale(name: str, x: float | Tensor) -> float:
    """A number in [1e-30, 1e20]: a logit scale."""
    return factor(name, x, LARGEST_SCALE)


def logit_scale(name: str, x: float | Tensor) -> float | Tensor:
    """Likewise; a tensor passes unread while torch.compile traces, and stays one where its gradient is wanted."""
    if isinstance(x, Tensor) and torch.compiler.is_compiling():
        return x
    value, learned = learned_scale(name, x)
    return value if learned is None else learned


def learned_scale(name: str, x: float | Tensor) -> tuple[float, Tensor | None]:
    """The number, read, and the tensor itself where its gradient is wanted."""
    return scale(name, x), x if isinstance(x, Tensor) and checks.gradient_wanted(x) else None


def class_bias(name: str, x: float | Tensor | None, n_classes: int, like: str, other: Tensor) -> Tensor | None:
    """What is added to logits: one number per class, (C,), on the device of ``like``. One for all is nothing: a softmax
    does not see what is added to every class alike."""
    if isinstance(x, Tensor) and x.ndim == 1:
        checks.same_device(name, bounded(name, checks.vector(name, x, n_classes, "class")), like, other)
        return x
    if x is not None:
        checks.number(name, x)
    return None


def weights(
    like: str,
    rows: Tensor,
    n_classes: int,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    logit_scale: float | None = None,
) -> None:
    """Factors of logits that are, or are made of, ``rows`` (N, ...): one per class, one per row, on their device, and
    within range. So is their product with the logit scale, which was checked, as far as they can be looked at."""
    if class_weight is None and sample_weight is None:
        return
    if class_weight is not None:
        checks.vector("class_weight", class_weight, n_classes, "class")
    if sample_weight is not None:
        checks.vector("sample_weight", sample_weight, rows.shape[0], "row")
    checks.same_devices(like, rows, class_weight=class_weight, sample_weight=sample_weight)
    named = {"logit_scale": logit_scale, "class_weight": class_weight, "sample_weight": sample_weight}
    given = {name: x for name, x in named.items() if x is not None}
    most, low, high = LARGEST if logit_scale is None else LARGEST_SCALE, 1.0, 1.0
    for name, x in given.items():
        ends = _factor_ends(name, x) if isinstance(x, Tensor) else (x, x)
        if ends is not None:
            low, high = low * min(ends[0], 1.0), high * max(ends[1], 1.0)
    if not (low * _ROUNDED >= SMALLEST and high <= most * _ROUNDED):
        got = high if high > most else low
        raise ValueError(f"{' times '.join(given)} must lie in [{SMALLEST:g}, {most:g}], got {got:.3g}")


def scores(name: str, logits: Tensor) -> float | None:
    """The largest magnitude of logits (N, C), masked ones aside, after checking them: each finite or minus infinity, a
    class of every row finite. None where values cannot be looked at."""
    if not checks.values_visible(logits):
        return None
    if not len(logits):
        return 0.0
    low, high = _ends(logits)
    if math.isfinite(low) and math.isfinite(high):
        return max(-low, high)
    masked = logits.detach() == -torch.inf
    bad = int((~torch.isfinite(logits) & ~masked).sum())
    if bad:
        values = "NaN or infinite value" + "s" * (bad > 1)
        raise ValueError(f"{name} must be finite, or -inf where a class is masked, got {bad} {values}")
    empty = masked.all(dim=1)
    if bool(empty.any()):
        row = int(empty.nonzero()[0])
        raise ValueError(f"{name} must have a class that is not masked in every row, got -inf alone in row {row}")
    low, high = _ends(logits.detach().masked_fill(masked, 0))
    return max(-low, high)


def scaled(scaled: Tensor, logits: Tensor, largest: float | None, factor: Tensor) -> None:
    """Raise where the scaled logits left the range of their dtype, as those of half precision may; ``largest``: what
    ``scores`` said of ``logits``."""
    limit = torch.finfo(logits.dtype).max
    if largest is None or not len(logits) or largest * float(factor.detach().max()) < 0.99 * limit:
        return
    if bool((scaled.isinf() & logits.isfinite()).any()):
        raise ValueError(
            f"logits must stay within {str(logits.dtype).removeprefix('torch.')}, up to {limit:g}, after scaling, "
            f"got {largest:g} before and factors up to {float(factor.detach().max()):g}"
        )


def _ends(x: Tensor) -> tuple[float, float]:
    """The least and the largest, NaN where there is one."""
    low, high = torch.aminmax(x.detach())
    return float(low), float(high)
