"""Gradients of the ops whose rows stand alone (``confidence``, ``similarity_confidence``, ``similarity`` and
``contrast_distance``), for a loss on calibrated confidences: values come from the kernel, gradients from the definition
in ``reference``, made anew for a chunk of rows at a time, so that no more than a chunk of the (N, C) logits exists.

Why these: tuning prompts with DAC or CAC in the loop needs the gradient of the calibrated logits, which the
calibrators' ``forward`` has as plain torch; a penalty on confidence needs that of the confidence, through CAC's weights
too, which depend on features. Neighbours, bins and fits have none: they are steps, counts and constants of the loop. A
training batch is small, and its backward pass needs each logit's gradient anyway: there is little for a kernel to fuse.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..arguments import checks
from ..arguments.warn import warn_caller

_CHUNK = 1 << 22  # logits held at a time
_warned: set[str] = set()


def warn_of_none(op: str, *inputs: Tensor) -> None:
    """Say, once, that the gradient of ``inputs`` ends at this op, where somebody may be waiting for it."""
    if checks.gradient_wanted(*inputs) and op not in _warned and not torch.compiler.is_compiling():
        _warned.add(op)
        warn_caller(f"pyfastcal's {op} has no gradient: it ends here. Detach the input if that is meant")


def by_rows(kernel: Callable, definition: Callable, columns: int, rows: tuple, shared: tuple) -> Any:
    """``kernel(*rows, *shared)``, with the gradient of ``definition(*rows, *shared)`` where one is wanted.

    ``rows``: tensors with an entry for each row of the result, or None; ``shared``: of all rows. Of a tuple the first
    is differentiable. ``columns``: of the logits.
    """
    if not checks.gradient_wanted(*rows, *shared):
        return kernel(*rows, *shared)
    if torch.compiler.is_compiling():  # which fuses the definition and its gradient itself
        return definition(*rows, *shared)
    return _ByRows.apply(kernel, definition, columns, len(rows), *rows, *shared)


class _ByRows(torch.autograd.Function):
    @staticmethod
    def forward(kernel: Callable, definition: Callable, columns: int, n_rows: int, *inputs: Any) -> Any:
        return kernel(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        _, ctx.definition, ctx.columns, ctx.n_rows, *tensors = inputs
        ctx.save_for_backward(*tensors)
        if isinstance(output, tuple):
            ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple:
        asked, saved = ctx.needs_input_grad[4:], ctx.saved_tensors
        # fp32 at least, so that sums over chunks are exact enough
        inputs = [None if x is None else x.to(torch.promote_types(x.dtype, torch.float32)) for x in saved]
        total = [torch.zeros_like(x) if needed else None for x, needed in zip(inputs, asked, strict=True)]
        step = max(1, _CHUNK // ctx.columns)
        for start in range(0, len(gradient), step):
            part = slice(start, start + step)
            leaves = [
                None if x is None else (x[part] if i < ctx.n_rows else x).detach().requires_grad_(needed)
                for i, (x, needed) in enumerate(zip(inputs, asked, strict=True))
            ]
            with torch.enable_grad():
                value = ctx.definition(*leaves)
            value = value[0] if isinstance(value, tuple) else value
            sources = [leaf for leaf, needed in zip(leaves, asked, strict=True) if needed]
            found = iter(torch.autograd.grad(value, sources, gradient[part].to(value.dtype), materialize_grads=True))
            for i, needed in enumerate(asked):
                if needed and i < ctx.n_rows:
                    total[i][part] = next(found)
                elif needed:
                    total[i] += next(found)
        return (None,) * 4 + tuple(None if t is None else t.to(x.dtype) for t, x in zip(total, saved, strict=True))
