"""IsotonicRegression and MultiIsotonicRegression: scikit-learn's, and which of them keep predictions."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression as Oracle

import pyfastcal as fc

from .data import calibrated_by_scikit_learn, probs_and_labels

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def test_one_vs_rest_is_that_of_scikit_learn():
    probs, labels = probs_and_labels(dtype=torch.float64)
    new, _ = probs_and_labels(1, dtype=torch.float64)
    expected = calibrated_by_scikit_learn("isotonic", probs, labels, new)
    torch.testing.assert_close(fc.IsotonicRegression().fit(probs, labels)(new), expected, rtol=1e-12, atol=1e-14)


def test_is_netcals_one_vs_rest():
    binning = pytest.importorskip("netcal.binning")
    probs, labels = probs_and_labels(dtype=torch.float64)
    peer = binning.IsotonicRegression()
    peer.fit(probs.numpy(), labels.numpy())
    expected = torch.from_numpy(peer.transform(probs.numpy()))
    torch.testing.assert_close(fc.IsotonicRegression().fit(probs, labels)(probs), expected, rtol=1e-12, atol=1e-14)


@given(seed=st.integers(0, 2**31 - 1), n=st.sampled_from((1, 2, 30, 300)), dtype=st.sampled_from(DTYPES))
def test_the_map_is_that_of_scikit_learn(seed, n, dtype):
    """Fewer knots than the row has room for, one knot, values beyond the outer knots, ties of half precision."""
    probs, labels = probs_and_labels(seed, n, 4)
    probs = probs.to(dtype)
    confidence, prediction = probs.max(1)
    oracle = Oracle(out_of_bounds="clip").fit(confidence.double().numpy(), (prediction == labels).double().numpy())
    new = probs_and_labels(seed + 1, 50, 4)[0].to(dtype)
    top, index = new.max(1)
    out = fc.IsotonicRegression("top_label").fit(probs, labels)(new)
    expected = torch.from_numpy(oracle.predict(top.double().numpy()))
    torch.testing.assert_close(out.gather(1, index[:, None])[:, 0], expected.to(dtype), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(out.double().sum(1), torch.ones(50, dtype=torch.float64), rtol=0, atol=0.02)


def pooled_adjacent_violators(values, hits):
    """The increasing means of least squares, exactly: blocks [value, sum, count], joined while they do not increase."""
    blocks = []
    for value in sorted(set(values)):
        here = [hit for v, hit in zip(values, hits, strict=True) if v == value]
        blocks.append([[value], Fraction(sum(here)), len(here)])
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            last, before = blocks.pop(), blocks.pop()
            blocks.append([a + b for a, b in zip(before, last, strict=True)])
    return {value: float(total / count) for inside, total, count in blocks for value in inside}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_map_is_that_of_least_squares_however_close_probabilities_are(dtype):
    """A hundred sharp classes: most probabilities are below 1e-15, and scikit-learn would take those for equal."""
    probs, labels = probs_and_labels(3, 12, 100, temperature=12.0, dtype=torch.float64)
    probs = probs.to(dtype)
    labels[:4] = probs[:4].double().argsort(1)[:, 60]  # some true classes are among the improbable
    fitted = fc.MultiIsotonicRegression().fit(probs, labels)
    values = probs.double().flatten().tolist()
    hits = torch.nn.functional.one_hot(labels, 100).flatten().tolist()
    expected = pooled_adjacent_violators(values, hits)
    mapped = fitted._map(probs.reshape(-1, 1))[:, 0].tolist()
    assert mapped == pytest.approx([expected[value] for value in values], abs=1e-12)
    if dtype in (torch.float32, torch.float64):  # the others have few numbers so small
        assert abs(Oracle(out_of_bounds="clip").fit(values, hits).predict(values) - mapped).max() > 0.01


def test_two_tiny_probabilities_are_two():
    probs = torch.tensor([[1e-17, 1.0], [2e-17, 1.0], [3e-17, 1.0]], dtype=torch.float64)
    fitted = fc.IsotonicRegression().fit(probs, torch.tensor([1, 0, 0]))
    assert fitted(probs)[:, 0].tolist() == pytest.approx([0.0, 0.75, 0.75])
    assert fitted.x[0, :3].tolist() == [1e-17, 2e-17, 3e-17]


@given(seed=st.integers(0, 2**31 - 1), n=st.sampled_from((2, 30, 300)), dtype=st.sampled_from(DTYPES))
def test_knots_are_those_of_scikit_learn_where_probabilities_lie_apart(seed, n, dtype):
    generator = torch.Generator().manual_seed(seed)
    value = (torch.randint(0, 2**10, (n,), generator=generator) / 2**10).to(dtype)
    probs, labels = torch.stack([value, 1 - value], 1), torch.randint(0, 2, (n,), generator=generator)
    fitted = fc.IsotonicRegression().fit(probs, labels)
    for c in range(2):
        oracle = Oracle().fit(probs[:, c].double().numpy(), (labels == c).double().numpy())
        size = len(oracle.X_thresholds_)
        assert fitted.x[c, :size].tolist() == oracle.X_thresholds_.tolist()
        assert fitted.y[c, :size].tolist() == oracle.y_thresholds_.tolist() and (fitted.x[c, size:] == 2).all()


def test_shared_is_one_map_of_all_probabilities():
    probs, labels = probs_and_labels(dtype=torch.float64)
    hits = torch.nn.functional.one_hot(labels, 5).double()
    oracle = Oracle(out_of_bounds="clip").fit(probs.flatten().numpy(), hits.flatten().numpy())
    new, _ = probs_and_labels(1, dtype=torch.float64)
    mapped = torch.from_numpy(oracle.predict(new.flatten().numpy())).view_as(new) + 1e-9 * new
    fitted = fc.MultiIsotonicRegression().fit(probs, labels)
    torch.testing.assert_close(fitted(new), mapped / mapped.sum(1, keepdim=True), rtol=1e-12, atol=1e-14)


def test_per_class_is_one_vs_rest_but_for_a_billionth():
    probs, labels = probs_and_labels(dtype=torch.float64)
    per_class = fc.MultiIsotonicRegression("per_class").fit(probs, labels)(probs)
    one_vs_rest = fc.IsotonicRegression().fit(probs, labels)(probs)
    torch.testing.assert_close(per_class, one_vs_rest, rtol=0, atol=1e-7)
    assert not torch.equal(per_class, one_vs_rest)


@given(seed=st.integers(0, 2**31 - 1), dtype=st.sampled_from(DTYPES), n=st.sampled_from((2, 20, 200)))
def test_shared_keeps_every_prediction(seed, dtype, n):
    """Its map has steps, on which only the billionth tells classes apart; rounding to the dtype loses that."""
    probs, labels = probs_and_labels(seed, n, 6)
    fitted = fc.MultiIsotonicRegression().fit(probs, labels)
    new = probs_and_labels(seed + 1, 200, 6)[0].to(dtype)
    assert torch.equal(fitted(new).argmax(1), new.argmax(1))


def test_shared_applies_to_any_number_of_classes():
    fitted = fc.MultiIsotonicRegression().fit(*probs_and_labels(c=5))
    new, labels = probs_and_labels(1, c=9)
    before = fc.metrics.negative_log_likelihood(new, labels)
    assert fitted(new).shape == new.shape and fc.metrics.negative_log_likelihood(fitted(new), labels) < before


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    fitted = fc.IsotonicRegression().fit(*probs_and_labels())
    monkeypatch.setitem(__import__("sys").modules, "sklearn.isotonic", None)
    probs, labels = probs_and_labels(1)
    assert fitted(probs).shape == probs.shape  # only fit needs it
    with pytest.raises(ImportError, match=r"pip install .*\[isotonic\]'"):
        fc.IsotonicRegression().fit(probs, labels)
