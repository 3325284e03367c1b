"""Plain-torch twins of the kernels: what each computes, for any dtype and device."""

import math

import torch
from torch import Tensor

from .common import FIXED_POINT, bin_index, uniform_edges, unit, working

_CHUNK = 1 << 24  # entries of the distance matrix held at a time


def knn(
    queries: Tensor, bank: Tensor, k: int, *, exclude_self: bool = False, normalize: bool = True
) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest rows of ``bank`` (M, D) to each of ``queries`` (Q, D): their L2 distances (Q, k),
    ascending, and indices (Q, k) int64; equal distances are ordered by index.

    ``exclude_self``: query i is row i of the bank, which is left out of its neighbours. Distances come from
    direct differences, not from |q|^2 + |b|^2 - 2 q.b, so that identical rows are at exactly 0 and near
    duplicates keep their precision.
    """
    queries, bank = unit(queries, bank, normalize)
    rows = max(1, _CHUNK // max(1, len(bank)))
    distances, indices = [], []
    for start in range(0, max(1, len(queries)), rows):
        chunk = queries[start : start + rows]
        d = torch.cdist(chunk, bank, compute_mode="donot_use_mm_for_euclid_dist")
        if exclude_self:
            own = torch.arange(len(chunk), device=d.device)
            d = d.index_put((own, own + start), d.new_tensor(torch.inf))
        d, i = d.sort(dim=1, stable=True)  # stable: ties keep the order of the bank
        distances.append(d[:, :k])
        indices.append(i[:, :k])
    return torch.cat(distances), torch.cat(indices)


def confidence(
    logits: Tensor, *, class_weight: Tensor | None = None, sample_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax probability (N,) of the predicted class of ``factor * logits`` (N, C), and the prediction (N,)
    int64: the largest logit, the first of equal ones. The factor of row i is
    ``class_weight[prediction_i] * sample_weight[i]``, each 1 where absent. The probability of a logit of minus infinity
    is 0."""
    logits = working(logits)
    prediction = logits.argmax(dim=1)
    top = logits.gather(1, prediction[:, None])
    factor = torch.ones_like(top[:, 0])
    if class_weight is not None:
        factor = factor * class_weight.to(logits.dtype)[prediction]
    if sample_weight is not None:
        factor = factor * sample_weight.to(logits.dtype)
    return 1 / torch.exp(factor[:, None] * (logits - top)).sum(dim=1), prediction


def similarity(image_features: Tensor, text_features: Tensor, *, normalize: bool = True) -> Tensor:
    """The cosine similarity (N, C) of every image feature (N, D) with every text feature (C, D)."""
    image, text = unit(image_features, text_features, normalize)
    return image @ text.T


def similarity_confidence(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: float | Tensor = 100.0,
    *,
    logit_bias: float | Tensor | None = None,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """``confidence`` of the logits ``logit_scale * cos(image, text) + logit_bias``, from the features
    (N, D) and (C, D)."""
    logits = logit_scale * similarity(image_features, text_features, normalize=normalize)
    if logit_bias is not None:
        logits = logits + (logit_bias.to(logits.dtype) if isinstance(logit_bias, Tensor) else logit_bias)
    return confidence(logits, class_weight=class_weight, sample_weight=sample_weight)


def contrast_distance(
    image_features: Tensor,
    text_features: Tensor,
    zeroshot_image_features: Tensor,
    zeroshot_text_features: Tensor,
    *,
    on: str = "similarity",
    logit_scale: float | Tensor = 100.0,
    normalize: bool = True,
) -> Tensor:
    """``z_i = mean_c |p[i, c] - p0[i, c]|`` (N,), tuned p against zero-shot p0. ``on="similarity"``: p are
    cosine similarities; ``"probability"``: the softmax of ``logit_scale`` times them."""
    tuned = similarity(image_features, text_features, normalize=normalize)
    zeroshot = similarity(zeroshot_image_features, zeroshot_text_features, normalize=normalize)
    if on == "probability":
        tuned, zeroshot = (logit_scale * tuned).softmax(1), (logit_scale * zeroshot).softmax(1)
    return (tuned - zeroshot).abs().mean(dim=1)


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
    """(3, G, B) int64: per group and bin how many values, how many of them correct, and the sum of their
    confidences times 2^32, each rounded first. All integers: the same bits in any order and any split."""
    if edges is None:
        edges = uniform_edges(n_bins, confidence.device)
    n_bins = len(edges) - 1
    cell = bin_index(confidence, edges, closed)
    if group is not None:
        cell = cell + group * n_bins
    fixed = (confidence.double() * FIXED_POINT).round().long()
    rows = torch.stack([torch.ones_like(cell), (correct != 0).long(), fixed])
    totals = torch.zeros(3, n_groups * n_bins, dtype=torch.int64, device=cell.device)
    return totals.index_add_(1, cell, rows).view(3, n_groups, n_bins)


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
    """Per group and bin: how many values (G, B) int64, how many of them correct (G, B) int64, and the sum of
    their confidences (G, B) float64. ``edges`` (B + 1,) default to ``n_bins`` equal widths on [0, 1]."""
    counts, right, fixed = fixed_point_bin_counts(
        confidence, correct, n_bins, edges=edges, group=group, n_groups=n_groups, closed=closed
    )
    return counts, right, fixed.double() / FIXED_POINT


def nll(logits: Tensor, labels: Tensor, beta: float = 1.0) -> Tensor:
    """(3,) float64: the mean over the rows of ``-log softmax(beta * logits)[label]`` for logits (N, C) and
    labels (N,), its first and its second derivative by ``beta``.

    With p the softmax, the derivatives of a row are ``E_p[x] - x[label]`` and ``Var_p[x]``.
    """
    logits = working(logits)
    logits = logits - logits.amax(dim=1, keepdim=True)  # no term changes: x is only seen against the label's
    log_probs = (beta * logits).log_softmax(dim=1)
    probs, label = log_probs.exp(), labels.long()[:, None]
    own = logits.gather(1, label)
    logits = logits.where(probs > 0, 0)  # what minus infinity (a masked class) would add is nothing, not NaN
    mean = (probs * logits).sum(dim=1, keepdim=True)
    loss = -log_probs.gather(1, label)
    slope = mean - own
    curvature = (probs * (logits - mean).square()).sum(dim=1)
    return torch.stack([x.double().mean() for x in (loss, slope, curvature)])


def log_density(queries: Tensor, points: Tensor, bandwidth: Tensor) -> Tensor:
    """(Q,) float64: the log of ``1/N sum_i K((q - x_i) / h)`` at queries (Q, 2) for points (N, 2) and a bandwidth h
    (2,) per column, K the Gaussian product kernel ``exp(-(u^2 + v^2) / 2) / (2 pi h_u h_v)``."""
    wide = torch.promote_types(torch.promote_types(queries.dtype, points.dtype), torch.float32)
    queries, points, bandwidth = queries.to(wide), points.to(wide), bandwidth.to(wide)
    rows = max(1, _CHUNK // max(1, len(points)))
    log_sums = [
        torch.logsumexp(((q[:, None] - points) / bandwidth).square().sum(dim=2) / -2, dim=1)
        for q in queries.split(rows)
    ]
    return torch.cat(log_sums).double() - torch.log(2 * math.pi * bandwidth.double().prod() * len(points))
