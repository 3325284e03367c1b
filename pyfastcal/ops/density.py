"""The density of points in the plane of confidence and proximity, as a logarithm."""

import torch
from torch import Tensor

from .. import reference
from ..arguments import checks, ranges
from . import gradients
from .entry import check_result, entry, has_kernel
from .extension import fake


@entry(reference.log_density)
def log_density(queries: Tensor, points: Tensor, bandwidth: Tensor) -> Tensor:
    """The log density of ``points`` under a Gaussian product kernel, at each query.

    Definition: ``reference.log_density``.

    The estimate of statsmodels' ``KDEMultivariate(points, "cc", bw=bandwidth).pdf(queries)``, as a logarithm, so that
    it says something far from all points too. A query's result does not depend on the other queries, to the bit.

    Args:
        queries: (Q, 2) floating point.
        points: (N, 2) floating point, on the same device.
        bandwidth: (2,) floating point, within [1e-100, 1e100]: the standard deviation of the kernel along each column.

    Returns:
        (Q,) float64.

    Raises:
        ValueError: wrong rank, shape, dtype or device; no points; NaN or infinity; a bandwidth out of range.
    """
    gradients.warn_of_none("log_density", queries, points, bandwidth)
    for name, x in (("queries", queries), ("points", points)):
        if checks.matrix(name, x, rows=name == "points").shape[1] != 2:
            raise ValueError(f"{name} must have 2 columns, got {checks.describe(x)}")
    ranges.factors("bandwidth", checks.vector("bandwidth", bandwidth, 2, "column"), 1e-100, 1e100)
    checks.same_devices("queries", queries, points=points, bandwidth=bandwidth)
    queries, points, bandwidth = queries.detach(), points.detach(), bandwidth.detach()
    checks.all_finite(queries=queries, points=points)
    if has_kernel(queries, points):
        result = torch.ops.pyfastcal.log_density(queries.float(), points.float(), bandwidth.double())
    else:
        result = reference.log_density(queries.double(), points.double(), bandwidth.double())
    check_result(result, queries=queries, points=points)
    return result


@fake("log_density")
def _(queries, points, bandwidth):
    return queries.new_empty(queries.shape[0], dtype=torch.float64)
