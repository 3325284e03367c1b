"""The metrics as they are defined, bin by bin, in float64.

``pyfastcal.metrics`` computes the binned ones from ``bin_counts`` and must agree with these; the others
validate their arguments and call these.
"""

import torch
from torch import Tensor

from .common import bin_index, equal_mass_groups, uniform_edges


def _gaps(confidence: Tensor, correct: Tensor, cell: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
    """Mean confidence minus accuracy of each cell (NaN where empty), and each cell's share of the rows."""
    confidence, correct = confidence.double(), correct.double()
    inside = [cell == b for b in range(n_cells)]
    gap = torch.stack([confidence[i].mean() - correct[i].mean() for i in inside])
    return gap, torch.stack([i.double().mean() for i in inside])


def _uniform_gaps(confidence: Tensor, correct: Tensor, n_bins: int, closed: str = "left"):
    cell = bin_index(confidence, uniform_edges(n_bins, confidence.device), closed)
    return _gaps(confidence, correct, cell, n_bins)


def expected_calibration_error(
    confidence: Tensor, correct: Tensor, n_bins: int = 10, *, norm: str = "l1", closed: str = "left"
) -> Tensor:
    """``sum_b n_b/N |acc_b - conf_b|`` over equal-width bins; ``norm="l2"``: the root of the weighted mean
    square; ``"max"``: the largest."""
    gap, share = _uniform_gaps(confidence, correct, n_bins, closed)
    if norm == "max":
        return gap.abs().nan_to_num().max()
    if norm == "l2":
        return (share * gap.square()).nansum().sqrt()
    return (share * gap.abs()).nansum()


def adaptive_calibration_error(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> Tensor:
    """ECE over equal-mass bins, equal confidences never split."""
    gap, share = _gaps(confidence, correct, equal_mass_groups(confidence, n_bins), n_bins)
    return (share * gap.abs()).nansum()


def maximum_calibration_error(
    confidence: Tensor, correct: Tensor, n_bins: int = 10, *, weighted: bool = False
) -> Tensor:
    """``max_b |acc_b - conf_b|``; ``weighted``: ``max_b n_b/N |acc_b - conf_b|``."""
    gap, share = _uniform_gaps(confidence, correct, n_bins)
    return ((share if weighted else 1) * gap.abs()).nan_to_num().max()


def proximity_informed_ece(
    confidence: Tensor, correct: Tensor, proximity: Tensor, n_bins: int = 10, n_proximity_bins: int = 10
) -> Tensor:
    """``sum_{g,b} n_gb/N |acc_gb - conf_gb|``: equal-width bins inside equal-mass groups of proximity."""
    group = equal_mass_groups(proximity, n_proximity_bins)
    cell = group * n_bins + bin_index(confidence, uniform_edges(n_bins, confidence.device))
    gap, share = _gaps(confidence, correct, cell, n_proximity_bins * n_bins)
    return (share * gap.abs()).nansum()


def debiased_ece(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> Tensor:
    """``sqrt(max(0, sum_b n_b/N [(acc_b - conf_b)^2 - acc_b (1 - acc_b) / (n_b - 1)]))``."""
    cell = bin_index(confidence, uniform_edges(n_bins, confidence.device))
    squared = torch.zeros((), dtype=torch.float64, device=confidence.device)
    for b in range(n_bins):
        c, a = confidence[cell == b].double(), correct[cell == b].double()
        if len(c) > 1:
            bias = a.var(correction=0) / (len(c) - 1)
            squared += len(c) / len(cell) * ((a.mean() - c.mean()).square() - bias)
    return squared.clamp(min=0).sqrt()


def signed_gaps(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> Tensor:
    """``conf_b - acc_b`` (B,): positive where over-confident, NaN where the bin is empty."""
    return _uniform_gaps(confidence, correct, n_bins)[0]


def classwise_ece(probs: Tensor, labels: Tensor, n_bins: int = 10) -> Tensor:
    """``mean_c ECE(probs[:, c], labels == c)``."""
    columns = range(probs.shape[1])
    return torch.stack([expected_calibration_error(probs[:, c], labels == c, n_bins) for c in columns]).mean()


def reliability_curve(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean confidence and accuracy of each bin, each (B,); NaN means where the bin is empty."""
    cell = bin_index(confidence, uniform_edges(n_bins, confidence.device))
    inside = [cell == b for b in range(n_bins)]
    return (
        torch.stack([i.sum() for i in inside]),
        torch.stack([confidence[i].double().mean() for i in inside]),
        torch.stack([correct[i].double().mean() for i in inside]),
    )


def brier_score(probs: Tensor, labels: Tensor) -> Tensor:
    """``mean_i sum_c (probs[i, c] - [y_i = c])^2``, in [0, 2]."""
    truth = torch.nn.functional.one_hot(labels.long(), probs.shape[1]).double()
    return (probs.double() - truth).square().sum(dim=1).mean()


def negative_log_likelihood(probs: Tensor, labels: Tensor) -> Tensor:
    """``-mean_i log probs[i, y_i]``; infinite where a true class was given probability 0."""
    return -probs.double().gather(1, labels.long()[:, None]).log().mean()


def interval_coverage_error(probs: Tensor, labels: Tensor, alpha: float = 0.9) -> Tensor:
    """``|mean_i [y_i in S_i] - alpha|``, S_i the smallest set of most probable classes whose mass reaches
    ``alpha`` (equal probabilities in the order of the classes).

    A class is in S_i when the classes ahead of it have not reached ``alpha`` yet.
    """
    probs, own = probs.double(), probs.double().gather(1, labels.long()[:, None])
    earlier = torch.arange(probs.shape[1], device=probs.device)[None, :] < labels[:, None]
    ahead = (probs > own) | ((probs == own) & earlier)
    covered = (probs * ahead).sum(dim=1) < alpha
    return (covered.double().mean() - alpha).abs()


def contrast(similarity: Tensor, labels: Tensor) -> Tensor:
    """``mean_i s[i, y_i] - mean_i max_{c != y_i} s[i, c]``: how far the true class stands out."""
    similarity, index = similarity.double(), labels.long()[:, None]
    others = similarity.scatter(1, index, -torch.inf).max(dim=1).values
    return similarity.gather(1, index).mean() - others.mean()
