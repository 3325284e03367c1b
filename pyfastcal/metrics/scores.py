"""Scores that need no bins: proper scores, set coverage, and the contrast of similarities.

``probs`` (N, C) are probabilities, never logits: floating, in [0, 1], rows that sum to 1. ``labels`` (N,) are
integers in [0, C), or ``ignore_index``: those rows are left out, as if they had not been given, and on a GPU finding
them waits for it. Results are 0-d float64 tensors. Wrong arguments raise a ValueError that names them.
"""

from torch import Tensor

from .. import reference
from ..arguments import checks
from ..arguments.arrays import accepts_numpy
from .cells import check_probabilities, without_ignored


@accepts_numpy
def brier_score(probs: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """``mean_i sum_c (probs[i, c] - [y_i = c])^2``: Brier's own sum over all classes, in [0, 2]."""
    return reference.brier_score(*check_probabilities(probs, labels, ignore_index))


@accepts_numpy
def negative_log_likelihood(probs: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """``-mean_i log probs[i, y_i]``, in nats; infinite where a true class was given probability 0."""
    return reference.negative_log_likelihood(*check_probabilities(probs, labels, ignore_index))


@accepts_numpy
def interval_coverage_error(
    probs: Tensor, labels: Tensor, alpha: float = 0.9, *, ignore_index: int | None = None
) -> Tensor:
    """``|coverage - alpha|``, where coverage is how often the true class lies in the prediction set: the
    smallest set of most probable classes whose mass reaches ``alpha`` in (0, 1]. Equal probabilities enter in
    the order of the classes.

    Some papers on fine-tuned CLIP call this PIECE; for the metric of that name see
    ``proximity_informed_ece``.
    """
    probs, labels = check_probabilities(probs, labels, ignore_index)
    alpha = checks.number("alpha", alpha, low=0.0, high=1.0, strict=True)
    return reference.interval_coverage_error(probs, labels, alpha)


@accepts_numpy
def contrast(similarity: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """``mean_i s[i, y_i] - mean_i max_{c != y_i} s[i, c]`` (CAC, arXiv 2501.19060v3): how far the
    similarity to the true class stands out from the best other one. ``similarity`` (N, C) with C >= 2."""
    checks.matrix("similarity", similarity, rows=True)
    if similarity.shape[1] < 2:
        raise ValueError(f"similarity must have at least 2 classes to contrast, got {checks.describe(similarity)}")
    similarity, labels = without_ignored("similarity", similarity, labels, ignore_index)
    checks.finite("similarity", similarity)
    return reference.contrast(similarity, labels)
