"""bin_counts: every value in its bin, sums exact, the same bits in any order."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal import ops, reference
from pyfastcal.ops import extension

from ..devices import run_on
from .cases import seeds

CLOSED = ("left", "right")


def sample(seed, n, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(n, generator=generator).to(dtype)
    return confidence, torch.rand(n, generator=generator) < confidence


def assert_same(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


@given(
    n=st.sampled_from((0, 1, 5, 511, 512, 2048, 2049, 16_384, 16_385, 70_000)),
    n_bins=st.sampled_from((1, 2, 3, 10, 15, 16, 17, 64, 65, 100, 320, 321, 3000, 5000)),
    dtype=st.sampled_from((torch.float32, torch.float16, torch.bfloat16, torch.float64)),
    closed=st.sampled_from(CLOSED),
    n_groups=st.sampled_from((1, 3)),
    grouped=st.booleans(),
    seed=seeds,
)
def test_is_its_twin_to_the_bit(device, n, n_bins, dtype, closed, n_groups, grouped, seed):
    confidence, correct = sample(seed, n, dtype)
    group = torch.randint(0, n_groups, (n,), generator=torch.Generator().manual_seed(seed)) if grouped else None
    options = dict(group=group, n_groups=n_groups, closed=closed)
    ours = run_on(device, fc.bin_counts)(confidence, correct, n_bins, **options)
    assert ours[0].shape == (n_groups, n_bins) and int(ours[0].sum()) == n
    assert_same(ours, reference.bin_counts(confidence, correct, n_bins, **options))


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize("n_bins", [1, 3, 7, 10, 15, 16, 17, 60, 100])
@pytest.mark.parametrize("copies", [1, 300])  # few samples are searched for, many are packed
def test_edges_and_their_neighbours(device, copies, n_bins, closed):
    """Each edge, as fp32, and the floats around it: restated without torch."""
    edges = [np.float32(i / n_bins) for i in range(n_bins + 1)]
    near = [np.nextafter(e, np.float32(to)) for e in edges for to in (0, 1)]
    values = [v for v in (*edges, *near, np.float32(-0.0), np.float32(1e-45)) if 0 <= v <= 1]
    expected = [0] * n_bins
    for v in values:
        inner = edges[1:-1]
        expected[sum(e <= v for e in inner) if closed == "left" else sum(e < v for e in inner)] += 1
    confidence = torch.tensor(np.array(values)).repeat(copies)
    correct = torch.ones(len(confidence), dtype=torch.bool)
    counts, _, _ = run_on(device, fc.bin_counts)(confidence, correct, n_bins, closed=closed)
    assert counts[0].tolist() == [copies * count for count in expected]


@given(values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_sums_are_exact_multiples_of_two_to_the_minus_32(device, values):
    confidence = torch.tensor(values)
    fixed = run_on(device, ops.fixed_point_bin_counts)(confidence, torch.ones(len(values), dtype=torch.bool), 1)
    # Python's round is to even, as the definition
    assert fixed[2, 0, 0] == sum(round(Fraction(float(v)) * 2**32) for v in confidence.tolist())


@given(
    edges=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30).map(sorted),
    n=st.sampled_from((200, 1000)),
    closed=st.sampled_from(CLOSED),
    seed=seeds,
)
def test_any_edges(device, edges, n, closed, seed):
    """Equal-mass edges may coincide, start above 0 and lie closer together than the kernel's cells."""
    confidence, correct = sample(seed, n)
    confidence[: len(edges)] = torch.tensor(edges)
    options = dict(edges=torch.tensor(edges), closed=closed)
    ours = run_on(device, fc.bin_counts)(confidence, correct, **options)
    assert_same(ours, reference.bin_counts(confidence, correct, **options))


def test_float64_is_not_rounded_across_an_edge(device):
    just_below = math.nextafter(float(np.float32(0.1)), 0.0)
    confidence = torch.tensor([just_below], dtype=torch.float64)
    counts, _, _ = run_on(device, fc.bin_counts)(confidence, torch.tensor([True]), 10)
    assert counts[0].tolist() == [1] + [0] * 9


