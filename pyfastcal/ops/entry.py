"""What the entries of the ops share: an entry checks its arguments (``arguments``), calls :func:`run`, and looks at the
result with :func:`check_result`."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..arguments import checks
from ..arguments.arrays import accepts_numpy
from . import extension, gradients

innermost_transform = torch._C._functorch.peek_interpreter_stack  # of torch.func, vmap for one; None: none is under way

F = TypeVar("F", bound=Callable[..., Any])


def entry(
    definition: Callable, *, row: tuple[str, ...] = (), per_row: tuple[str, ...] = (), at_once: Callable | None = None
) -> Callable[[F], F]:
    """A public op: takes NumPy arrays too, says what its ``definition`` says, and takes one row for a batch of one.

    ``row``: the arguments that may be one row, all of them then; ``per_row``: those with an entry per row, of which
    there is then one. The results lose the dimension of the batch again. ``at_once``: of the same arguments, what is
    tried first (:func:`tried_first`).
    """

    def decorate(function: F) -> F:
        whole = accepts_numpy(_takes_one_row(function, row, per_row) if row else function)
        return defined_by(definition)(whole if at_once is None else tried_first(at_once)(whole))

    return decorate


def tried_first(at_once: Callable) -> Callable[[F], F]:
    """Has ``at_once``, of the same arguments, answer the calls that it can: small ones would spend most of their time
    in checks. It gives the result, and raises or gives None for all that is not plain and sound, which is then the
    function's to do or to refuse in its own words."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():
                try:
                    found = at_once(*args, **kwargs)
                except (AttributeError, RuntimeError, TypeError, ValueError):
                    found = None
                if found is not None:
                    return found
            return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate


def are_plain(*tensors: Tensor | None) -> bool:
    """Whether these, None aside, are on the CPU, torch's own kind of tensor, whole (no vmap nor another transform is
    under way), and no gradient is wanted of any."""
    if innermost_transform() is not None:
        return False
    for x in tensors:
        if x is None:
            continue
        if type(x) is not Tensor or not x.is_cpu or (x.requires_grad and torch.is_grad_enabled()):
            return False
    return True


def plain_number(x: float | Tensor) -> float | None:
    """A float, or what a plain tensor of no dimension holds; None of anything else."""
    if type(x) is float:
        return x
    return x.item() if type(x) is Tensor and are_plain(x) and x.ndim == 0 else None


def defined_by(definition: Callable) -> Callable[[F], F]:
    """Has the docstring of the ``definition`` stand, at run time, behind the line of the function's own that names it;
    and ``function.definition``."""

    def decorate(function: F) -> F:
        line = f"Definition: ``reference.{definition.__name__}``."
        if function.__doc__ and definition.__doc__:  # python -OO leaves none
            before, found, after = inspect.cleandoc(function.__doc__).partition(line)
            assert found, f"the docstring of {function.__name__} must have the line {line}"
            function.__doc__ = f"{before}{line} {inspect.cleandoc(definition.__doc__)}{after}"
        function.definition = definition  # type: ignore[attr-defined]
        return function

    return decorate


def _takes_one_row(function: F, row: tuple[str, ...], per_row: tuple[str, ...]) -> F:
    parameters = list(inspect.signature(function).parameters)
    places = [(name, parameters.index(name)) for name in row]
    batched = (*row, *per_row)
    batched_places = tuple(parameters.index(name) for name in batched)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for name, place in places:
            given = args[place] if place < len(args) else kwargs.get(name)
            if not isinstance(given, Tensor) or given.ndim != 1:
                return function(*args, **kwargs)
        args = tuple(_batch_of(x) if i in batched_places else x for i, x in enumerate(args))
        kwargs = {name: _batch_of(x) if name in batched else x for name, x in kwargs.items()}
        found = function(*args, **kwargs)
        return tuple(x[0] for x in found) if isinstance(found, tuple) else found[0]

    return wrapper  # type: ignore[return-value]


def _batch_of(x: Any) -> Any:
    return x[None] if isinstance(x, Tensor) and x.ndim < 2 else x


def float32(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float()


def narrowed(x: Tensor | None) -> Tensor | None:
    """Weights of float64 as float32, all else as it is."""
    return x.float() if x is not None and x.dtype is torch.float64 else x


def has_kernel(*tensors: Tensor) -> bool:
    """Whether kernels take these: on a device that has some, and none of them float64."""
    return all(x.dtype != torch.float64 for x in tensors) and extension.has_kernel(tensors[0].device)


def run(
    kernel: Callable, definition: Callable, columns: int, rows: tuple, shared: tuple, *, finite: bool, **of: Tensor
) -> Any:
    """``kernel(*rows, *shared)`` where there is one for the tensors ``of``, else the definition of the same; gradients
    are the definition's (:func:`gradients.by_rows` says what ``columns``, ``rows`` and ``shared`` are).

    ``finite``: the tensors must be. The kernels make NaN of what is not; a definition may not: it is looked at first.
    """
    if has_kernel(*of.values()):
        return gradients.by_rows(kernel, definition, columns, rows, shared)
    if finite:
        checks.all_finite(**of)
    return definition(*rows, *shared)


def looks_finite(result: Tensor) -> bool:
    """Whether ``result`` is finite or cannot be looked at; also false where its numbers are but their sum is not."""
    return not checks.values_visible(result) or math.isfinite(result.detach().sum())


def check_result(result: Tensor, **arguments: Tensor) -> None:
    """If ``result`` is not finite, raise for the argument that brought it: not finite either, or too large."""
    if not looks_finite(result) and not bool(torch.isfinite(result).all()):
        checks.all_finite(**arguments)
        largest = ", ".join(f"{float(x.detach().abs().max()):.3g}" for x in arguments.values())
        raise ValueError(
            f"{' and '.join(arguments)} must be so small that results fit {result.dtype}, got up to {largest}"
        )
