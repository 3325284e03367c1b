"""The torchmetrics classes: the functional forms' values, in parts or in one, and bad input by name."""

import numpy as np
import pytest
import torch

import pyfastcal as fc
from pyfastcal import metrics

from .data import N, fed, functional


@pytest.fixture(scope="module")
def classes():
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(N, 7, generator=generator)
    return logits.softmax(1), torch.randint(0, 7, (N,), generator=generator)


MAKE = {
    "ece": fc.CalibrationError,
    "l2": lambda **o: fc.CalibrationError(15, norm="l2", closed="right", **o),
    "max": lambda **o: fc.CalibrationError(norm="max", **o),
    "mce": fc.MaximumCalibrationError,
    "mce_weighted": lambda **o: fc.MaximumCalibrationError(weighted=True, **o),
    "debiased": fc.DebiasedCalibrationError,
    "gaps": fc.SignedGaps,
    "ace": fc.AdaptiveCalibrationError,
    "piece": fc.ProximityInformedECE,
}
BOUNDED = ("ace", "piece")


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("validate", [True, False])
def test_single_metrics_are_the_functional_ones(name, stream, validate):
    metric = fed(MAKE[name](validate=validate), stream)
    value, expected = metric.compute(), functional(name, stream)
    assert value.dtype == torch.float64
    if name in BOUNDED:
        low, high = metric.error_interval()
        assert low <= float(expected) <= high and low <= float(value) <= high
        assert abs(float(value) - float(expected)) <= metric.error_bound() <= high - low
        assert float(value) == pytest.approx(float(expected), abs=2e-3)
    else:
        torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True)


def test_everything_in_one_pass(stream):
    metric = fed(fc.CalibrationMetrics(), stream)
    values = metric.compute()
    assert list(values) == ["accuracy", "confidence", "ece", "ace", "mce", "mce_weighted", "piece"]
    for name in ("ece", "mce", "mce_weighted"):
        assert torch.equal(values[name], functional(name, stream))
    for name, (low, high) in metric.error_intervals().items():
        assert low <= float(functional(name, stream)) <= high
    assert "piece" not in fed(fc.CalibrationMetrics(n_proximity_bins=None), stream[:3]).compute()
    assert fed(fc.CalibrationMetrics(), stream[:3]).compute()["piece"].isnan()


def test_classwise(classes):
    metric = fc.ClasswiseCalibrationError(7)
    for batch in zip(*(x.split(300) for x in classes), strict=True):
        metric.update(*batch)
    assert torch.equal(metric.compute(), metrics.classwise_ece(*classes))
    each = fc.ClasswiseCalibrationError(7, average=False)
    each.update(*classes)
    probs, labels = classes
    expected = [metrics.expected_calibration_error(probs[:, c], labels == c) for c in range(7)]
    torch.testing.assert_close(each.compute(), torch.stack(expected), rtol=1e-12, atol=0)


def test_the_same_bits_for_any_split(stream):
    whole, parts = fc.CalibrationMetrics(), fc.CalibrationMetrics()
    whole.update(*stream)
    assert torch.equal(fed(parts, stream, 7).state, whole.state)
    assert whole.state.dtype == torch.int64 and 8 * whole.state.numel() < 1_000_000


def test_correctness_in_place_of_classes_and_numpy(stream):
    confidence, prediction, labels, proximity = stream
    expected = fed(fc.ProximityInformedECE(), stream).compute()
    metric = fc.ProximityInformedECE()
    metric.update(confidence.numpy(), (prediction == labels).numpy(), proximity=proximity.numpy())
    assert torch.equal(metric.compute(), expected)
    zeros_and_ones = fc.CalibrationError()
    zeros_and_ones.update(confidence, (prediction == labels).long())
    assert torch.equal(zeros_and_ones.compute(), functional("ece", stream))


def test_forward_gives_the_batch_and_keeps_the_whole(stream):
    metric = fc.CalibrationMetrics()
    for batch in zip(*(x.split(1000) for x in stream), strict=True):
        value = metric(*batch)["ece"]
        assert torch.equal(value, metrics.expected_calibration_error(batch[0], batch[1] == batch[2]))
    assert torch.equal(metric.state, fed(fc.CalibrationMetrics(), stream).state)


