"""Adds rows to the state of a stream in one call, where the kernels can; ``metrics.layout`` says what a state is, and
does the same in torch operations elsewhere, to the bit."""

import torch
from torch import Tensor

from .entry import are_plain
from .extension import cpu_op, fake

_MOST = 1 << 12  # rows that few cells are given here: bin_counts takes more of them at a time, on all threads


def add_rows(
    state: Tensor,
    confidence: Tensor,
    prediction: Tensor,
    labels: Tensor | None,
    proximity: Tensor | None,
    edges: Tensor,
    *,
    ignore_index: int | None = None,
    fine: bool = False,
    grouped: bool = False,
    closed: str = "left",
    validate: bool = True,
) -> bool:
    """Whether rows were added to ``state``, in place. Not where there is no kernel, nor where an argument is not plain
    or not as it should be: nothing was added then, and the caller looks at it.

    Args:
        confidence: (N,); ``proximity``: (N,), only where ``grouped``.
        prediction, labels: (N,) int64; without labels (N,) booleans, whether each is correct.
        edges: (n_bins + 1,) float32, of the equal-width bins.
        fine: whether the state has fine cells of confidence; ``grouped``: bins for each cell of proximity.
        validate: else rows with a confidence or proximity outside [0, 1] are counted, but enter no cell.
    """
    if torch.compiler.is_compiling() or not are_plain(state, confidence, prediction, labels, proximity):
        return False
    if (op := cpu_op("add_rows")) is None or (not fine and not grouped and confidence.numel() > _MOST):
        return False
    numbers = (_wide(confidence), prediction, labels, None if proximity is None else _wide(proximity), edges)
    try:
        op(state, *numbers, ignore_index, fine, grouped, closed == "right", validate)
    except RuntimeError:
        return False
    return True


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@fake("add_rows")
def _(state, confidence, prediction, labels, proximity, edges, ignore_index, fine, grouped, closed_right, validate):
    return None
