"""Histograms of confidences, in integers: what every binned metric is made of."""

import torch
from torch import Tensor

from .. import reference
from ..arguments import checks
from ..reference.common import FIXED_POINT
from . import extension
from .entry import entry
from .extension import fake


@entry(reference.bin_counts)
def bin_counts(
    confidence: Tensor,
    correct: Tensor,
    n_bins: int = 10,
    *,
    edges: Tensor | None = None,
    group: Tensor | None = None,
    n_groups: int = 1,
    closed: str = "left",
) -> tuple[Tensor, Tensor, Tensor]:
    """How many confidences fall in each bin, how many of them are correct, and their sum, per group.

    Definition: ``reference.bin_counts``.

    The same bits in any order, on any number of threads, on any device: sums are kept in fixed point (confidence times
    2^32, rounded to even, in int64: good for 2^31 samples).

    Args:
        confidence: (N,) floating point in [0, 1]; one float32 step above, which a softmax may round to, counts as 1.
        correct: (N,) bool, or zeros and ones.
        n_bins: number B of equal-width bins; ``edges`` overrides it.
        edges: (B + 1,) ascending; compared as float32. What lies outside the outer ones falls in the first or last bin.
        group: (N,) integers in [0, n_groups): a histogram for each (proximity groups, classes). None: one group.
        n_groups: number G of groups; G B is at most 2^24.
        closed: ``"left"``: bins are [l, u), the last closed; ``"right"``: (l, u], the first closed.

    Returns:
        counts (G, B) int64, correct (G, B) int64, confidence sums (G, B) float64.

    Raises:
        ValueError: wrong rank, shape, dtype or device; a confidence outside [0, 1] or NaN; a group out of range.
    """
    bins = {"edges": edges, "group": group, "n_groups": n_groups, "closed": closed}
    counts, right, sums = fixed_point_bin_counts(confidence, correct, n_bins, **bins).unbind(0)
    return counts, right, sums.double() / FIXED_POINT


def fixed_point_bin_counts(
    confidence: Tensor,
    correct: Tensor,
    n_bins: int = 10,
    *,
    edges: Tensor | None = None,
    group: Tensor | None = None,
    n_groups: int = 1,
    closed: str = "left",
) -> Tensor:
    """``bin_counts`` as integers: (3, G, B) int64 of counts, correct and confidence sums times 2^32, which can be added
    over any split of the data in any order without changing a bit."""
    checks.floating("confidence", confidence, 1)
    n = confidence.shape[0]
    correct = checks.correctness("correct", correct, n)
    if edges is not None:
        edges = checks.edges("edges", edges)
        n_bins = edges.shape[0] - 1
    n_bins, n_groups = checks.cells(n_bins, n_groups)
    if group is not None:
        group = checks.labels("group", group, n, n_groups, "confidence").long()
    checks.choice("closed", closed, ("left", "right"))
    checks.same_devices("confidence", confidence, correct=correct, edges=edges, group=group)
    bins = {"edges": edges, "group": group, "n_groups": n_groups, "closed": closed}
    totals, invalid = bin_totals(confidence, correct, n_bins, **bins)
    if checks.values_visible(invalid) and int(invalid):
        checks.unit_interval("confidence", confidence)
    return totals


def bin_totals(
    confidence: Tensor,
    correct: Tensor,
    n_bins: int,
    *,
    edges: Tensor | None = None,
    group: Tensor | None = None,
    n_groups: int = 1,
    closed: str = "left",
) -> tuple[Tensor, Tensor]:
    """``fixed_point_bin_counts`` of arguments that were checked, but for the values of ``confidence``: the totals of
    the valid ones, and how many were not (0-d int64)."""
    confidence = confidence.detach()
    if extension.has_kernel(confidence.device):
        return torch.ops.pyfastcal.bin_counts(confidence, correct, edges, n_bins, group, n_groups, closed == "right")
    valid = (confidence >= 0) & (confidence <= checks.LARGEST_CONFIDENCE)
    group = torch.where(valid, 0 if group is None else group, n_groups)  # the others to a group that is dropped
    confidence, bins = torch.where(valid, confidence, 0).clamp(max=1), {"edges": edges, "closed": closed}
    totals = reference.fixed_point_bin_counts(confidence, correct, n_bins, group=group, n_groups=n_groups + 1, **bins)
    return totals[:, :n_groups], (~valid).sum()


@fake("bin_counts")
def _(confidence, correct, edges, n_bins, group, n_groups, closed_right):
    shape = (3, n_groups, n_bins)
    return confidence.new_empty(shape, dtype=torch.int64), confidence.new_empty((), dtype=torch.int64)
