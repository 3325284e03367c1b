"""The typed entry to each op: validation, then the kernel, or ``reference`` where there is none.

The kernels take fp32, fp16 and bf16, on the CPU and on CUDA devices. fp64 input, other devices and installations
without the compiled extension run the plain-torch twin in ``reference``: the same answers, slower. Results are fp32
(fp64 for fp64 input). Two runs give the same bits. A row's do not depend on the rest of its batch where a kernel made
them; the twin's may, in the last place, as those of torch's matrix product do. Bin counts are the same bits on every
device, with kernels and without.

``confidence``, ``similarity_confidence``, ``similarity`` and ``contrast_distance`` have gradients (see ``gradients``);
``knn``, ``nll`` and ``log_density`` have none, and warn once where one is waited for.

On a GPU nothing here waits for it, so that calls may be captured in a CUDA graph; only a scale that is given as a
tensor must be read.

Non-finite input is an error, and so is a result that its dtype cannot hold. The kernels find both in passing, as a NaN
or an infinity in their result, so that looking for them costs nothing; under ``torch.compile`` and on a GPU it stays
there (see ``checks``). The only exception are logits of minus infinity, which mask a class.
"""

import math
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from .. import reference
from ..arguments import checks, ranges
from ..arguments.arrays import accepts_numpy
from . import extension, gradients
from . import fake_kernels as fake_kernels  # registers them
from .info import build_info as build_info

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Scale: TypeAlias = float | Tensor

_MOST_CUDA_NEIGHBOURS = 128  # of the CUDA kernel; for more the reference runs, on the GPU and in fp64


def _kernel(*tensors: Tensor | None) -> bool:
    present = [t for t in tensors if t is not None]
    return all(t.dtype != torch.float64 for t in present) and extension.has_kernel(present[0].device)


def _check_devices(name: str, first: Tensor, **others: Tensor | None) -> None:
    for other, x in others.items():
        if x is not None:
            checks.same_device(other, x, name, first)


def _looks_finite(result: Tensor) -> bool:
    """Whether ``result`` is finite or cannot be looked at; also false where its numbers are but their sum is not."""
    return not checks.values_visible(result) or math.isfinite(result.detach().sum())


def _check_result(result: Tensor, **arguments: Tensor) -> None:
    """If ``result`` is not finite, raise for the argument that brought it: not finite either, or too large."""
    if not _looks_finite(result) and not bool(torch.isfinite(result).all()):
        _check_finite(**arguments)
        largest = ", ".join(f"{float(x.detach().abs().max()):.3g}" for x in arguments.values())
        raise ValueError(
            f"{' and '.join(arguments)} must be so small that results fit {result.dtype}, got up to {largest}"
        )


def _check_finite(**arguments: Tensor) -> None:
    for name, x in arguments.items():
        checks.finite(name, x)


def _weights(class_weight: Tensor | None, n_classes: int, sample_weight: Tensor | None, n: int) -> None:
    if class_weight is not None:
        checks.vector("class_weight", class_weight, n_classes, "class")
    if sample_weight is not None:
        checks.vector("sample_weight", sample_weight, n, "row")


