"""knn: exact distances, a definite order, nothing lost by the filter."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal import reference
from pyfastcal.ops import extension

from ..conftest import use_capability
from ..devices import kernels_only, run_on
from .cases import dtypes, normal, seeds, sizes


def agree(ours, queries, bank, k, **options):
    """Distances to fp32 rounding; every index at the distance it claims; same order but for ties within rounding."""
    distances, indices = ours
    exact, _ = reference.knn(queries.double(), bank.double(), k, **options)
    torch.testing.assert_close(distances.double(), exact, rtol=3e-7, atol=1e-12)
    assert distances.dtype == torch.float32 and indices.dtype == torch.int64
    assert all(len(set(row)) == k for row in indices.tolist())
    if options.get("normalize", True):
        queries, bank = (torch.nn.functional.normalize(x.double(), dim=1) for x in (queries, bank))
    claimed = (queries.double()[:, None] - bank.double()[indices]).norm(dim=2)
    torch.testing.assert_close(claimed, distances.double(), rtol=3e-7, atol=1e-12)


@given(
    q=st.sampled_from((0, 1, 7, 40)),
    m=sizes,
    d=sizes,
    dtype=dtypes,
    seed=seeds,
    normalize=st.booleans(),
    data=st.data(),
)
def test_matches_the_definition(device, q, m, d, dtype, seed, normalize, data):
    k = data.draw(st.integers(1, m))
    queries, bank = normal(seed, q, d, dtype=dtype), normal(seed + 1, m, d, dtype=dtype)
    ours = run_on(device, fc.knn)(queries, bank, k, normalize=normalize)
    assert ours[0].shape == (q, k)
    agree(ours, queries, bank, k, normalize=normalize)


@pytest.mark.parametrize(
    ("q", "m", "d", "k"),
    [(300, 3000, 64, 10), (3, 9000, 32, 20), (100, 700, 512, 64), (9, 900, 40, 128), (1, 5000, 3, 300)],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_larger(device, q, m, d, k, normalize):
    queries, bank = normal(0, q, d), normal(1, m, d)
    agree(run_on(device, fc.knn)(queries, bank, k, normalize=normalize), queries, bank, k, normalize=normalize)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_all_near_one_another(device, dtype):
    """As features of one model are."""
    centre, spread = normal(0, 1, 70), 0.02
    queries, bank = ((centre + normal(seed, n, 70, scale=spread)).to(dtype) for seed, n in ((1, 40), (2, 3000)))
    agree(run_on(device, fc.knn)(queries, bank, 10), queries, bank, 10)


@pytest.mark.parametrize("length", [3e-15, 1e-13, 9.9e-13])
def test_rows_shorter_than_what_normalize_divides_by(device, length):
    """They stay shorter than 1, so nearer than most others."""
    queries, bank = normal(0, 20, 48), normal(1, 600, 48)
    bank[::7] *= length / bank[::7].norm(dim=1, keepdim=True)
    agree(run_on(device, fc.knn)(queries, bank, 10), queries, bank, 10)


@given(seed=seeds, k=st.integers(1, 60))
def test_ties_are_ordered_by_index(device, seed, k):
    generator = torch.Generator().manual_seed(seed)
    bank = torch.randint(0, 2, (60, 3), generator=generator).float()
    queries = torch.randint(0, 2, (9, 3), generator=generator).float()
    ours = run_on(device, fc.knn)(queries, bank, k, normalize=False)
    expected = reference.knn(queries.double(), bank.double(), k, normalize=False)
    assert torch.equal(ours[1], expected[1])


def test_duplicates_are_at_exactly_zero(device):
    bank = normal(0, 500, 96)
    bank[100:150] = bank[3]
    distances, indices = run_on(device, fc.knn)(bank[3:4], bank, 52)
    assert indices[0, :51].tolist() == [3, *range(100, 150)]
    assert (distances[0, :51] == 0).all() and distances[0, 51] > 0.1


@pytest.mark.parametrize("gap", [1e-3, 1e-5, 1e-7])
def test_near_duplicates_keep_their_precision(device, gap):
    """|q|^2 + |b|^2 - 2 q.b in fp32 would return 0 or noise for all of these."""
    query = normal(0, 1, 512)
    bank = torch.cat([normal(1, 300, 512), query + gap * normal(2, 40, 512)])
    distances, indices = run_on(device, fc.knn)(query, bank, 40)
    assert (indices >= 300).all()
    agree((distances, indices), query, bank, 40)


@pytest.mark.parametrize("normalize", [True, False])
def test_many_bank_rows_within_rounding_of_each_other(device, normalize):
    """More candidates inside the filter's slack than its first shortlist holds."""
    centre = normal(0, 1, 64)
    bank = centre + 1e-6 * normal(1, 3000, 64)
    queries = centre + 1e-6 * normal(2, 5, 64)
    ours = run_on(device, fc.knn)(queries, bank, 7, normalize=normalize)
    agree(ours, queries, bank, 7, normalize=normalize)
    assert torch.equal(ours[1], reference.knn(queries.double(), bank.double(), 7, normalize=normalize)[1])


