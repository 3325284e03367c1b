"""The negative log-likelihood of logits and its derivatives by an inverse temperature, in one pass."""

import math

import torch
from torch import Tensor

from .. import reference
from ..arguments import checks, ranges
from . import gradients
from .entry import check_result, entry, has_kernel, looks_finite
from .extension import fake


@entry(reference.nll)
def nll(logits: Tensor, labels: Tensor, beta: float = 1.0) -> Tensor:
    """The mean negative log-likelihood of ``softmax(beta * logits)`` and its derivatives by ``beta``, in one pass.

    Definition: ``reference.nll``.

    The same bits in every run and on any number of threads: rows are added in a fixed order, in float64. Where values
    cannot be checked, on a GPU and under ``torch.compile``, a label that is no class makes NaN, as a logit that is not
    finite does.

    Args:
        logits: (N, C) floating point; minus infinity masks a class, which must not be the row's label.
        labels: (N,) integers in [0, C).
        beta: the inverse temperature, from 1e-30 to 1e30.

    Returns:
        (3,) float64: value, first and second derivative. Powers are float32, their errors average out: over 20,000 rows
        value and first derivative are good to 1e-8 or so, relative. For float64 logits all is float64.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no rows or classes; a label out of range; NaN or infinity.
    """
    gradients.warn_of_none("nll", logits)
    checks.matrix("logits", logits, rows=True)
    labels = checks.labels("labels", labels, logits.shape[0], logits.shape[1])
    checks.same_device("labels", labels, "logits", logits)
    beta = checks.number("beta", beta, low=1e-30, high=1e30)
    logits, labels = logits.detach(), labels.long()
    if has_kernel(logits):
        result = torch.ops.pyfastcal.nll(logits, labels, beta)
    else:
        result = reference.nll(logits.double(), labels, beta)
    if not looks_finite(result):
        ranges.scores("logits", logits)
        masked = logits.gather(1, labels[:, None])[:, 0] == -math.inf
        if bool(masked.any()):
            raise ValueError(f"labels must not be masked classes, got one in row {int(masked.nonzero()[0])}")
        check_result(result, logits=logits)
    return result


@fake("nll")
def _(logits, labels, beta):
    return logits.new_empty(3, dtype=torch.float64)
