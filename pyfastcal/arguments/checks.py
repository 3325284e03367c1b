"""Argument checks, written once: each raises a one-line ValueError that names the argument, says what it got and
what it should be. The kernels and ``reference`` trust what passed here.

Checks of values (NaN, range) need the numbers themselves: they are left out while torch.compile traces, and on a
GPU, where reading a number back would stall the stream. A NaN then shows up as a NaN confidence.
"""

import math
import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # not the 8-bit kinds: they have no sums
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # these have no minimum

MOST_CELLS = 1 << 24  # bins of all groups, whose counts take 400 MB; csrc/common/shapes.h has it too
LARGEST_CONFIDENCE = 1 + 2.0**-23  # one fp32 step above 1, which a softmax may round to: it counts as 1


def describe(x: Any) -> str:
    """``a float32 tensor of shape (3, 4)``: how the messages speak of what they got, in a few words."""
    if isinstance(x, Tensor):
        kind = str(x.dtype).removeprefix("torch.")
        if x.is_nested:
            return f"a nested {kind} tensor"
        layout = "mkldnn " if x.is_mkldnn else "" if x.layout is torch.strided else f"{str(x.layout)[6:]} "
        return f"a {layout}{kind} tensor of shape {tuple(x.shape)}"
    if isinstance(x, int) and x.bit_length() > 128:
        return f"an integer of {x.bit_length()} bits"
    if isinstance(x, str):
        return repr(x if len(x) <= 60 else x[:60] + "...")
    return repr(x) if isinstance(x, (int, float, np.generic, type(None))) else f"a {type(x).__name__}"


def values_visible(x: Tensor) -> bool:
    """Whether the numbers of ``x`` can be looked at without a graph break or a device synchronisation."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def gradient_wanted(*inputs: Any) -> bool:
    """Whether autograd records what is made of ``inputs``."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)


def tensor(name: str, x: Any, ndim: int) -> Tensor:
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a torch tensor or NumPy array, got {describe(x)}")
    if x.is_nested or x.is_mkldnn or x.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got {describe(x)}")
    if not torch.compiler.is_compiling() and torch._C._functorch.is_batchedtensor(x):
        raise ValueError(f"{name} must be a whole tensor, got one batched by vmap, which pyfastcal does not support")
    if x.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension{'s' if ndim > 1 else ''}, got {describe(x)}")
    return x


def floating(name: str, x: Any, ndim: int) -> Tensor:
    if tensor(name, x, ndim).dtype not in FLOATING:
        raise ValueError(f"{name} must be floating point (float32, float16, bfloat16 or float64), got {describe(x)}")
    return x


def matrix(name: str, x: Any, *, columns: int | None = None, like: str = "", rows: bool = False) -> Tensor:
    """A floating (N, D) tensor with D >= 1; ``columns``: the D it must have, which is that of ``like``;
    ``rows``: N >= 1 too."""
    floating(name, x, 2)
    if x.shape[1] < 1 or (rows and x.shape[0] < 1):
        raise ValueError(f"{name} must not be empty, got {describe(x)}")
    if columns is not None and x.shape[1] != columns:
        raise ValueError(f"{name} must have {columns} columns as {like} has, got {describe(x)}")
    return x


def entries(name: str, x: Any, size: int, of: str) -> Tensor:
    """A (size,) tensor, ``of`` says of what there are ``size``."""
    if tensor(name, x, 1).shape[0] != size:
        raise ValueError(f"{name} must have {size} entries, one per {of}, got {describe(x)}")
    return x


def vector(name: str, x: Any, size: int, of: str) -> Tensor:
    """A floating (size,) tensor, ``of`` says of what there are ``size``."""
    return entries(name, floating(name, x, 1), size, of)


def same_shape(name: str, x: Tensor, like: str, other: Tensor) -> None:
    if x.shape != other.shape:
        raise ValueError(f"{name} must have the shape {tuple(other.shape)} of {like}, got {describe(x)}")


def same_device(name: str, x: Tensor, like: str, other: Tensor) -> None:
    if x.device != other.device:
        raise ValueError(f"{name} must be on {other.device} as {like} is, got {x.device}")


def same_rows(name: str, x: Tensor, like: str, other: Tensor) -> None:
    if x.shape[0] != other.shape[0]:
        raise ValueError(f"{name} must have the {other.shape[0]} rows of {like}, got {describe(x)}")


def same_devices(like: str, other: Tensor, **named: Tensor | None) -> None:
    for name, x in named.items():
        if x is not None:
            same_device(name, x, like, other)


def comparable(**features: Any) -> None:
    """Two by name: floating (N, D), and (M, D) with M >= 1 to compare them with."""
    (like, x), (name, bank) = features.items()
    matrix(like, x)
    matrix(name, bank, columns=x.shape[1], like=like, rows=True)


def finite(name: str, x: Tensor) -> None:
    if not values_visible(x) or math.isfinite(x.detach().sum()):  # a finite sum has finite terms, and is cheaper
        return
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite value{'s' if bad > 1 else ''}")


def all_finite(**named: Tensor) -> None:
    for name, x in named.items():
        finite(name, x)


def positive(name: str, x: Tensor) -> None:
    """Finite and greater than zero: what keeps a logit-scaling factor from changing a prediction."""
    if not values_visible(x):
        return
    x = x.detach()
    good = (x > 0) & torch.isfinite(x)
    if not bool(good.all()):
        raise ValueError(f"{name} must be finite and greater than 0, got {x[~good][0].item()}")