@kernels_only
@pytest.mark.parametrize("normalize", [True, False])
@given(
    gap=st.sampled_from((0.3, 0.03, 3e-3, 1e-3, 1e-4, 1e-6)),
    k=st.integers(1, 20),
    m=st.sampled_from((600, 3400)),  # of the larger few are kept at a time, of the smaller all scores
    dtype=dtypes,
    seed=seeds,
)
def test_no_neighbour_is_lost_where_rows_differ_by_a_rounding(device, normalize, gap, k, m, dtype, seed):
    """Of bf16, fp16 and fp32: whatever a filter multiplies, some of these banks it cannot tell apart."""
    centre = normal(seed, 1, 70, dtype=torch.float32)
    bank = (centre + gap * normal(seed + 1, m, 70)).to(dtype)
    queries = (centre + gap * normal(seed + 2, 3, 70)).to(dtype)
    ours = run_on(device, fc.knn)(queries, bank, k, normalize=normalize)
    exact = reference.knn(queries.double(), bank.double(), k, normalize=normalize)
    torch.testing.assert_close(ours[0].double(), exact[0], rtol=3e-7, atol=1e-12)


@pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("k", "m"), [(1, 900), (10, 3000), (200, 900), (900, 900)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_all_variants_with_fused_multiply_adds_give_the_same_bits(dtype, k, m, normalize):
    scale = 10.0 ** torch.linspace(-3, 3, m)[:, None]  # longer and longer rows
    queries, bank = normal(0, 150, 77, dtype=dtype), (scale * normal(1, m, 77)).to(dtype)
    found = {}
    for name in extension.C.cpu_capabilities():
        if name != "scalar":
            with use_capability(name):
                found[name] = fc.knn(queries, bank, k, normalize=normalize)
    first = next(iter(found.values()), None)
    for name, (distances, indices) in found.items():
        assert torch.equal(distances, first[0]) and torch.equal(indices, first[1]), name


def test_exclude_self(device):
    x = normal(0, 70, 20)
    x[10] = x[50]
    knn = run_on(device, fc.knn)
    distances, indices = knn(x, x, 5, exclude_self=True)
    assert not (indices == torch.arange(70)[:, None]).any()
    assert indices[10, 0] == 50 and indices[50, 0] == 10 and distances[10, 0] == 0
    agree((distances, indices), x, x, 5, exclude_self=True)
    assert knn(x, x, 69, exclude_self=True)[1].sort(1).values[0].tolist() == [i for i in range(70) if i != 0]


@pytest.mark.parametrize("size", [1e-10, 1e17, 1e30])
def test_vectors_that_fp32_products_cannot_hold(device, size):
    queries, bank = normal(0, 9, 24), normal(1, 60, 24)
    expected = run_on(device, fc.knn)(queries, bank, 6)
    bank = bank.clone()
    bank[::2] *= size
    ours = run_on(device, fc.knn)(queries * size, bank, 6)
    assert torch.equal(ours[1], expected[1])
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-6, atol=0)
    if size > 1:
        agree(run_on(device, fc.knn)(queries, bank, 6, normalize=False), queries, bank, 6, normalize=False)


