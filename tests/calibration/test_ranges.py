"""Every finite argument gives finite numbers, or is refused by an error that names its range."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pyfastcal as fc
from pyfastcal.calibration.logit_scaling import scale_logits

from .data import probs_and_labels, proximities

SIZES = (1e-300, 1e-45, 1e-39, 1e-30, 1e-12, 1e-3, 1.0, 6e4, 1e12, 1e30, 3e38, 1e39, 1e300)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
GENERATOR = torch.Generator().manual_seed(0)
TUNED, ZEROSHOT = (torch.randn(5, 4, generator=GENERATOR, dtype=torch.float64) for _ in range(2))


def scaled(x: torch.Tensor, size: float, dtype: torch.dtype) -> torch.Tensor:
    return (x * size).to(dtype)


def outcome(call: Callable, *args: Any, **kwargs: Any) -> Any:
    """What the call gives, or None where it refuses; finite in any case."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = call(*args, **kwargs)
    except ValueError as error:
        assert "\n" not in str(error)
        return None
    for x in found if isinstance(found, tuple) else (found,):
        assert torch.isfinite(x).all()
    return found


def distance_aware(*weights: float) -> fc.DistanceAwareCalibration:
    dac = fc.DistanceAwareCalibration()
    dac.load_state_dict({"class_weight": torch.tensor(weights, dtype=torch.float64)})
    return dac


def calibrators(size: float) -> list:
    """All of this size that are accepted."""
    made = []
    for make in (
        lambda: fc.TemperatureScaling(size),
        lambda: distance_aware(size, 1.0, 1.0, size),
        lambda: fc.chain(fc.TemperatureScaling(size), distance_aware(size, 1.0, 1.0, 1.0)),
        lambda: fc.chain(*[distance_aware(size, 1.0, 1.0, 1.0)] * 2, fc.TemperatureScaling(1 / size)),
    ):
        try:
            made.append(make())
        except ValueError as error:
            assert any(
                says in str(error)
                for says in ("at least 1e-30 and at most 1e+30", "lie in [1e-30, 1e+30]", "finite and greater than 0")
            )
            assert size < 1.1e-30 or size > 0.9e30
    return made


@pytest.mark.parametrize("dtype", DTYPES)
def test_logit_scaling(dtype):
    accepted = 0
    for size, of in itertools.product(SIZES, SIZES):
        logits, others = scaled(TUNED, of, dtype), scaled(ZEROSHOT, of, dtype)
        if not torch.isfinite(logits).all():
            continue
        for calibrator in calibrators(size):
            found = outcome(calibrator, logits)
            if found is not None:
                accepted += 1
                assert torch.equal(found.argmax(1), logits.argmax(1))
            outcome(calibrator.predict_features, logits, others[:4], 100.0)
    assert accepted > 100


def fitted_contrast(logits, zeroshot, labels, scale, on) -> tuple[torch.Tensor, ...]:
    found = fc.ContrastAwareCalibration(on=on).fit(logits, zeroshot_logits=zeroshot, labels=labels, logit_scale=scale)
    return found.alpha, found.k, found(logits, zeroshot, scale)


