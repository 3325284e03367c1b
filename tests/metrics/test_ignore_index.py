"""``ignore_index``: rows with that label are left out, as if they had been filtered first, to the bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics import MetricCollection

import pyfastcal as fc
from pyfastcal import metrics
from pyfastcal.metrics import Accumulator
from tests.devices import needs_gpu, never_waiting

FUNCTIONS = ("brier_score", "negative_log_likelihood", "interval_coverage_error", "contrast", "classwise_ece")
TOP = {
    "CalibrationMetrics": fc.CalibrationMetrics,
    "CalibrationError": fc.CalibrationError,
    "MaximumCalibrationError": fc.MaximumCalibrationError,
    "DebiasedCalibrationError": fc.DebiasedCalibrationError,
    "SignedGaps": fc.SignedGaps,
    "AdaptiveCalibrationError": fc.AdaptiveCalibrationError,
    "ProximityInformedECE": fc.ProximityInformedECE,
}
LABELS = [
    (-100, torch.int64),
    (255, torch.uint8),
    (-1, torch.int8),
    (0, torch.int64),
    (2, torch.int32),
    (9999, torch.int8),
]
SIZES = st.sampled_from((1, 2, 50, 600, 8001))


def split(seed: int, n: int, ignore: int, dtype: torch.dtype, share: float = 0.3):
    """Probabilities (N, 4), labels of which some are ``ignore``, proximity; and which rows are to be kept. What is to
    be left out holds what would be refused."""
    generator = torch.Generator().manual_seed(seed)
    probs = (3 * torch.randn(n, 4, generator=generator)).softmax(1)
    labels = torch.randint(0, 4, (n,), generator=generator)
    proximity = torch.rand(n, generator=generator)
    if abs(ignore) <= torch.iinfo(dtype).max:
        labels[torch.rand(n, generator=generator) < share] = ignore
    labels = labels.to(dtype)
    kept = labels.long() != ignore
    junk = torch.tensor([torch.nan, -1.0, 2.0, torch.inf])[torch.arange(int((~kept).sum())) % 4]
    probs[~kept, 0], proximity[~kept] = junk, junk
    return probs, labels, proximity, kept


@given(which=st.sampled_from(LABELS), n=SIZES, seed=st.integers(0, 2**31))
def test_functions(which, n, seed):
    ignore, dtype = which
    probs, labels, _, kept = split(seed, n, ignore, dtype)
    for name in FUNCTIONS:
        measure = getattr(metrics, name)
        if not kept.any():
            with pytest.raises(ValueError, match=f"^labels must not all be ignore_index, got {n} times {ignore}"):
                measure(probs, labels, ignore_index=ignore)
            continue
        expected = measure(probs[kept], labels[kept])
        assert torch.equal(measure(probs, labels, ignore_index=ignore), expected)
        assert measure(probs.numpy(), labels.numpy(), ignore_index=ignore) == expected.numpy()
        if not kept.all() and ignore < 0:
            with pytest.raises(ValueError):
                measure(probs, labels)


def rows_of(data: tuple, width: int) -> tuple[torch.Tensor, ...]:
    """(confidence, prediction, labels, proximity), as many as a metric takes."""
    probs, labels, proximity, _ = data
    return (*probs.max(1), labels, proximity)[:width]


@pytest.mark.parametrize("validate", [True, False])
@given(which=st.sampled_from(LABELS), n=SIZES, seed=st.integers(0, 2**31))
def test_classes(validate, which, n, seed):
    ignore, dtype = which
    data = split(seed, n, ignore, dtype)
    probs, labels, _, kept = data
    for name, make in TOP.items():
        width = 4 if name in ("CalibrationMetrics", "ProximityInformedECE") else 3
        rows = rows_of(data, width)
        metric, expected = make(ignore_index=ignore, validate=validate), make(validate=validate)
        metric.update(*rows)
        expected.update(*(x[kept] for x in rows))
        assert torch.equal(metric.state, expected.state), name
        arrays = make(ignore_index=ignore, validate=validate)
        arrays.update(*(x.numpy() for x in rows))
        assert torch.equal(arrays.state, expected.state)
    metric = fc.ClasswiseCalibrationError(4, ignore_index=ignore, validate=validate)
    expected = fc.ClasswiseCalibrationError(4, validate=validate)
    metric.update(probs, labels)
    expected.update(probs[kept], labels[kept])
    assert torch.equal(metric.state, expected.state)
    assert int(metric.state[0]) == int(kept.sum())


@given(which=st.sampled_from(LABELS), n=SIZES, seed=st.integers(0, 2**31))
def test_accumulator(which, n, seed):
    ignore, dtype = which
    data = split(seed, n, ignore, dtype)
    confidence, prediction, labels, proximity = rows_of(data, 4)
    kept, correct = data[3], prediction == labels
    for near in (10, None):
        metric, expected = (Accumulator(n_proximity_bins=near, means=("nll",)) for _ in range(2))
        near_rows = None if near is None else proximity
        metric.update(confidence, correct, near_rows, labels=labels, ignore_index=ignore, nll=proximity)
        near_rows = None if near is None else proximity[kept]
        expected.update(confidence[kept], correct[kept], near_rows, nll=proximity[kept])
        assert torch.equal(metric.state, expected.state) and metric.rows == int(kept.sum())


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("make", [*TOP.values(), lambda **o: fc.ClasswiseCalibrationError(4, **o)])
def test_where_nothing_can_be_looked_at(make, validate):
    """As under torch.compile and on a GPU: nothing is read back, and the bits are the same."""
    data = split(0, 9000, -100, torch.int64)
    metric, expected = (make(ignore_index=-100, validate=validate) for _ in range(2))
    classwise = isinstance(metric, fc.ClasswiseCalibrationError)
    width = 4 if isinstance(metric, (fc.CalibrationMetrics, fc.ProximityInformedECE)) else 3
    rows = data[:2] if classwise else rows_of(data, width)
    expected.update(*rows)
    update = type(metric).update.__wrapped__
    torch.compile(update, backend="eager")(metric, *rows)
    assert torch.equal(metric.state, expected.state)
    away = make(ignore_index=-100, validate=validate).to("meta")
    away.update(*(x.to("meta") for x in rows))


def test_means_where_nothing_can_be_looked_at():
    data = split(0, 9000, -100, torch.int64)
    confidence, prediction, labels, proximity = rows_of(data, 4)
    correct = prediction == labels
    metric, expected = (Accumulator(means=("nll",)) for _ in range(2))
    given = dict(labels=labels, ignore_index=-100, nll=proximity)
    expected.update(confidence, correct, proximity, **given)
    torch.compile(metric.update, backend="eager")(confidence, correct, proximity, **given)
    assert torch.equal(metric.state, expected.state)


@needs_gpu
@pytest.mark.parametrize("make", [*TOP.values(), lambda **o: fc.ClasswiseCalibrationError(4, **o)])
def test_a_gpu_is_not_waited_for(make):
    data = split(0, 9000, -100, torch.int64)
    metric, expected = make(ignore_index=-100).cuda(), make(ignore_index=-100)
    width = 4 if isinstance(metric, (fc.CalibrationMetrics, fc.ProximityInformedECE)) else 3
    rows = data[:2] if isinstance(metric, fc.ClasswiseCalibrationError) else rows_of(data, width)
    expected.update(*rows)
    there = [x.cuda() for x in rows]
    with never_waiting():
        metric.update(*there)
    assert torch.equal(metric.state.cpu(), expected.state)


def test_batches_of_ignored_rows_alone():
    metric = fc.CalibrationMetrics(ignore_index=-100)
    before = metric.state.clone()
    metric.update(torch.rand(5), torch.zeros(5).long(), torch.full((5,), -100))
    assert torch.equal(metric.state, before)
    assert metric.compute()["ece"].isnan()


def test_collections_do_not_share_what_counts_other_rows():
    """Not even where the first batch has no row to leave out."""
    collection = MetricCollection({"all": fc.CalibrationError(), "some": fc.CalibrationError(ignore_index=3)})
    confidence, prediction = torch.tensor([0.7, 0.9]), torch.tensor([1, 3])
    for labels in (torch.tensor([1, 2]), torch.tensor([3, 3])):
        collection.update(confidence, prediction, labels)
    assert collection["all"].state[0] == 4 and collection["some"].state[0] == 2


C, Y = torch.tensor([0.2, 0.9]), torch.tensor([0, -100])


def test_bad_arguments():
    for bad in (1.5, "none", True, 2**63, np.float64(1)):
        for make in (fc.CalibrationError, fc.CalibrationMetrics, lambda **o: fc.ClasswiseCalibrationError(2, **o)):
            with pytest.raises(ValueError, match="^ignore_index must be an integer"):
                make(ignore_index=bad)
        with pytest.raises(ValueError, match="^ignore_index must be an integer"):
            Accumulator().update(C, Y == 0, labels=Y, ignore_index=bad)
        with pytest.raises(ValueError, match="^ignore_index must be an integer"):
            metrics.brier_score(torch.eye(2), Y, ignore_index=bad)
    with pytest.raises(ValueError, match="^labels must be given with ignore_index=-100, got None"):
        fc.CalibrationError(ignore_index=-100).update(C, Y == 0)
    with pytest.raises(ValueError, match="^labels must be given with ignore_index=-100, got None"):
        Accumulator().update(C, Y == 0, ignore_index=-100)
    with pytest.raises(ValueError, match="^ignore_index must be given with labels, got None"):
        Accumulator().update(C, Y == 0, labels=Y)
    for bad in (Y[:1], Y.float(), Y[None], Y.to("meta"), None):
        with pytest.raises(ValueError, match="^labels "):
            fc.CalibrationError(ignore_index=-100).update(C, C.long(), bad)
        with pytest.raises(ValueError, match="^labels "):
            Accumulator().update(C, Y == 0, labels=bad, ignore_index=-100)
    for labels in (torch.tensor([0, -1]), torch.tensor([-100, -1])):  # not the one that is left out
        with pytest.raises(ValueError, match=r"^labels must not be negative, got -1"):
            fc.CalibrationError(ignore_index=-100).update(C, C.long(), labels)
        with pytest.raises(ValueError, match=r"^labels must lie in \[0, 2\), got -1"):
            metrics.brier_score(torch.eye(2), labels, ignore_index=-100)