def test_zero_vectors(device):
    queries, bank = (
        torch.cat([torch.zeros(1, 8), normal(0, 3, 8)]),
        torch.cat([normal(1, 30, 8), torch.zeros(3, 8)]),
    )
    for normalize in (True, False):
        agree(run_on(device, fc.knn)(queries, bank, 5, normalize=normalize), queries, bank, 5, normalize=normalize)
    assert run_on(device, fc.knn)(torch.zeros(1, 8), torch.zeros(40, 8), 40)[1][0].tolist() == list(range(40))


# shortlists; with 70 neighbours kept scores, or all distances of two queries; in parts of the bank, or in many blocks
@pytest.mark.parametrize(("q", "k"), [(90, 10), (90, 70), (2, 70), (520, 70)])
def test_same_bits_on_any_number_of_threads_and_for_any_split(device, threads, q, k):
    queries, bank = normal(0, q, 48), normal(1, 6000, 48)
    expected = run_on(device, fc.knn)(queries, bank, k)
    for n in (1, 2, 3):
        threads(n)
        ours = run_on(device, fc.knn)(queries, bank, k)
        assert torch.equal(ours[0], expected[0]) and torch.equal(ours[1], expected[1])
    for size in (1, 13):  # one query: all distances are measured
        parts = [run_on(device, fc.knn)(part, bank, k) for part in queries[:20].split(size)]
        for found, whole in zip(zip(*parts, strict=True), expected, strict=True):
            assert torch.equal(torch.cat(found), whole[:20])


def test_permuting_the_bank_permutes_the_indices(device):
    queries, bank = normal(0, 20, 30), normal(1, 400, 30)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    distances, indices = run_on(device, fc.knn)(queries, bank, 8)
    shuffled = run_on(device, fc.knn)(queries, bank[order], 8)
    assert torch.equal(shuffled[0], distances) and torch.equal(order[shuffled[1]], indices)


def test_layouts(device):
    queries, bank = normal(0, 40, 64).to(device), normal(1, 120, 64).to(device)
    expected = fc.knn(queries[::2, ::2].contiguous(), bank[:, ::2].contiguous(), 4)
    ours = fc.knn(queries[::2, ::2], bank[:, ::2], 4)
    assert torch.equal(ours[0], expected[0]) and torch.equal(ours[1], expected[1])


def test_agrees_with_faiss():
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is a development requirement")
    queries, bank = normal(0, 50, 32), normal(1, 2000, 32)
    index = faiss.IndexFlatL2(32)
    index.add(bank.numpy())
    squares, indices = index.search(queries.numpy(), 10)
    ours = fc.knn(queries, bank, 10, normalize=False)
    torch.testing.assert_close(ours[0].square(), torch.from_numpy(squares), rtol=1e-4, atol=1e-4)
    assert (ours[1] == torch.from_numpy(indices)).float().mean() > 0.99


Q, B = torch.ones(3, 4), torch.ones(5, 4)
INFINITE = torch.full((1, 4), float("inf"))
BAD = [
    ("queries", dict(queries=Q[None], bank=B, k=1), "2 dimensions"),
    ("queries", dict(queries=Q.long(), bank=B, k=1), "floating"),
    ("queries", dict(queries=torch.cat([Q, INFINITE]), bank=B, k=1), "finite"),
    ("bank", dict(queries=Q, bank=B[:, :2], k=1), "4 columns as queries"),
    ("bank", dict(queries=Q, bank=B[:0], k=1), "empty"),
    ("bank", dict(queries=Q, bank=torch.cat([B, INFINITE]), k=1), "finite"),
    ("bank", dict(queries=Q, bank=B.to("meta"), k=1), "must be on cpu"),
    ("bank", dict(queries=Q, bank=B, k=1, exclude_self=True), "3 rows of queries"),
    ("k", dict(queries=Q, bank=B, k=0), "at least 1"),
    ("k", dict(queries=Q, bank=B, k=6), "at most 5 .bank has 5 rows.*got 6"),
    ("k", dict(queries=B, bank=B, k=5, exclude_self=True), "at most 4"),
    ("k", dict(queries=Q, bank=B, k=2.0), "integer"),
    ("k", dict(queries=Q, bank=B, k=True), "integer"),
]


@pytest.mark.parametrize(("name", "arguments", "says"), BAD)
def test_bad_input(capability, name, arguments, says):
    with pytest.raises(ValueError, match=rf"^{name} .*{says}") as caught:
        fc.knn(**arguments)
    assert "\n" not in str(caught.value)
