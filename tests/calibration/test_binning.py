"""HistogramBinning: shares per bin, restated, and netcal's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc

from .data import probs_and_labels


def shares(values: list[float], hits: list[bool], n_bins: int) -> list[float]:
    """Per bin, the share of hits, or the midpoint."""
    found = []
    for b in range(n_bins):
        low, high = (torch.tensor(e / n_bins).item() for e in (b, b + 1))
        inside = [h for v, h in zip(values, hits, strict=True) if low <= v < high or (b == n_bins - 1 and v == high)]
        found.append(sum(inside) / len(inside) if inside else (b + 0.5) / n_bins)
    return found


@given(seed=st.integers(0, 2**31 - 1), n_bins=st.sampled_from((1, 2, 7, 10)), n=st.sampled_from((1, 5, 100)))
def test_one_vs_rest_is_the_share_of_each_class_in_each_bin(seed, n_bins, n):
    probs, labels = probs_and_labels(seed, n, 3)
    fitted = fc.HistogramBinning(n_bins).fit(probs, labels)
    for c in range(3):
        expected = shares(probs[:, c].tolist(), (labels == c).tolist(), n_bins)
        assert fitted.share[c].tolist() == pytest.approx(expected)
    new, _ = probs_and_labels(seed + 1, 40, 3)
    cell = (new * n_bins).long().clamp(max=n_bins - 1)
    mapped = torch.stack([fitted.share[c][cell[:, c]] for c in range(3)], 1)
    total = mapped.sum(1, keepdim=True)
    expected = torch.where(total > 0, mapped / total, 1 / 3)
    torch.testing.assert_close(fitted(new), expected.float(), rtol=1e-6, atol=1e-7)


def test_top_label_is_the_accuracy_of_the_bin_and_others_share_the_rest():
    probs, labels = probs_and_labels()
    fitted = fc.HistogramBinning(5, "top_label").fit(probs, labels)
    confidence, prediction = probs.max(1)
    expected = shares(confidence.tolist(), (prediction == labels).tolist(), 5)
    assert fitted.share.shape == (1, 5) and fitted.share[0].tolist() == pytest.approx(expected)
    out = fitted(probs)
    top = out.gather(1, prediction[:, None])[:, 0]
    torch.testing.assert_close(top, fitted.share[0][(confidence * 5).long().clamp(max=4)].float())
    others = probs.scatter(1, prediction[:, None], 0)
    ratio = (out.scatter(1, prediction[:, None], 0) / others).nan_to_num()
    for row, rest in zip(ratio, (1 - top) / others.sum(1), strict=True):
        torch.testing.assert_close(row[row > 0], torch.full_like(row[row > 0], float(rest)), rtol=1e-4, atol=0)
    # accuracy, but for what lies between the bins, is confidence now
    assert fc.metrics.expected_calibration_error(top, prediction == labels, 5) < 0.02


def test_is_netcals_one_vs_rest():
    binning = pytest.importorskip("netcal.binning")
    probs, labels = probs_and_labels(dtype=torch.float64)
    new, _ = probs_and_labels(1, dtype=torch.float64)
    peer = binning.HistogramBinning(10)
    peer.fit(probs.numpy(), labels.numpy())
    expected = torch.from_numpy(peer.transform(new.numpy()))
    torch.testing.assert_close(fc.HistogramBinning(10).fit(probs, labels)(new), expected, rtol=1e-12, atol=1e-12)


def test_many_classes_are_binned_in_pieces(monkeypatch):
    from pyfastcal.calibration import binning

    probs, labels = probs_and_labels(n=50, c=40)
    whole = fc.HistogramBinning().fit(probs, labels).share
    monkeypatch.setattr(binning, "_CHUNK", 400)
    assert torch.equal(fc.HistogramBinning().fit(probs, labels).share, whole)


def test_a_row_of_zeros_becomes_uniform():
    """Both classes were never right where the model was between the two."""
    probs = torch.tensor([[0.45, 0.45, 0.1]] * 10)
    fitted = fc.HistogramBinning(10).fit(probs, torch.full((10,), 2))
    assert fitted(probs)[0].tolist() == [0, 0, 1]
    assert fitted(torch.tensor([[0.45, 0.45, 0.1], [0.45, 0.41, 0.14]])).tolist() == [[0, 0, 1]] * 2
    two = fc.HistogramBinning(2).fit(torch.tensor([[0.9, 0.1], [0.1, 0.9]]), torch.tensor([1, 0]))
    assert two(torch.tensor([[0.9, 0.1]])).tolist() == [[0, 1]]
    never = fc.HistogramBinning(1).fit(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([2]))
    never.share[2] = 0
    assert never(torch.tensor([[0.6, 0.3, 0.1]]))[0].tolist() == pytest.approx([1 / 3] * 3)
