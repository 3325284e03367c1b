"""NumPy in, NumPy out: one decorator for every public function and ``fit``/``forward``."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

F = TypeVar("F", bound=Callable[..., Any])


def to_tensor(value: Any) -> Any:
    """A NumPy array as a tensor, copied only where it must be; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    if not (value.flags.writeable and value.dtype.isnative and all(s >= 0 for s in value.strides)):
        value = value.astype(value.dtype.newbyteorder("="), order="C", copy=True)
    return torch.from_numpy(value)


def _to_numpy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, tuple):
        items = [_to_numpy(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, dict):
        return {key: _to_numpy(item) for key, item in value.items()}
    return value


def accepts_numpy(function: F) -> F:
    """Let ``function`` take NumPy arrays: they enter as tensors (no copy where none is needed), and if any
    argument was an array, every tensor of the result comes back as an array. Other calls pass untouched."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(a, np.ndarray) for a in (*args, *kwargs.values())):
            return function(*args, **kwargs)
        args = tuple(to_tensor(a) for a in args)
        return _to_numpy(function(*args, **{k: to_tensor(v) for k, v in kwargs.items()}))

    return wrapper  # type: ignore[return-value]
