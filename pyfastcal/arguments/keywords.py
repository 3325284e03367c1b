"""Arguments that a caller should give by name, since a swap of them goes unnoticed: one decorator."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def by_name(first: str) -> Callable[[F], F]:
    """From the parameter ``first`` on, arguments should be given by name: tuned and zero-shot scores have the same
    shape and dtype, so that swapped ones give wrong numbers that look like right ones.

    Positional ones give what they always gave, and a FutureWarning: that is the kind which Python shows to those who
    run a program too; a DeprecationWarning stays hidden where a library of theirs makes the call. Nothing is warned of
    while torch.compile or torch.export trace. For calls that fit and for what no prediction shows; ``forward`` and
    ``predict_features`` never change a prediction, so that there a swap can be seen.
    """

    def decorate(function: F) -> F:
        names = list(inspect.signature(function).parameters)
        positional = names.index(first)
        where = function.__qualname__

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if len(args) > positional and not torch.compiler.is_compiling():
                given = names[positional : len(args)]
                warnings.warn(
                    f"{where} takes {', '.join(given)} by name ({given[0]}=...): swapped, they would give wrong "
                    "numbers and no error; a later version will refuse them by position",
                    FutureWarning,
                    stacklevel=2,
                )
            return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate
