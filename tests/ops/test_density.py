"""log_density: against fp64, statsmodels, and far from everything."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.nonparametric.api import KDEMultivariate

from pyfastcal import ops, reference

from ..devices import run_on
from .cases import assert_within_budget, dtypes, normal, seeds


def bandwidth(u: float, v: float) -> torch.Tensor:
    return torch.tensor([u, v], dtype=torch.float64)


H = bandwidth(0.31, 0.17)


@given(
    q=st.sampled_from((0, 1, 4, 5, 63, 64, 65, 130)),
    n=st.sampled_from((1, 2, 15, 16, 17, 100, 2047, 2048, 2049, 5000)),
    dtype=dtypes,
    seed=seeds,
    width=st.floats(0.05, 3.0),
)
def test_matches_the_definition(device, q, n, dtype, seed, width):
    queries, points = normal(seed, q, 2, dtype=dtype), normal(seed + 1, n, 2, dtype=dtype)
    h = bandwidth(width, 0.7 * width)
    ours = run_on(device, ops.log_density)(queries, points, h)
    exact = reference.log_density(queries.double(), points.double(), h)
    assert ours.shape == (q,) and ours.dtype == torch.float64
    if q:  # an absolute error of a logarithm: the density's own is relative
        assert_within_budget(ours, reference.log_density(queries, points, h), exact, unit=1.0)


def test_is_the_estimate_of_statsmodels(device):
    queries, points = normal(0, 200, 2), normal(1, 3000, 2)
    peer = KDEMultivariate(points.double().numpy(), "cc", bw=H.numpy()).pdf(queries.double().numpy())
    torch.testing.assert_close(
        run_on(device, ops.log_density)(queries, points, H).exp(), torch.from_numpy(peer), rtol=2e-6, atol=0
    )
    exact = run_on(device, ops.log_density)(queries.double(), points.double(), H).exp()
    torch.testing.assert_close(exact, torch.from_numpy(peer), rtol=1e-12, atol=0)


def test_restated_for_one_query(device):
    points = [(0.2, 0.9), (0.5, 0.1), (0.55, 0.3)]
    terms = [math.exp(-(((0.4 - u) / 0.31) ** 2 + ((0.6 - v) / 0.17) ** 2) / 2) for u, v in points]
    expected = math.log(sum(terms) / 3 / (2 * math.pi * 0.31 * 0.17))
    assert run_on(device, ops.log_density)(torch.tensor([[0.4, 0.6]]), torch.tensor(points), H).item() == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0, 2.2, 2.4, 3.0, 4.0, 5.0, 10.0, 1e3, 1e12])
def test_far_from_all_points(device, distance):
    """Where fp32 powers, and in the end fp64 ones, would be 0; and across the border between the two ways."""
    points = 0.1 * normal(0, 3000, 2)
    queries = torch.tensor([[distance, 0.0], [0.0, -distance], [distance, distance]])
    ours = run_on(device, ops.log_density)(queries, points, H)
    exact = reference.log_density(queries.double(), points.double(), H)
    torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("width", [1e-30, 1e-10, 1e10, 1e30])
def test_any_bandwidth(device, width):
    points, h = torch.tensor([[0.0, 0.0], [0.5, 0.25], [0.5, 0.5]]), bandwidth(width, 2 * width)
    queries = torch.tensor([[0.5, 0.25], [0.0, 0.5], [0.3, 0.3]])
    ours = run_on(device, ops.log_density)(queries, points, h)
    exact = reference.log_density(queries.double(), points.double(), h)
    torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-6)


def test_integrates_to_one(device):
    points, h = 0.3 * normal(4, 50, 2), bandwidth(0.2, 0.4)
    axis = torch.linspace(-3, 3, 121)
    density = run_on(device, ops.log_density)(torch.cartesian_prod(axis, axis), points, h).exp()
    assert float(density.sum()) * (6 / 120) ** 2 == pytest.approx(1, abs=1e-5)


def test_same_bits_for_any_batch_order_or_thread_count(device, threads):
    queries, points, h = (x.to(device) for x in (normal(5, 301, 2), normal(6, 4100, 2), H))
    expected = ops.log_density(queries, points, h)
    assert torch.equal(torch.cat([ops.log_density(part, points, h) for part in queries.split(37)]), expected)
    order = torch.randperm(301, generator=torch.Generator().manual_seed(0)).to(device)
    assert torch.equal(ops.log_density(queries[order], points, h), expected[order])
    for n in (1, 2, 3):
        threads(n)
        assert torch.equal(ops.log_density(queries, points, h), expected)
    wide = torch.cat([queries, queries], 1)[:, ::2].contiguous()
    assert torch.equal(
        ops.log_density(torch.stack([wide, wide], 2)[:, :, 0], points, h), ops.log_density(wide, points, h)
    )


Q, P = torch.zeros(3, 2), torch.ones(4, 2)
BAD = [
    ("queries", dict(queries=Q[0], points=P), "2 dimensions"),
    ("queries", dict(queries=Q[:, :1], points=P), "2 columns"),
    ("queries", dict(queries=Q.long(), points=P), "floating point"),
    ("queries", dict(queries=Q + math.nan, points=P), "finite"),
    ("points", dict(queries=Q, points=P[:0]), "empty"),
    ("points", dict(queries=Q, points=torch.ones(4, 3)), "2 columns"),
    ("points", dict(queries=Q, points=P.to("meta")), "must be on cpu"),
    ("points", dict(queries=Q, points=P / 0), "finite"),
    ("bandwidth", dict(queries=Q, points=P, bandwidth=torch.ones(1)), "2 entries"),
    ("bandwidth", dict(queries=Q, points=P, bandwidth=torch.tensor([1.0, 0.0])), "greater than 0, got 0.0"),
    ("bandwidth", dict(queries=Q, points=P, bandwidth=torch.tensor([1.0, math.nan])), "finite"),
]


@pytest.mark.parametrize(("name", "arguments", "says"), BAD)
def test_bad_input(capability, name, arguments, says):
    with pytest.raises(ValueError, match=rf"^{name} .*{says}") as caught:
        ops.log_density(**{"bandwidth": H, **arguments})
    assert "\n" not in str(caught.value)