def _float(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float()


def _is_row(x: Tensor) -> bool:
    return isinstance(x, Tensor) and x.ndim == 1


def _row(x: Tensor | None) -> Tensor | None:
    """One row, or the number of one, as a batch of it."""
    return x[None] if isinstance(x, Tensor) and x.ndim < 2 else x


@accepts_numpy
def knn(
    queries: Tensor,
    bank: Tensor,
    k: int,
    *,
    exclude_self: bool = False,
    normalize: bool = True,
    group: "ProcessGroup | None" = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest rows of ``bank`` to every row of ``queries``, by Euclidean distance.

    Exact: distances are direct differences of the (normalised) vectors in fp64, rounded once; equal vectors have
    distance 0, however close others come. Ordered by distance, at equal distance by index.

    Args:
        queries: (Q, D) floating point, or one (D,).
        bank: (M, D) floating point, on the same device.
        k: 1 to M (to M - 1 with ``exclude_self``).
        exclude_self: leave out bank row i for query i; ``queries`` and ``bank`` must have the same number of rows.
        normalize: divide every vector by its L2 norm first, or by 1e-12 where that is shorter, as
            ``torch.nn.functional.normalize`` does. Without it distances must stay within the result's dtype.
        group: every rank of this process group calls with the same queries, and ``bank`` is its part of the bank, which
            may be empty. The parts follow each other in the order of the ranks, indices count through all of them, and
            every rank gets what one call with the whole bank would give, to the bit.

    Returns:
        distances (Q, k) ascending, fp32 (fp64 if an input is); indices (Q, k) int64. Of one query (k,) each.

    Raises:
        ValueError: wrong rank, dtype, device or number of columns; an empty bank; k out of range; NaN or infinity.
    """
    if _is_row(queries):
        one = knn(_row(queries), bank, k, exclude_self=exclude_self, normalize=normalize, group=group)
        return one[0][0], one[1][0]
    gradients.warn_of_none("knn", queries, bank)
    if group is not None:
        from .sharded_knn import sharded_knn  # here: torch.distributed is no part of some builds of torch

        return sharded_knn(knn, queries, bank, k, exclude_self, normalize, group)
    checks.matrix("queries", queries)
    checks.matrix("bank", bank, columns=queries.shape[1], like="queries", rows=True)
    _check_devices("queries", queries, bank=bank)
    if exclude_self and queries.shape[0] != bank.shape[0]:
        raise ValueError(
            f"bank must have the {queries.shape[0]} rows of queries with exclude_self=True, got {checks.describe(bank)}"
        )
    why = f"bank has {bank.shape[0]} rows" + (", one of them the query itself" if exclude_self else "")
    k = checks.integer("k", k, 1, bank.shape[0] - int(exclude_self), why)
    queries, bank = queries.detach(), bank.detach()
    has_kernel = _kernel(queries, bank)
    if not has_kernel:
        _check_finite(queries=queries, bank=bank)
    if not has_kernel or (queries.is_cuda and k > _MOST_CUDA_NEIGHBOURS):
        exact = queries.double(), bank.double()
        distances, indices = reference.knn(*exact, k, exclude_self=exclude_self, normalize=normalize)
        distances = distances if torch.float64 in (queries.dtype, bank.dtype) else distances.float()
    else:
        distances, indices = torch.ops.pyfastcal.knn(queries, bank, k, exclude_self, normalize)
    _check_result(distances, queries=queries, bank=bank)
    return distances, indices


@accepts_numpy
def confidence(
    logits: Tensor, *, class_weight: Tensor | None = None, sample_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Confidence and prediction of rows of logits, each row scaled by one positive factor.

    Equivalent to, in one pass over memory::

        prediction = logits.argmax(-1)
        factor = class_weight[prediction] * sample_weight
        confidence = (factor[:, None] * logits).softmax(-1).amax(-1)

    Args:
        logits: (N, C) floating point, temperature applied (the cosine similarities times the logit scale); or those of
            one image (C,). A class that is masked by minus infinity has probability 0.
        class_weight: (C,) the factor of each predicted class (DAC's gamma), within [1e-30, 1e30]; None stands for ones.
        sample_weight: (N,) the factor of each row (CAC's gamma), likewise, and so their product.

    Returns:
        confidence (N,) fp32 (fp64 for fp64 logits), differentiable by the logits and the weights; prediction (N,)
        int64, the first class at ties. Of one image () each.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no classes, or all of a row masked; NaN or infinity; weights
            out of range.
    """
    if _is_row(logits):
        one = confidence(_row(logits), class_weight=class_weight, sample_weight=_row(sample_weight))
        return one[0][0], one[1][0]
    checks.matrix("logits", logits)
    _weights(class_weight, logits.shape[1], sample_weight, logits.shape[0])
    _check_devices("logits", logits, class_weight=class_weight, sample_weight=sample_weight)
    ranges.product(class_weight=class_weight, sample_weight=sample_weight)

    def definition(logits: Tensor, sample_weight: Tensor | None, class_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return reference.confidence(logits, class_weight=class_weight, sample_weight=sample_weight)

    def kernel(logits: Tensor, sample_weight: Tensor | None, class_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.ops.pyfastcal.confidence(logits, _float(class_weight), _float(sample_weight))

    if not _kernel(logits):
        result = definition(logits, sample_weight, class_weight)
    else:
        result = gradients.by_rows(kernel, definition, logits.shape[1], (logits, sample_weight), (class_weight,))
    if not _looks_finite(result[0]):
        ranges.scores("logits", logits)
    return result


@accepts_numpy
def similarity_confidence(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Scale = 100.0,
    *,
    logit_bias: Scale | None = None,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """``confidence`` straight from features: no (N, C) tensor of logits is made.

    Equivalent to ``confidence(logit_scale * normalize(image_features) @ normalize(text_features).T + logit_bias)``.
    A row's result does not depend on the other rows of its batch, to the bit.

    Args:
        image_features: (N, D) floating point, or those of one image (D,).
        text_features: (C, D) floating point, on the same device.
        logit_scale: within [1e-30, 1e20] (CLIP's ``logit_scale.exp()``).
        logit_bias: added to the logits before they are weighted: one number, which a softmax does not see, or one per
            class (C,), within [-1e30, 1e30].
        class_weight: (C,) the factor of each predicted class (DAC's gamma), within [1e-30, 1e30].
        sample_weight: (N,) the factor of each row (CAC's gamma), likewise; all three multiplied are in [1e-30, 1e20].
        normalize: divide every feature vector by its L2 norm first, or by 1e-12 where that is shorter, as
            ``torch.nn.functional.normalize`` does. Without it products must stay within fp32.

    Returns:
        confidence (N,) fp32 (fp64 if the features are), differentiable by every tensor among the arguments; prediction
        (N,) int64, the first class at ties. Of one image () each.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no classes; NaN or infinity; a scale, weights or bias out of
            range; without ``normalize``, products that fp32 cannot hold.
    """
    if _is_row(image_features):
        options = {"logit_bias": logit_bias, "class_weight": class_weight, "sample_weight": _row(sample_weight)}
        one = similarity_confidence(_row(image_features), text_features, logit_scale, normalize=normalize, **options)
        return one[0][0], one[1][0]
    checks.matrix("image_features", image_features)
    checks.matrix("text_features", text_features, columns=image_features.shape[1], like="image_features", rows=True)
    n, n_classes = image_features.shape[0], text_features.shape[0]
    _weights(class_weight, n_classes, sample_weight, n)
    if isinstance(logit_bias, Tensor) and logit_bias.ndim == 1:
        ranges.bounded("logit_bias", checks.vector("logit_bias", logit_bias, n_classes, "class"))
    elif logit_bias is not None:
        checks.number("logit_bias", logit_bias)
        logit_bias = None  # a softmax does not see what is added to every class alike
    devices = {"text_features": text_features, "class_weight": class_weight, "sample_weight": sample_weight}
    if isinstance(logit_bias, Tensor):
        devices["logit_bias"] = logit_bias
    _check_devices("image_features", image_features, **devices)
    scale, learned = (
        ranges.scale("logit_scale", logit_scale),
        logit_scale if checks.gradient_wanted(logit_scale) else None,
    )
    ranges.product(logit_scale=scale, class_weight=class_weight, sample_weight=sample_weight)

    def definition(image, sample_weight, text, class_weight, bias, learned):
        weights = {"class_weight": class_weight, "sample_weight": sample_weight}
        by = scale if learned is None else learned
        return reference.similarity_confidence(image, text, by, logit_bias=bias, normalize=normalize, **weights)

    def kernel(image, sample_weight, text, class_weight, bias, _):
        factors = _float(class_weight), _float(sample_weight)
        return torch.ops.pyfastcal.similarity_confidence(image, text, scale, _float(bias), *factors, normalize)

    rows, shared = (image_features, sample_weight), (text_features, class_weight, logit_bias, learned)
    if not _kernel(image_features, text_features):
        _check_finite(image_features=image_features, text_features=text_features)
        result = definition(*rows, *shared)
    else:
        result = gradients.by_rows(kernel, definition, n_classes, rows, shared)
    _check_result(result[0], image_features=image_features, text_features=text_features)
    return result


@accepts_numpy
def contrast_distance(
    image_features: Tensor,
    text_features: Tensor,
    zeroshot_image_features: Tensor,
    zeroshot_text_features: Tensor,
    *,
    on: str = "similarity",
    logit_scale: Scale = 100.0,
    normalize: bool = True,
) -> Tensor:
    """CAC's z: the mean absolute difference between a row of the tuned and of the zero-shot CLIP, from features.

    ``z_i = mean_c abs(p[i, c] - p0[i, c])`` (CAC, arXiv 2501.19060, section 3), where p are cosine similarities
    (``on="similarity"``) or the softmax of ``logit_scale`` times them (``on="probability"``). No (N, C) tensor is made.

    Args:
        image_features, text_features: (N, D), (C, D) floating point, of the tuned CLIP; of one image (D,).
        zeroshot_image_features, zeroshot_text_features: (N, D0), (C, D0), of the original CLIP; of one image (D0,).
        on: ``"similarity"`` or ``"probability"``.
        logit_scale: within [1e-30, 1e20]; only probabilities depend on it.
        normalize: divide every feature vector by its L2 norm first, or by 1e-12 where that is shorter, as
            ``torch.nn.functional.normalize`` does. Without it products must stay within fp32.

    Returns:
        z (N,) fp32 (fp64 if the features are), () of one image. Differentiable by the features and the scale.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no classes; NaN or infinity; another ``on``; without
            ``normalize``, products that fp32 cannot hold.
    """
    if _is_row(image_features) and _is_row(zeroshot_image_features):
        rows = _row(image_features), text_features, _row(zeroshot_image_features), zeroshot_text_features
        return contrast_distance(*rows, on=on, logit_scale=logit_scale, normalize=normalize)[0]
    checks.matrix("image_features", image_features)
    checks.matrix("text_features", text_features, columns=image_features.shape[1], like="image_features", rows=True)
    checks.matrix("zeroshot_image_features", zeroshot_image_features)
    checks.matrix(
        "zeroshot_text_features",
        zeroshot_text_features,
        columns=zeroshot_image_features.shape[1],
        like="zeroshot_image_features",
        rows=True,
    )
    for name, tuned, zeroshot in (
        ("image_features", image_features, zeroshot_image_features),
        ("text_features", text_features, zeroshot_text_features),
    ):
        if tuned.shape[0] != zeroshot.shape[0]:
            raise ValueError(
                f"zeroshot_{name} must have the {tuned.shape[0]} rows of {name}, got {checks.describe(zeroshot)}"
            )
    features = {
        "image_features": image_features,
        "text_features": text_features,
        "zeroshot_image_features": zeroshot_image_features,
        "zeroshot_text_features": zeroshot_text_features,
    }
    _check_devices("image_features", image_features, **features)
    checks.choice("on", on, ("similarity", "probability"))
    scale, learned = (
        ranges.scale("logit_scale", logit_scale),
        logit_scale if checks.gradient_wanted(logit_scale) else None,
    )

    def definition(image, image0, text, text0, learned):
        by = scale if learned is None else learned
        return reference.contrast_distance(image, text, image0, text0, on=on, logit_scale=by, normalize=normalize)

    def kernel(image, image0, text, text0, _):
        return torch.ops.pyfastcal.contrast_distance(image, text, image0, text0, on == "probability", scale, normalize)

    rows, shared = (image_features, zeroshot_image_features), (text_features, zeroshot_text_features, learned)
    if not _kernel(*features.values()):
        _check_finite(**features)
        z = definition(*rows, *shared)
    else:
        z = gradients.by_rows(kernel, definition, text_features.shape[0], rows, shared)
    _check_result(z, **features)
    return z


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
        edges = _check_edges(edges)
        n_bins = edges.shape[0] - 1
    n_bins, n_groups = checks.cells(n_bins, n_groups)
    if group is not None:
        group = checks.labels("group", group, n, n_groups, "confidence").long()
    checks.choice("closed", closed, ("left", "right"))
    _check_devices("confidence", confidence, correct=correct, edges=edges, group=group)
    totals, invalid = bin_totals(
        confidence, correct, n_bins, edges=edges, group=group, n_groups=n_groups, closed=closed
    )
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
    totals = reference.fixed_point_bin_counts(
        torch.where(valid, confidence, 0).clamp(max=1),
        correct,
        n_bins,
        edges=edges,
        group=group,
        n_groups=n_groups + 1,
        closed=closed,
    )
    return totals[:, :n_groups], (~valid).sum()


def _check_edges(edges: Tensor) -> Tensor:
    edges = checks.floating("edges", edges, 1).detach().float()
    if edges.shape[0] < 2:
        raise ValueError(f"edges must have at least 2 entries, got {checks.describe(edges)}")
    checks.finite("edges", edges)
    if checks.values_visible(edges) and bool((edges.diff() < 0).any()):
        raise ValueError("edges must be in ascending order, got descending ones")
    return edges


@accepts_numpy
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

    The same bits in any order, on any number of threads, on any device: sums are kept in fixed point (confidence times
    2^32, rounded to even, in int64: good for 2^31 samples).

    Args:
        confidence: (N,) floating point in [0, 1]; one fp32 step above, which a softmax may round to, counts as 1.
        correct: (N,) bool, or zeros and ones.
        n_bins: number B of equal-width bins; ``edges`` overrides it.
        edges: (B + 1,) ascending; compared as fp32. What lies outside the outer ones falls in the first or last bin.
        group: (N,) integers in [0, n_groups): a histogram for each (proximity groups, classes). None: one group.
        n_groups: number G of groups; G B is at most 2^24.
        closed: ``"left"``: bins are [l, u), the last closed; ``"right"``: (l, u], the first closed.

    Returns:
        counts (G, B) int64, correct (G, B) int64, confidence sums (G, B) fp64.

    Raises:
        ValueError: wrong rank, shape, dtype or device; a confidence outside [0, 1] or NaN; a group out of range.
    """
    counts, right, sums = fixed_point_bin_counts(
        confidence, correct, n_bins, edges=edges, group=group, n_groups=n_groups, closed=closed
    ).unbind(0)
    return counts, right, sums.double() * 2.0**-32


@accepts_numpy
def similarity(image_features: Tensor, text_features: Tensor, *, normalize: bool = True) -> Tensor:
    """The cosine similarities (N, C), for what needs all of a row; ``similarity_confidence`` needs no such tensor.

    A row's bits do not depend on the other rows of its batch nor on the number of threads, unlike those of a matrix
    product in torch. On a GPU a vector that is not finite makes NaN of all its similarities.

    Args:
        image_features: (N, D) floating point, or those of one image (D,).
        text_features: (C, D), on the same device.
        normalize: divide every feature vector by its L2 norm first, or by 1e-12 where that is shorter, as
            ``torch.nn.functional.normalize`` does. Without it products must stay within fp32.

    Returns:
        (N, C) fp32 (fp64 if the features are), (C,) of one image. Differentiable by the features.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no classes; NaN or infinity; without ``normalize``, products
            that fp32 cannot hold.
    """
    if _is_row(image_features):
        return similarity(_row(image_features), text_features, normalize=normalize)[0]
    checks.matrix("image_features", image_features)
    checks.matrix("text_features", text_features, columns=image_features.shape[1], like="image_features", rows=True)
    _check_devices("image_features", image_features, text_features=text_features)
    _check_finite(image_features=image_features, text_features=text_features)

    def definition(image: Tensor, text: Tensor) -> Tensor:
        return reference.similarity(image, text, normalize=normalize)

    def kernel(image: Tensor, text: Tensor) -> Tensor:
        return torch.ops.pyfastcal.similarity(image, text, normalize)

    if not _kernel(image_features, text_features):
        result = definition(image_features, text_features)
    else:
        result = gradients.by_rows(kernel, definition, text_features.shape[0], (image_features,), (text_features,))
    if not normalize:  # cosines always fit
        _check_result(result, image_features=image_features, text_features=text_features)
    return result


@accepts_numpy
def nll(logits: Tensor, labels: Tensor, beta: float = 1.0) -> Tensor:
    """The mean negative log-likelihood of ``softmax(beta * logits)`` and its derivatives by ``beta``, in one pass.

    Equivalent to the following and to its two derivatives, whose rows are ``E_p[x] - x[label]`` and ``Var_p[x]`` under
    the softmax p::

        cross_entropy(beta * logits, labels)

    The same bits in every run and on any number of threads: rows are added in a fixed order, in fp64. Where values
    cannot be checked, on a GPU and under ``torch.compile``, a label that is no class makes NaN, as a logit that is not
    finite does.

    Args:
        logits: (N, C) floating point; minus infinity masks a class, which must not be the row's label.
        labels: (N,) integers in [0, C).
        beta: the inverse temperature, from 1e-30 to 1e30.

    Returns:
        (3,) fp64: value, first and second derivative. Powers are fp32, their errors average out: over 20,000 rows
        value and first derivative are good to 1e-8 or so, relative. For fp64 logits all is fp64.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no rows or classes; a label out of range; NaN or infinity.
    """
    gradients.warn_of_none("nll", logits)
    checks.matrix("logits", logits, rows=True)
    labels = checks.labels("labels", labels, logits.shape[0], logits.shape[1])
    _check_devices("logits", logits, labels=labels)
    beta = checks.number("beta", beta, low=1e-30, high=1e30)
    logits, labels = logits.detach(), labels.long()
    if _kernel(logits):
        result = torch.ops.pyfastcal.nll(logits, labels, beta)
    else:
        result = reference.nll(logits.double(), labels, beta)
    if not _looks_finite(result):
        ranges.scores("logits", logits)
        masked = logits.gather(1, labels[:, None])[:, 0] == -math.inf
        if bool(masked.any()):
            raise ValueError(f"labels must not be masked classes, got one in row {int(masked.nonzero()[0])}")
        _check_result(result, logits=logits)
    return result


@accepts_numpy
def log_density(queries: Tensor, points: Tensor, bandwidth: Tensor) -> Tensor:
    """The log density of ``points`` under a Gaussian product kernel, at each query.

    ``log(1/N sum_i K((q - x_i) / h))`` with ``K = exp(-(u^2 + v^2) / 2) / (2 pi h_u h_v)``: the estimate of
    statsmodels' ``KDEMultivariate(points, "cc", bw=bandwidth).pdf(queries)``, as a logarithm, so that it says something
    far from all points too. A query's result does not depend on the other queries, to the bit.

    Args:
        queries: (Q, 2) floating point.
        points: (N, 2) floating point, on the same device.
        bandwidth: (2,) floating point, within [1e-100, 1e100]: the standard deviation of the kernel along each column.

    Returns:
        (Q,) fp64.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no points; NaN or infinity; a bandwidth out of range.
    """
    gradients.warn_of_none("log_density", queries, points, bandwidth)
    for name, x in (("queries", queries), ("points", points)):
        if checks.matrix(name, x, rows=name == "points").shape[1] != 2:
            raise ValueError(f"{name} must have 2 columns, got {checks.describe(x)}")
    ranges.factors("bandwidth", checks.vector("bandwidth", bandwidth, 2, "column"), 1e-100, 1e100)
    _check_devices("queries", queries, points=points, bandwidth=bandwidth)
    queries, points, bandwidth = queries.detach(), points.detach(), bandwidth.detach()
    _check_finite(queries=queries, points=points)
    if _kernel(queries, points):
        result = torch.ops.pyfastcal.log_density(queries.float(), points.float(), bandwidth.double())
    else:
        result = reference.log_density(queries.double(), points.double(), bandwidth.double())
    _check_result(result, queries=queries, points=points)
    return result
