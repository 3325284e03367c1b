"""NumPy in, NumPy out: one decorator for every public function and ``fit``/``forward``."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch

F = TypeVar("F", bound=Callable[..., Any])


def to_tensor(value: Any, name: str = "the array") -> Any:
    """A NumPy array as a tensor, copied only where it must be; anything else as it is.

    Raises:
        ValueError: an array of something else than plain numbers, or one that is masked: ``name`` is in the message.
    """
    if not isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise ValueError(f"{name} must have no masked entries, got a masked array with {np.ma.count_masked(value)}")
        value = value.data
    strides = all(s >= 0 and s % value.itemsize == 0 for s in value.strides) if value.itemsize else True
    if not (value.flags.writeable and value.dtype.isnative and strides) and not value.dtype.hasobject:
        value = value.astype(value.dtype.newbyteorder("="), order="C", copy=True)
    try:
        return torch.from_numpy(value)
    except TypeError:
        raise ValueError(f"{name} must be an array of numbers that torch has, got dtype {value.dtype}") from None


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

    parameters = tuple(inspect.signature(function).parameters)

    def names() -> Iterator[str]:  # of the positional arguments
        return itertools.chain(parameters, itertools.repeat("an argument"))

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()) if kwargs else args:  # a loop: any() of a generator would take longer
            if isinstance(value, np.ndarray):
                return converted(*args, **kwargs)
        return function(*args, **kwargs)

    def converted(*args: Any, **kwargs: Any) -> Any:
        args = tuple(to_tensor(a, name) for a, name in zip(args, names(), strict=False))
        return _to_numpy(function(*args, **{k: to_tensor(v, k) for k, v in kwargs.items()}))

    return wrapper  # type: ignore[return-value]
