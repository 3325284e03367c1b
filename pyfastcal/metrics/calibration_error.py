"""Calibration errors over bins of confidence.

``confidence`` is a floating (N,) tensor in [0, 1], float32, float16, bfloat16 or float64; ``correct`` (N,) is
boolean, or zeros and ones. The result is a 0-d float64 tensor. All go through ``bin_counts``, whose integer
and fixed-point sums make the result the same bits for any order of the rows and on any device.
"""

from torch import Tensor

from ..arguments import checks
from ..arguments.arrays import accepts_numpy
from ..reference import equal_mass_groups
from . import published
from .cells import (
    Cells,
    absolute_excess,
    add_classes,
    check_probabilities,
    check_values,
    count_cells,
    debiased_error,
    expected_error,
    maximum_error,
)

NORMS = ("l1", "l2", "max")


@accepts_numpy
def expected_calibration_error(
    confidence: Tensor,
    correct: Tensor,
    n_bins: int = 10,
    *,
    norm: str = "l1",
    closed: str = "left",
    compat: str | None = None,
) -> Tensor:
    """ECE: ``sum_b n_b/N |acc_b - conf_b|`` over ``n_bins`` equal-width bins.

    Args:
        norm: ``"l1"``; ``"l2"``: ``sqrt(sum_b n_b/N (acc_b - conf_b)^2)``; ``"max"``: the largest gap.
        closed: ``"left"``: bins [l, u), the last one closed; ``"right"``: (l, u], the first one closed.
        compat: ``"clip_calibration"`` gives the number of the published DAC repository, which leaves
            confidences of exactly 1.0 out of the means of the last bin (l1 and closed="left" only).

    Raises:
        ValueError: naming the argument, for a wrong shape, dtype or value, or no rows.
    """
    checks.choice("norm", norm, NORMS)
    if published.check_compat(compat, norm=(norm, "l1"), closed=(closed, "left")):
        confidence = check_values(confidence)
        return published.expected_error(confidence, correct, checks.cells(n_bins)[0])
    return expected_error(count_cells(confidence, correct, n_bins, closed=closed), norm)


@accepts_numpy
def adaptive_calibration_error(
    confidence: Tensor, correct: Tensor, n_bins: int = 10, *, compat: str | None = None
) -> Tensor:
    """ACE: ECE over ``n_bins`` equal-mass bins.

    Bin b starts at the confidence of rank ``floor(b N / n_bins)``. Equal confidences are never split, or
    the value would depend on the order of the rows; a run of them that covers several starts goes to the
    last of these bins, and the ones before stay empty. So bins can be fewer and larger where a model is
    certain of many rows.

    Args:
        compat: ``"clip_calibration"``: bins between linearly interpolated quantiles, as published.
    """
    compat = published.check_compat(compat)
    confidence = check_values(confidence)
    n_bins, _ = checks.cells(n_bins)
    group = (published.quantile_bins if compat else equal_mass_groups)(confidence, n_bins)
    return expected_error(count_cells(confidence, correct, 1, group=group, n_groups=n_bins))


@accepts_numpy
def maximum_calibration_error(
    confidence: Tensor, correct: Tensor, n_bins: int = 10, *, weighted: bool = False, compat: str | None = None
) -> Tensor:
    """MCE: ``max_b |acc_b - conf_b|`` over equal-width bins; ``weighted``: ``max_b n_b/N |acc_b -
    conf_b|``, which is what the tables of the DAC and CAC papers report.

    Args:
        compat: ``"clip_calibration"``: weighted, whatever ``weighted`` says, over bins with edges in float64, as
            published.
    """
    if published.check_compat(compat):
        return published.maximum_published_error(check_values(confidence), correct, checks.cells(n_bins)[0])
    return maximum_error(count_cells(confidence, correct, n_bins), weighted)


@accepts_numpy
def proximity_informed_ece(
    confidence: Tensor,
    correct: Tensor,
    proximity: Tensor,
    n_bins: int = 10,
    n_proximity_bins: int = 10,
    *,
    compat: str | None = None,
) -> Tensor:
    """PIECE (arXiv 2306.04590): ``sum_{g,b} n_gb/N |acc_gb - conf_gb|``, equal-width bins of confidence
    inside ``n_proximity_bins`` equal-mass groups of ``proximity`` (N,). Never less than the ECE of the same
    bins.

    Groups are drawn as the bins of ``adaptive_calibration_error``: equal proximities stay together.

    Args:
        compat: ``"clip_calibration"``: groups between linearly interpolated quantiles, as published.
    """
    compat = published.check_compat(compat)
    confidence = check_values(confidence)
    checks.vector("proximity", proximity, len(confidence), "confidence")
    checks.same_device("proximity", proximity, "confidence", confidence)
    checks.finite("proximity", proximity)
    n_bins, n_groups = checks.cells(n_bins, n_proximity_bins, groups_name="n_proximity_bins")
    if compat:
        group = published.quantile_bins(proximity, n_groups) * n_bins
        group = group + published.uniform_bins(confidence, n_bins)
        return expected_error(count_cells(confidence, correct, 1, group=group, n_groups=n_groups * n_bins))
    group = equal_mass_groups(proximity, n_groups)
    return expected_error(count_cells(confidence, correct, n_bins, group=group, n_groups=n_groups))


@accepts_numpy
def debiased_ece(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> Tensor:
    """Debiased l2 calibration error (Kumar, Liang and Ma, "Verified Uncertainty Calibration", NeurIPS 2019).

    ``sqrt(max(0, sum_b n_b/N [(acc_b - conf_b)^2 - acc_b (1 - acc_b) / (n_b - 1)]))``: what the noise of the
    accuracies adds to the plain l2 error (``expected_calibration_error(norm="l2")``) is taken off. Over
    equal-width bins; a bin of one row has no variance to estimate and adds nothing.
    """
    return debiased_error(count_cells(confidence, correct, n_bins))


@accepts_numpy
def classwise_ece(probs: Tensor, labels: Tensor, n_bins: int = 10, *, ignore_index: int | None = None) -> Tensor:
    """``mean_c ECE(probs[:, c], labels == c)``: the l1 error of every class's probability, not the top one's
    alone. ``probs`` (N, C) in [0, 1], whose rows need not sum to 1; ``labels`` (N,) integers in [0, C), or
    ``ignore_index``, whose rows are left out."""
    probs, labels = check_probabilities(probs, labels, ignore_index, rows_sum_to_one=False)
    n_bins, _ = checks.cells(n_bins, probs.shape[1], groups_name="the number of classes")
    table = labels.new_zeros(4, probs.shape[1] * n_bins)
    add_classes(table, probs, labels, n_bins)
    cells = Cells.of(table)
    return absolute_excess(cells) / cells.total
