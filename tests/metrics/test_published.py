"""``compat="clip_calibration"`` against a restatement of the published repository's formulas with its own
tools."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import KBinsDiscretizer

from pyfastcal import metrics

CONFIDENCES = st.one_of(
    st.floats(0, 1, width=32), st.sampled_from([i / 10 for i in range(11)]), st.sampled_from([0.0, 0.95, 1.0])
)
ROWS = st.lists(st.tuples(CONFIDENCES, st.booleans(), st.floats(0, 1, width=16)), min_size=2, max_size=40)


def published_ece(confidence, correct, n_bins):
    edges = np.linspace(0, 1, n_bins + 1)
    index = np.digitize(confidence, edges) - 1  # exactly 1.0 gets the index n_bins, which no bin has
    weight = np.histogram(confidence, edges)[0] / len(confidence)  # but here the last bin holds it
    gap = [
        abs(confidence[index == b].mean() - correct[index == b].mean()) if (index == b).any() else 0.0
        for b in range(n_bins)
    ]
    return float((weight * gap).sum())


def quantile_bins(values, n_bins):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bins that are too narrow are removed
        discretizer = KBinsDiscretizer(n_bins, encode="ordinal", strategy="quantile", quantile_method="linear")
        return discretizer.fit_transform(values[:, None])[:, 0].astype(int)


def uniform_bins(confidence, n_bins):
    return np.digitize(confidence, np.linspace(0, 1, n_bins + 1)[1:-1])


def group_gaps(keys, confidence, correct):
    inside = [(keys == key).all(axis=1) for key in np.unique(keys, axis=0)]
    return np.array([abs(confidence[i].mean() - correct[i].mean()) * i.mean() for i in inside])


def check(confidence: np.ndarray, correct: np.ndarray, proximity: np.ndarray, n_bins: int, n_groups: int) -> None:
    compat = {"compat": "clip_calibration"}
    ece = metrics.expected_calibration_error(confidence, correct, n_bins, **compat)
    assert float(ece) == pytest.approx(published_ece(confidence, correct, n_bins), abs=1e-9)
    by_mass = quantile_bins(confidence, n_bins)[:, None]
    ace = metrics.adaptive_calibration_error(confidence, correct, n_bins, **compat)
    assert float(ace) == pytest.approx(group_gaps(by_mass, confidence, correct).sum(), abs=1e-9)
    by_width = uniform_bins(confidence, n_bins)
    for options in ({}, {"weighted": True}):
        mce = metrics.maximum_calibration_error(confidence, correct, n_bins, **options, **compat)
        assert float(mce) == pytest.approx(group_gaps(by_width[:, None], confidence, correct).max(), abs=1e-9)
    both = np.stack([quantile_bins(proximity, n_groups), by_width], axis=1)
    piece = metrics.proximity_informed_ece(confidence, correct, proximity, n_bins, n_groups, **compat)
    assert float(piece) == pytest.approx(group_gaps(both, confidence, correct).sum(), abs=1e-9)


@given(ROWS, st.integers(2, 12), st.integers(2, 5))
def test_small_samples(rows, n_bins, n_groups):
    confidence, correct, proximity = (np.array(x, dtype=float) for x in zip(*rows, strict=True))
    check(confidence, correct, proximity, n_bins, n_groups)


def test_softmax_output(top):
    confidence, correct, proximity = (x.double().numpy() for x in top)
    check(confidence, correct, proximity, 10, 10)
    weighted = group_gaps(uniform_bins(confidence, 10)[:, None], confidence, correct).max()
    mce = metrics.maximum_calibration_error(confidence, correct, weighted=True)
    assert float(mce) == pytest.approx(weighted, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maximum_error_of_confidences_on_an_edge(dtype):
    """In either precision 0.7 lies on or above the edge in float32, which the definition has, and below float64's."""
    confidence = torch.tensor([0.7, 0.7, 0.72, 0.65, 0.3, 0.31], dtype=dtype)
    correct = torch.tensor([False, False, True, True, True, False])
    values, hits = confidence.double().numpy(), correct.double().numpy()
    expected = group_gaps(uniform_bins(values, 10)[:, None], values, hits).max()
    mce = metrics.maximum_calibration_error(confidence, correct, compat="clip_calibration")
    assert float(mce) == pytest.approx(expected, abs=1e-7)
    plain = metrics.maximum_calibration_error(confidence, correct, weighted=True)
    assert abs(float(plain) - expected) > 0.01


def test_certain_rows_are_where_it_differs_from_the_definition():
    confidence = torch.tensor([0.92, 0.94, 1.0, 1.0])
    correct = torch.tensor([False, False, True, True])
    compat = metrics.expected_calibration_error(confidence, correct, compat="clip_calibration")
    assert float(compat) == pytest.approx(0.93, abs=1e-6)  # all four rows weigh, two have a say
    assert float(metrics.expected_calibration_error(confidence, correct)) == pytest.approx(0.465, abs=1e-6)
    certain = torch.ones(3), torch.tensor([True, False, False])
    assert float(metrics.expected_calibration_error(*certain, compat="clip_calibration")) == 0.0


@pytest.mark.parametrize(
    ("name", "options"),
    [("norm", {"norm": "l2"}), ("closed", {"closed": "right"}), ("compat", {"compat": "dac"})],
)
def test_options_that_do_not_go_together(name, options):
    with pytest.raises(ValueError, match=f"^{name} "):
        metrics.expected_calibration_error(torch.ones(2), torch.ones(2), **{"compat": "clip_calibration", **options})