def unit_interval(name: str, x: Tensor) -> None:
    """Numbers in [0, 1]; one fp32 step above 1 passes."""
    good = (x >= 0) & (x <= LARGEST_CONFIDENCE) if values_visible(x) else None
    if good is not None and not bool(good.all()):
        raise ValueError(f"{name} must lie in [0, 1], got {x[~good][0].item()}")


def probabilities(name: str, x: Any, *, rows: bool = False, rows_sum_to_one: bool = True) -> Tensor:
    """A floating (N, C) tensor in [0, 1] with C >= 1, ``rows``: N >= 1 too. Sums may be off by the rounding of half
    precision."""
    matrix(name, x, rows=rows)
    unit_interval(name, x)
    if rows_sum_to_one and values_visible(x) and x.shape[0]:
        sums = x.sum(dim=1, dtype=torch.float64)
        worst = sums[(sums - 1).abs().argmax()].item()
        if abs(worst - 1) > 0.01:
            raise ValueError(f"{name} must have rows that sum to 1, got a sum of {worst:.4g}")
    return x


def integers(name: str, x: Any, size: int, of: str = "row") -> Tensor:
    """An integer (size,) tensor."""
    tensor(name, x, 1)
    if x.dtype.is_floating_point or x.dtype.is_complex or x.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got {describe(x)}")
    entries(name, x, size, of)
    return x.long() if x.dtype in _UNSIGNED else x


def labels(name: str, x: Any, size: int, n_classes: int | None, of: str = "row") -> Tensor:
    """An integer (size,) tensor with values in [0, n_classes); None: not negative, of however many classes."""
    x = integers(name, x, size, of)
    if values_visible(x) and size:
        low, high = int(x.min()), 0 if n_classes is None else int(x.max())
        if low < 0 or (n_classes is not None and high >= n_classes):
            allowed = "not be negative" if n_classes is None else f"lie in [0, {n_classes})"
            raise ValueError(f"{name} must {allowed}, got {low if low < 0 else high}")
    return x


def correctness(name: str, x: Any, size: int) -> Tensor:
    """A (size,) tensor of booleans, or of zeros and ones; returned as booleans."""
    entries(name, x, size, "confidence")
    if x.dtype == torch.bool:
        return x
    if values_visible(x) and not bool(((x == 0) | (x == 1)).all()):
        raise ValueError(f"{name} must be booleans, or zeros and ones, got {x[(x != 0) & (x != 1)][0].item()}")
    return x != 0


def not_empty(name: str, x: Tensor) -> None:
    if x.shape[0] == 0:
        raise ValueError(f"{name} must not be empty, got {describe(x)}")


def integer(name: str, x: Any, low: int, high: int | None = None, why: str = "") -> int:
    """An int in [low, high]; ``why`` says where ``high`` comes from."""
    value = x
    if not isinstance(x, (int, torch.SymInt)) and hasattr(x, "__index__") and not isinstance(x, (Tensor, np.ndarray)):
        value = operator.index(x)  # NumPy's
    if isinstance(x, (bool, np.bool_)) or not isinstance(value, (int, torch.SymInt)):
        value = None
    if value is None or value < low or (high is not None and value > high):
        upper = "" if high is None else f" and at most {high}{f' ({why})' if why else ''}"
        raise ValueError(f"{name} must be an integer of at least {low}{upper}, got {describe(x)}")
    return value


def edges(name: str, x: Any) -> Tensor:
    """The edges of at least one bin, (B + 1,) ascending, as float32."""
    x = floating(name, x, 1).detach().float()
    if x.shape[0] < 2:
        raise ValueError(f"{name} must have at least 2 entries, got {describe(x)}")
    finite(name, x)
    if values_visible(x) and bool((x.diff() < 0).any()):
        raise ValueError(f"{name} must be in ascending order, got descending ones")
    return x


def cells(n_bins: Any, n_groups: Any = 1, *, groups_name: str = "n_groups") -> tuple[int, int]:
    """``n_bins`` and ``n_groups``, at least 1 each and together no more than can be counted."""
    n_bins = integer("n_bins", n_bins, 1, MOST_CELLS)
    why = f"with {n_bins} bins in each" if n_bins > 1 else ""
    return n_bins, integer(groups_name, n_groups, 1, MOST_CELLS // n_bins, why)


def number(name: str, x: Any, *, low: float = -math.inf, high: float = math.inf, strict: bool = False) -> float:
    """A finite real number in [low, high] (``strict``: greater than low); 0-d tensors are read."""
    if isinstance(x, Tensor) and x.ndim == 0 and not torch.compiler.is_compiling():
        x = x.item()
    try:
        value = float(x)
    except (TypeError, ValueError, RuntimeError):  # torch's, for a tensor of more than one
        raise ValueError(f"{name} must be a number, got {describe(x)}") from None
    except OverflowError:
        raise ValueError(f"{name} must be a finite number, got {describe(x)}") from None
    # comparisons only: torch.compile traces them, and they are false for NaN
    if not (-math.inf < value < math.inf and (value > low if strict else value >= low) and value <= high):
        bound = f"greater than {low}" if strict else f"at least {low}" if low > -math.inf else "finite"
        bound += f"{',' if strict else ' and'} at most {high:g}" if high < math.inf else ""
        raise ValueError(f"{name} must be a finite number{'' if bound == 'finite' else ', ' + bound}, got {value}")
    return value


def choice(name: str, x: Any, options: tuple) -> Any:
    if x not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {describe(x)}")
    return x
