"""Confidence and prediction of logits, each row scaled by one factor."""

import torch
from torch import Tensor

from .. import reference
from ..arguments import checks, ranges
from .entry import are_plain, entry, float32, looks_finite, narrowed, run
from .extension import cpu_op, fake


def _at_once(
    logits: Tensor, *, class_weight: Tensor | None = None, sample_weight: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    op = cpu_op("checked_confidence")
    if op is None or not are_plain(logits, class_weight, sample_weight) or logits.dtype is torch.float64:
        return None
    return op(logits, narrowed(class_weight), narrowed(sample_weight))


@entry(reference.confidence, row=("logits",), per_row=("sample_weight",), at_once=_at_once)
def confidence(
    logits: Tensor, *, class_weight: Tensor | None = None, sample_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Confidence and prediction of rows of logits, each row scaled by one positive factor, in one pass over memory.

    Definition: ``reference.confidence``.

    Args:
        logits: (N, C) floating point, temperature applied (the cosine similarities times the logit scale); or those of
            one image (C,). A class that is masked by minus infinity has probability 0.
        class_weight: (C,) the factor of each predicted class (DAC's gamma), within [1e-30, 1e30]; None stands for ones.
        sample_weight: (N,) the factor of each row (CAC's gamma), likewise, and so their product.

    Returns:
        confidence (N,) float32 (float64 for float64 logits), differentiable by the logits and the weights; prediction
        (N,) int64, the first class at ties. Of one image () each.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no classes, or all of a row masked; NaN or infinity; weights
            out of range.
    """
    n_classes = checks.matrix("logits", logits).shape[1]
    ranges.weights("logits", logits, n_classes, class_weight, sample_weight)

    def definition(logits: Tensor, sample_weight: Tensor | None, class_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return reference.confidence(logits, class_weight=class_weight, sample_weight=sample_weight)

    def kernel(logits: Tensor, sample_weight: Tensor | None, class_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.ops.pyfastcal.confidence(logits, float32(class_weight), float32(sample_weight))

    rows = logits, sample_weight
    result = run(kernel, definition, n_classes, rows, (class_weight,), finite=False, logits=logits)
    if not looks_finite(result[0]):
        ranges.scores("logits", logits)
    return result


def fake_confidence(rows: Tensor) -> tuple[Tensor, Tensor]:
    n = rows.shape[:-1]
    return rows.new_empty(n, dtype=torch.float32), rows.new_empty(n, dtype=torch.int64)


@fake("confidence")
def _(logits, class_weight, sample_weight):
    return fake_confidence(logits)


@fake("checked_confidence")
def _(logits, class_weight, sample_weight):
    return fake_confidence(logits)