@pytest.mark.parametrize("on", ["similarity", "probability"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_contrast_aware(dtype, on):
    labels, accepted = torch.tensor([0, 1, 2, 3, 0]), 0
    for size, scale in itertools.product(SIZES, SIZES):
        logits, zeroshot = scaled(TUNED, size, dtype), scaled(ZEROSHOT, size, dtype)
        if not torch.isfinite(logits).all():
            continue
        cac = fc.ContrastAwareCalibration(on=on)
        accepted += outcome(cac, logits, zeroshot, scale) is not None
        outcome(cac.predict_features, logits, zeroshot, zeroshot, logits, scale)
        outcome(fc.contrast_weight, logits, zeroshot, on=on, logit_scale=scale)
        accepted += outcome(fitted_contrast, logits, zeroshot, labels, scale, on) is not None
    assert accepted > 10


@pytest.mark.parametrize("same", [False, True])
def test_constants_of_contrast_aware_calibration(same):
    numbers = (0.0, 1e-300, 1e-39, 1e-3, 1.0, 15.0, 1e6, 1e30, 1e39, 1e300)
    zeroshot = TUNED.float() if same else ZEROSHOT.float()
    for constants in itertools.product(numbers, numbers, (0.0, 0.9, 1e30, 1e39), (0.0, 1.0, 1e30)):
        outcome(lambda *c: fc.ContrastAwareCalibration(*c)(TUNED.float(), zeroshot), *constants)


@pytest.mark.parametrize("dtype", DTYPES)
def test_temperature_of_any_logits(dtype):
    for size in SIZES:
        logits = scaled(TUNED, size, dtype)
        if torch.isfinite(logits).all():
            found = outcome(lambda x: fc.TemperatureScaling().fit(x, torch.tensor([0, 1, 2, 3, 0])).temperature, logits)
            assert found is None or 1e-30 <= found <= 1e30


@pytest.mark.parametrize("dtype", DTYPES)
def test_density_ratio_and_bin_mean_shift_of_any_proximity(dtype):
    accepted = 0
    for spread, size in itertools.product((1e-16, 1e-6, 1.0), SIZES):
        probs, labels = probs_and_labels(n=40, c=3, dtype=torch.float64)
        probs = (spread * probs.log()).softmax(1).to(dtype)
        near = scaled(proximities(n=40).double(), size, dtype)
        if not torch.isfinite(near).all():
            continue
        for calibrator in (fc.DensityRatioCalibration(), fc.BinMeanShift(fc.HistogramBinning(), 3)):
            if outcome(lambda m, *x: m.fit(*x)(x[0], x[2]), calibrator, probs, labels, near) is None:
                continue
            accepted += 1
            for other in SIZES:
                far = scaled(near.double() / size, other, dtype)
                if torch.isfinite(far).all():
                    outcome(calibrator, torch.eye(3, dtype=dtype)[labels], far)
    assert accepted > 10


@pytest.mark.parametrize("dtype", DTYPES)
def test_proximity_and_textual_deviation(dtype):
    for size in SIZES:
        tuned, zeroshot = scaled(TUNED, size, dtype), scaled(ZEROSHOT, size, dtype)
        if torch.isfinite(tuned).all():
            assert outcome(fc.proximity, tuned, zeroshot, 2, normalize=False) is not None or size == 1e300
            features = dict(tuned=tuned, zeroshot=zeroshot, base_tuned=zeroshot, base_zeroshot=tuned)
            gamma = outcome(fc.textual_deviation, **features, k=2, base_threshold=size)
            assert gamma is not None and ((gamma > 0.13) & (gamma < 7.4)).all()


@pytest.mark.filterwarnings("ignore:the chain holds")
def test_members_of_a_chain_may_lie_far_apart_when_their_product_does_not():
    logits = TUNED.float()
    far = fc.chain(distance_aware(1e-25, 1e-25, 1e-25, 1e-25), fc.TemperatureScaling(1e-25))
    torch.testing.assert_close(far(logits), logits)
    three = fc.chain(*[fc.TemperatureScaling(t) for t in (1e-20, 1e-20, 1e30)])
    torch.testing.assert_close(three.factor(logits), torch.full((5,), 1e10))


def test_a_prediction_stays_where_all_logits_round_to_zero():
    logits = torch.tensor([[1e-15, 2e-15, 1.9e-15], [-2e-15, -1e-15, -1.1e-15]])
    for factor in (1e-30, 1e-24):
        assert scale_logits(logits, torch.full((2,), factor)).argmax(1).tolist() == [1, 1]


HALF = torch.tensor([[6e4, 1.0]], dtype=torch.float16)


@pytest.mark.parametrize(
    ("says", "call"),
    [
        (r"temperature must .* at least 1e-30 and at most 1e\+30, got 1e\+39", lambda: fc.TemperatureScaling(1e39)),
        (r"temperature must be finite", lambda: fc.TemperatureScaling(1e20).half()(TUNED)),
        (r"logits must stay within float16, up to 65504", lambda: fc.TemperatureScaling(0.5)(HALF)),
        (r"logits must have a temperature in", lambda: fc.TemperatureScaling().fit(1e35 * TUNED, torch.arange(5) % 4)),
        (r"logits must have a temperature in", lambda: fc.TemperatureScaling().fit(1e35 * TUNED, TUNED.argmax(1))),
        (r"class_weight must lie in \[1e-30", lambda: distance_aware(1e39, 1.0)),
        (r"alpha must .* at most 1e\+06", lambda: fc.ContrastAwareCalibration(alpha=1e39)),
        (r"k must .* at most 1e\+30", lambda: fc.ContrastAwareCalibration(k=1e39)),
        (r"lambda2 must .* at most 1e\+30", lambda: fc.ContrastAwareCalibration(lambda2=1e39)),
        (r"logit_scale must .* at most 1e\+20", lambda: fc.ContrastAwareCalibration()(TUNED, ZEROSHOT, 1e39)),
        (
            r"the product of the factors must lie in \[1e-30",
            lambda: fc.chain(fc.TemperatureScaling(1e-20), fc.TemperatureScaling(1e-20))(TUNED),
        ),
        (
            r"logit_scale times class_weight must lie in",
            lambda: fc.TemperatureScaling(1e-20).predict_features(TUNED, ZEROSHOT, 1e20),
        ),
        (
            r"proximity must lie in \[-1e\+30",
            lambda: fc.DensityRatioCalibration().fit(*probs_and_labels(n=9), torch.full((9,), 1e35)),
        ),
        (
            r"bandwidth must lie in \[1e-30",
            lambda: fc.DensityRatioCalibration().load_state_dict(
                {"right": TUNED[:, :2], "wrong": TUNED[:, :2], "bandwidth": torch.full((2, 2), 1e-35)}
            ),
        ),
        (r"k must .* at most 2147483647", lambda: fc.DistanceAwareCalibration(k=2**40)),
        (r"n_bins must .* at most 1048576", lambda: fc.HistogramBinning(10**9)),
        (r"n_proximity_bins must .* at most 10000", lambda: fc.BinMeanShift(fc.HistogramBinning(), 10**9)),
    ],
)
@pytest.mark.filterwarnings("ignore:the chain holds")
def test_what_is_refused_says_what_is_allowed(says, call):
    with pytest.raises(ValueError, match=f"^{says}"):
        call()
