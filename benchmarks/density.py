"""The density of points in the plane at queries, by a Gaussian product kernel. The floor takes as many powers in torch.

The columns of the points are uncorrelated, so that scipy's kernel, shaped as the points are, is a product too.
"""

import contextlib
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.testing import assert_close

from pyfastcal import ops

from . import data
from .harness import Case, Floor

SIZES = ((10_000, 10_000),)
QUICK = ((100, 300),)
GPU_SIZES = ((10_000, 10_000, "fp32"),)
GPU_QUICK = ((100, 300, "fp32"),)
ROWS = 500  # of the matrix of distances that exist at a time


def work(size: tuple) -> str:
    n_queries, n_points, *dtype = size
    return f"density of {n_points:,} points at {n_queries:,} queries{' on the GPU' if dtype else ''}"


def case(size: tuple, device: str = "cpu") -> Case:
    n_queries, n_points, *dtype = size
    queries = torch.randn(n_queries, 2, generator=data.generator(device=device), device=device)
    points = torch.randn(n_points, 2, generator=data.generator(1, device), device=device)
    points = points - points.mean(0)
    u, v = points.unbind(1)
    points = torch.stack([u, v - u * (u @ v) / (u @ u)], 1)
    bandwidth = 1.06 * points.double().std(0, correction=0) * n_points ** (-1 / 6)
    block = torch.rand(1 << (22 if dtype else 20), device=device)  # 4 or 16 MB
    peers = {} if dtype else {"statsmodels": statsmodels(queries, points, bandwidth)}
    peers |= {} if dtype else {"scipy": scipy(queries, points, bandwidth)}
    return Case(
        lambda: ops.log_density(queries, points, bandwidth),
        idiom,
        (queries, points, bandwidth.float()),
        lambda ours, theirs: assert_close(ours, theirs.double(), rtol=0, atol=1e-3),
        peers,
        {"torch.exp in cache": Floor(block.exp, share=n_queries * n_points / len(block))},
        device=device,
        compile=not dtype,
    )


def idiom(queries: Tensor, points: Tensor, bandwidth: Tensor) -> Tensor:
    queries, points = queries / bandwidth, points / bandwidth
    sums = torch.cat([torch.logsumexp(torch.cdist(q, points).square() / -2, dim=1) for q in queries.split(ROWS)])
    return sums - torch.log(2 * math.pi * bandwidth.prod() * len(points))


def statsmodels(queries: Tensor, points: Tensor, bandwidth: Tensor) -> Callable[[], Tensor] | str:
    with contextlib.suppress(ImportError):
        from statsmodels.nonparametric.api import KDEMultivariate

        density = KDEMultivariate(points.double().numpy(), "cc", bw=bandwidth.numpy())
        return lambda: torch.from_numpy(density.pdf(queries.double().numpy())).log()
    return "statsmodels is not installed"


def scipy(queries: Tensor, points: Tensor, bandwidth: Tensor) -> Callable[[], Tensor] | str:
    with contextlib.suppress(ImportError):
        from scipy.stats import gaussian_kde

        factor = float(bandwidth[0] / points[:, 0].double().std())
        density = gaussian_kde(points.double().T.numpy(), bw_method=factor)
        return lambda: torch.from_numpy(density.pdf(queries.double().T.numpy())).log()
    return "scipy is not installed"
