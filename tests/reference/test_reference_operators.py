"""The twins against brute-force NumPy restatements in float64: they are the definition, so they get their
own oracle."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyfastcal import reference

SEEDS = st.integers(0, 2**32 - 1)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@given(SEEDS, st.integers(1, 6), st.integers(1, 9), st.booleans(), st.booleans(), st.data())
def test_knn(seed, n_queries, n_bank, exclude_self, normalize, data):
    bank = normal(seed, n_bank + exclude_self, 3)
    if n_bank > 2:
        bank[1] = bank[0]  # a tie
    queries = bank if exclude_self else normal(seed + 1, n_queries, 3)
    k = data.draw(st.integers(1, n_bank))
    distances, indices = reference.knn(queries, bank, k, exclude_self=exclude_self, normalize=normalize)
    q, b = (unit(x.numpy()) if normalize else x.numpy() for x in (queries, bank))
    for i in range(len(q)):
        expected = sorted(
            (np.sqrt(((q[i] - b[j]) ** 2).sum()), j) for j in range(len(b)) if not (exclude_self and i == j)
        )[:k]
        np.testing.assert_allclose(distances[i], [d for d, _ in expected], atol=1e-12)
        assert sorted(indices[i].tolist()) == sorted(j for _, j in expected)
    assert torch.equal(distances, distances.sort(dim=1).values)


def test_knn_orders_equal_distances_by_index_and_puts_identical_rows_at_exactly_zero():
    row = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    distances, indices = reference.knn(row, row.expand(6, 8), 4)
    assert distances.tolist() == [[0.0] * 4]
    assert indices.tolist() == [[0, 1, 2, 3]]


def test_knn_does_not_depend_on_its_chunks(monkeypatch):
    queries, bank = normal(0, 7, 4), normal(1, 5, 4)
    whole = reference.knn(queries, bank, 3)
    monkeypatch.setattr("pyfastcal.reference.operators._CHUNK", 10)
    for chunked, one in zip(reference.knn(queries, bank, 3), whole, strict=True):
        assert torch.equal(chunked, one)


@given(SEEDS, st.integers(0, 6), st.integers(1, 7), st.booleans(), st.booleans())
def test_confidence(seed, n, n_classes, by_class, by_row):
    logits = 10 * normal(seed, n, n_classes)
    class_weight = normal(seed + 1, n_classes).exp() if by_class else None
    sample_weight = normal(seed + 2, n).exp() if by_row else None
    confidence, prediction = reference.confidence(logits, class_weight=class_weight, sample_weight=sample_weight)
    assert confidence.shape == prediction.shape == (n,) and prediction.dtype == torch.int64
    for i in range(n):
        row = logits[i].numpy()
        factor = (class_weight[row.argmax()].item() if by_class else 1) * (sample_weight[i].item() if by_row else 1)
        assert prediction[i] == row.argmax()
        np.testing.assert_allclose(confidence[i], softmax(factor * row[None]).max(), rtol=1e-12)


@given(SEEDS, st.integers(0, 5), st.integers(1, 6), st.booleans(), st.sampled_from([None, -3.0]))
def test_similarity_confidence_is_the_confidence_of_its_logits(seed, n, n_classes, normalize, bias):
    image, text, weight = (
        normal(seed, n, 4),
        normal(seed + 1, n_classes, 4),
        normal(seed + 2, n_classes).exp(),
    )
    got = reference.similarity_confidence(image, text, 20.0, logit_bias=bias, class_weight=weight, normalize=normalize)
    a, b = (unit(x.numpy()) if normalize else x.numpy() for x in (image, text))
    logits = torch.from_numpy(20 * a @ b.T + (bias or 0))
    expected = reference.confidence(logits, class_weight=weight)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-10, atol=0)
    assert torch.equal(got[1], expected[1])


@given(SEEDS, st.integers(0, 5), st.integers(1, 6), st.sampled_from(["similarity", "probability"]))
def test_contrast_distance(seed, n, n_classes, on):
    features = [normal(seed + i, rows, 4) for i, rows in enumerate((n, n_classes, n, n_classes))]
    z = reference.contrast_distance(*features, on=on, logit_scale=30.0)
    a, b, c, d = (unit(x.numpy()) for x in features)
    p, q = a @ b.T, c @ d.T
    if on == "probability":
        p, q = softmax(30 * p), softmax(30 * q)
    np.testing.assert_allclose(z, np.abs(p - q).mean(axis=1), atol=1e-13)


BIN_VALUES = st.one_of(st.floats(0, 1, width=32), st.sampled_from([i / 10 for i in range(11)]))


@given(
    st.lists(st.tuples(BIN_VALUES, st.booleans(), st.integers(0, 2)), max_size=30),
    st.integers(1, 12),
    st.sampled_from(["left", "right"]),
)
def test_bin_counts(rows, n_bins, closed):
    confidence = torch.tensor([r[0] for r in rows], dtype=torch.float32)
    correct = torch.tensor([r[1] for r in rows], dtype=torch.bool)
    group = torch.tensor([r[2] for r in rows], dtype=torch.int64)
    got = reference.bin_counts(confidence, correct, n_bins, group=group, n_groups=3, closed=closed)
    edges = [float(np.float32(i / n_bins)) for i in range(n_bins + 1)]
    expected = np.zeros((3, 3, n_bins))
    for value, right, g in zip(confidence.tolist(), correct.tolist(), group.tolist(), strict=True):
        if closed == "left":
            b = max(i for i in range(n_bins) if value >= edges[i])
        else:
            b = min(i for i in range(n_bins) if value <= edges[i + 1])
        expected[:, g, b] += 1, right, value
    for counted, brute in zip(got, expected, strict=True):
        np.testing.assert_allclose(counted.numpy(), brute, atol=len(rows) * 2.0**-33)
    assert [c.dtype for c in got] == [torch.int64, torch.int64, torch.float64]


def test_bin_counts_puts_what_lies_beyond_the_edges_in_the_outer_bins():
    values = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
    counts, _, sums = reference.bin_counts(values, values > 0, edges=torch.tensor([0.25, 0.5, 0.75]))
    assert counts.tolist() == [[3, 3]]
    np.testing.assert_allclose(sums, [[0.4, 2.4]], atol=1e-7)


@given(SEEDS, st.integers(1, 40))
def test_bin_counts_are_the_same_bits_in_any_order_and_split(seed, n):
    values, correct = normal(seed, n).sigmoid().float(), normal(seed + 1, n) > 0
    whole = reference.bin_counts(values, correct)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for a, b in zip(whole, reference.bin_counts(values[order], correct[order]), strict=True):
        assert torch.equal(a, b)
    cut = n // 2
    parts = zip(
        reference.bin_counts(values[:cut], correct[:cut]),
        reference.bin_counts(values[cut:], correct[cut:]),
        strict=True,
    )
    for a, (b, c) in zip(whole, parts, strict=True):
        assert torch.equal(a, b + c)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precision_of_results(dtype):
    wide = dtype if dtype == torch.float64 else torch.float32
    x, y = normal(0, 5, 4).to(dtype), normal(1, 3, 4).to(dtype)
    assert reference.knn(x, y, 2)[0].dtype == wide
    assert reference.confidence(x)[0].dtype == wide
    assert reference.similarity_confidence(x, y)[0].dtype == wide
    assert reference.contrast_distance(x, y, x, y).dtype == wide
    assert reference.proximity(x, y, 2).dtype == wide
    assert reference.textual_deviation(x, x, y, y, 2).dtype == wide
    assert reference.expected_calibration_error(x.sigmoid()[:, 0], x[:, 1] > 0).dtype == torch.float64


@given(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.50001, 0.7, 1.0]), min_size=1, max_size=40), st.integers(1, 6))
def test_equal_mass_groups_keep_ties_together_and_ignore_order(values, n_groups):
    x = torch.tensor(values)
    group = reference.equal_mass_groups(x, n_groups)
    assert int(group.min()) >= 0 and int(group.max()) < n_groups
    for v in set(values):
        assert len(set(group[x == torch.tensor(v)].tolist())) == 1
    assert torch.equal(reference.equal_mass_groups(x.flip(0), n_groups), group.flip(0))
    in_order = group[x.argsort()]
    assert torch.equal(in_order, in_order.sort().values)


@given(SEEDS, st.integers(1, 60), st.integers(1, 12))
def test_equal_mass_groups_without_ties_differ_by_at_most_one_row(seed, n, n_groups):
    sizes = reference.equal_mass_groups(normal(seed, n), n_groups).bincount(minlength=n_groups)
    assert int(sizes.sum()) == n and int(sizes.max() - sizes.min()) <= 1