def test_plot(stream):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metric = fed(fc.CalibrationMetrics(), stream)
    axes = metric.plot(n_bootstrap=50)[1]
    curve = metrics.reliability_curve(stream[0], stream[1] == stream[2], n_bootstrap=50)
    heights = [p.get_height() for p in axes.patches]
    held = curve.count > 0
    np.testing.assert_allclose(heights[::2], curve.accuracy[held])
    np.testing.assert_allclose(heights[1::2], (curve.confidence - curve.accuracy)[held])
    bands = [line.get_ydata() for line in axes.lines if len(set(line.get_xdata())) == 1]
    np.testing.assert_allclose(bands, torch.stack([curve.lower, curve.upper], 1)[held])
    own = plt.figure().subplots()
    assert fed(fc.CalibrationError(), stream).plot(ax=own)[1] is own
    assert fc.CalibrationError().plot(metric.compute()["ece"])[1] is not None
    classwise = fc.ClasswiseCalibrationError(2)
    classwise.update(torch.tensor([[0.2, 0.8]]), torch.tensor([1]))
    assert classwise.plot()[1] is not None
    plt.close("all")


def test_reliability_is_the_functional_curve(stream):
    got = fed(fc.CalibrationError(), stream).reliability(n_bootstrap=20)
    expected = metrics.reliability_curve(stream[0], stream[1] == stream[2], n_bootstrap=20)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert fc.CalibrationError().reliability().lower.isnan().all()


C, Y = torch.tensor([0.2, 0.9]), torch.tensor([0, 1])
GOOD = dict(confidence=C, prediction=Y, labels=Y, proximity=C)
BAD = [
    ("confidence", C + 0.5),
    ("confidence", C * torch.nan),
    ("confidence", C[None]),
    ("confidence", Y),
    ("confidence", "high"),
    ("prediction", Y[:1]),
    ("prediction", Y.float()),
    ("prediction", Y.bool()),
    ("prediction", Y.to("meta")),
    ("labels", Y[:1]),
    ("labels", Y - 1),
    ("labels", Y.float()),
    ("labels", Y[None]),
    ("proximity", C[:1]),
    ("proximity", C + 1),
    ("proximity", Y),
]


@pytest.mark.parametrize("make", [fc.CalibrationMetrics, fc.CalibrationError, fc.ProximityInformedECE])
@pytest.mark.parametrize(("name", "wrong"), BAD)
def test_bad_input_names_the_argument_and_changes_nothing(make, name, wrong):
    good = GOOD if make is not fc.CalibrationError else {k: v for k, v in GOOD.items() if k != "proximity"}
    if name not in good:
        return
    metric = make()
    metric.update(**good)
    before = metric.state.clone()
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        metric.update(**{**good, name: wrong})
    assert "\n" not in str(caught.value) and torch.equal(metric.state, before)


def test_other_bad_arguments(classes):
    for make, name, wrong in (
        (fc.CalibrationError, "norm", dict(norm="l3")),
        (fc.CalibrationError, "closed", dict(closed="both")),
        (fc.CalibrationError, "n_bins", dict(n_bins=0)),
        (fc.CalibrationError, "validate", dict(validate="yes")),
        (fc.ProximityInformedECE, "n_proximity_bins", dict(n_proximity_bins=None)),
        (fc.ClasswiseCalibrationError, "n_classes", dict(n_classes=0)),
    ):
        with pytest.raises(ValueError, match=f"^{name} "):
            make(**wrong)
    probs, labels = classes
    metric = fc.ClasswiseCalibrationError(7)
    for name, arguments in (
        ("probs", (probs[:, :6], labels)),
        ("probs", (probs * 2, labels)),
        ("probs", (probs * torch.nan, labels)),
        ("labels", (probs, labels + 1)),
        ("labels", (probs, labels[:5])),
    ):
        with pytest.raises(ValueError, match=f"^{name} "):
            metric.update(*arguments)
        assert not metric.state.any()
    with pytest.raises(ValueError, match="^prediction must be booleans"):
        fc.CalibrationError().update(C, torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="^confidence must be on meta"):
        fc.CalibrationError().to("meta").update(C, Y, Y)


def test_unchecked_nonsense_raises_in_the_end():
    metric = fc.CalibrationError(validate=False)
    metric.update(torch.tensor([0.5, torch.nan]), Y, Y)
    with pytest.raises(ValueError, match=r"^confidence must lie in \[0, 1\], got 1 row that did not"):
        metric.compute()
    classwise = fc.ClasswiseCalibrationError(2, validate=False)
    classwise.update(torch.tensor([[0.5, 1.5]]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"^probs must lie in \[0, 1\], got 1 that did not"):
        classwise.compute()