@pytest.mark.parametrize("n_bins", [15, 200, 1000])
def test_same_bits_in_any_order_split_run_and_on_any_device_or_number_of_threads(device, threads, n_bins):
    confidence, correct = sample(0, 300_000)
    expected = reference.fixed_point_bin_counts(confidence, correct, n_bins)
    count = run_on(device, ops.fixed_point_bin_counts)
    order = torch.randperm(300_000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(count(confidence[order], correct[order], n_bins), expected)
    parts = zip(confidence.split(7919), correct.split(7919), strict=True)
    assert torch.equal(sum(count(c, k, n_bins) for c, k in parts), expected)
    for n in (1, 2, 7):
        threads(n)
        assert torch.equal(count(confidence, correct, n_bins), expected)


def test_a_bin_that_takes_everything(device):
    """Fields of the packed histogram at their fullest."""
    ones = torch.ones(1_000_001)
    counts, correct, sums = run_on(device, fc.bin_counts)(ones, ones.bool(), 10)
    assert counts[0, 9] == correct[0, 9] == 1_000_001 and sums[0, 9] == 1_000_001.0


def test_correct_as_numbers_strided_and_unaligned_input(device):
    confidence, correct = (x.to(device) for x in sample(0, 10_001))
    expected = fc.bin_counts(confidence[::2].contiguous(), correct[::2].contiguous())
    assert_same(fc.bin_counts(confidence[::2], correct[::2]), expected)
    assert_same(fc.bin_counts(confidence[::2], correct[::2].long()), expected)
    assert_same(fc.bin_counts(confidence[::2], correct[::2].float()), expected)
    assert_same(fc.bin_counts(confidence[1:], correct[1:]), fc.bin_counts(confidence[1:].clone(), correct[1:].clone()))


@pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")
@pytest.mark.parametrize(("n", "n_bins"), [(100, 10), (30_000, 10), (30_000, 500)])
def test_the_kernel_leaves_out_and_counts_what_is_invalid(device, n, n_bins):
    confidence, correct = sample(0, n)
    group = torch.arange(n) % 3
    confidence[:4] = torch.tensor([float("nan"), -0.1, 1.5, float("inf")])
    group[4:6] = torch.tensor([-1, 3])
    count = run_on(device, torch.ops.pyfastcal.bin_counts)
    totals, invalid = count(confidence, correct, None, n_bins, group, 3, False)
    expected = reference.fixed_point_bin_counts(confidence[6:], correct[6:], n_bins, group=group[6:], n_groups=3)
    assert invalid == 6 and torch.equal(totals, expected)
    totals, invalid = count(confidence, correct, None, n_bins, None, 1, False)
    assert invalid == 4
    assert torch.equal(totals, reference.fixed_point_bin_counts(confidence[4:], correct[4:], n_bins))


C, K = torch.tensor([0.2, 0.9]), torch.tensor([True, False])
BAD = [
    ("confidence", dict(confidence=C[None], correct=K), "1 dimension"),
    ("confidence", dict(confidence=torch.tensor([1, 0]), correct=K), "floating"),
    ("confidence", dict(confidence=torch.tensor([0.5, 1.5]), correct=K), r"lie in \[0, 1\], got 1.5"),
    ("confidence", dict(confidence=torch.tensor([0.5, -0.5]), correct=K), "got -0.5"),
    ("confidence", dict(confidence=torch.tensor([0.5, float("nan")]), correct=K), "got nan"),
    ("confidence", dict(confidence=torch.tensor([0.5, 2.0], dtype=torch.float64), correct=K), "got 2"),
    ("correct", dict(confidence=C, correct=K[:1]), "2 entries"),
    ("correct", dict(confidence=C, correct=torch.tensor([0, 2])), "zeros and ones, got 2"),
    ("correct", dict(confidence=C, correct=K.to("meta")), "must be on cpu"),
    ("n_bins", dict(confidence=C, correct=K, n_bins=0), "at least 1"),
    ("edges", dict(confidence=C, correct=K, edges=torch.tensor([0.5])), "at least 2"),
    ("edges", dict(confidence=C, correct=K, edges=torch.tensor([0.5, 0.1])), "ascending"),
    ("edges", dict(confidence=C, correct=K, edges=torch.tensor([0.5, float("nan")])), "finite"),
    ("group", dict(confidence=C, correct=K, group=torch.tensor([0, 2]), n_groups=2), r"in \[0, 2\), got 2"),
    ("group", dict(confidence=C, correct=K, group=torch.tensor([0.0, 1.0]), n_groups=2), "integers"),
    ("n_groups", dict(confidence=C, correct=K, n_groups=0), "at least 1"),
    ("closed", dict(confidence=C, correct=K, closed="both"), "one of 'left', 'right'"),
]


@pytest.mark.parametrize(("name", "arguments", "says"), BAD)
def test_bad_input(capability, name, arguments, says):
    with pytest.raises(ValueError, match=rf"^{name} .*{says}") as caught:
        fc.bin_counts(**arguments)
    assert "\n" not in str(caught.value)
