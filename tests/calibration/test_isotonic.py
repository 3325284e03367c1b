"""IsotonicRegression and MultiIsotonicRegression: scikit-learn's, and which of them keep predictions."""

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
    with pytest.raises(ImportError, match=r"pip install 'pyfastcal\[isotonic\]'"):
        fc.IsotonicRegression().fit(probs, labels)
