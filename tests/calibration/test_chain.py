"""chain: the product of the factors."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal.calibration import Chain, ContrastAwareCalibration, DistanceAwareCalibration, TemperatureScaling


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TEXTS = tuple(torch.nn.functional.normalize(normal(seed, 7, 16)) for seed in (0, 1))
DAC = DistanceAwareCalibration(k=3).fit(tuned=TEXTS[0], zeroshot=TEXTS[1])
TS = TemperatureScaling(temperature=1.2)
CAC = ContrastAwareCalibration(k=1.0)


@given(st.integers(0, 2**31 - 1), st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
def test_is_the_product_and_keeps_predictions(seed, dtype):
    logits = (normal(seed, 40, 7) * 8).round().div(2).to(dtype)  # with ties
    both = fc.chain(TS, DAC)
    scaled = both(logits)
    torch.testing.assert_close(both.factor(logits), TS.factor(logits) * DAC.factor(logits))
    expected = logits.double() * (TS.factor(logits) * DAC.factor(logits)).double()[:, None]
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(scaled.double(), expected, rtol=2 * max(eps, 1e-7), atol=0)
    assert scaled.dtype == dtype and torch.equal(scaled.argmax(1), logits.argmax(1))
    assert torch.equal(fc.chain(DAC, TS)(logits), scaled)


def test_with_contrast_aware_calibration():
    logits, zeroshot = 20 * normal(1, 30, 7), 20 * normal(2, 30, 7)
    three = fc.chain(TS, fc.chain(CAC, DAC))
    factor = TS.factor(logits) * DAC.factor(logits) * CAC.factor(logits, zeroshot, 100.0)
    torch.testing.assert_close(three(logits, zeroshot, 100.0), logits * factor[:, None])


def test_features_and_logits_give_the_same_confidence():
    image, zeroshot = normal(3, 25, 16), normal(4, 25, 16)
    unit = torch.nn.functional.normalize
    logits, zeroshot_logits = 30 * unit(image) @ TEXTS[0].T, 30 * unit(zeroshot) @ TEXTS[1].T
    for calibrator, inputs, features in (
        (fc.chain(TS), (), {}),
        (fc.chain(TS, DAC), (), {}),
        (
            fc.chain(CAC, TS, DAC),
            (zeroshot_logits, 30.0),
            {"zeroshot_image_features": zeroshot, "zeroshot_text_features": TEXTS[1]},
        ),
    ):
        confidence, prediction = calibrator.predict_features(image, TEXTS[0], 30.0, **features)
        expected = calibrator(logits, *inputs).softmax(1).max(1)
        torch.testing.assert_close(confidence, expected.values, rtol=1e-5, atol=1e-6)
        assert torch.equal(prediction, expected.indices)


def test_members_are_fitted_on_their_own_before_or_after():
    both = fc.chain(TemperatureScaling(), DistanceAwareCalibration(k=3))
    with pytest.raises(RuntimeError, match="TemperatureScaling is not fitted"):
        both(torch.zeros(2, 7))
    both.calibrators[0].load_state_dict(TS.state_dict())
    both.calibrators[1].fit(tuned=TEXTS[0], zeroshot=TEXTS[1])
    logits = normal(1, 5, 7)
    assert torch.equal(both(logits), fc.chain(TS, DAC)(logits))


@pytest.mark.parametrize(("temperature", "says"), [(1.6, "over-confident too"), (0.6, "under-confident")])
def test_a_temperature_far_from_one_beside_dac_is_warned_of(temperature, says):
    """Each corrects what the other has corrected already."""
    ts, logits, image = TemperatureScaling(temperature), normal(1, 5, 7), normal(2, 5, 16)
    calls = {
        "both": lambda: fc.chain(ts, DAC)(logits),
        "nested": lambda: fc.chain(ts, fc.chain(DAC)).factor(logits),
        "features": lambda: fc.chain(DAC, ts).predict_features(image, TEXTS[0]),
    }
    for call in calls.values():
        with pytest.warns(UserWarning, match=rf"a temperature of {temperature}, outside .*{says}.* alone$") as caught:
            call()
        assert [w.filename for w in caught] == [__file__]


def test_where_the_chain_cannot_correct_twice_nothing_is_said():
    far, logits = TemperatureScaling(1.6), normal(1, 5, 7)
    base = DistanceAwareCalibration()
    base.load_state_dict({"class_weight": torch.ones(7)})  # classes that were tuned on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for quiet in (fc.chain(TS, DAC), fc.chain(far, base), fc.chain(far, far), fc.chain(DAC, DAC)):
            quiet(logits)
        torch.compile(fc.chain(far, DAC), fullgraph=True, backend="eager")(logits)


def test_compiles():
    logits, both = 20 * normal(3, 12, 7), fc.chain(TS, DAC)
    assert torch.equal(torch.compile(both, fullgraph=True, backend="aot_eager")(logits), both(logits))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("calibrators", lambda: fc.chain()),
        ("calibrators", lambda: fc.chain(TS, fc.HistogramBinning())),
        ("calibrators", lambda: Chain(torch.nn.Identity())),
        ("logits", lambda: fc.chain(TS, DAC)(torch.zeros(3, 6))),
        ("logits", lambda: fc.chain(TS)(torch.zeros(()))),
        ("zeroshot_logits", lambda: fc.chain(TS, CAC)(torch.zeros(3, 7))),
        ("zeroshot_logits", lambda: fc.chain(TS, CAC)(torch.zeros(3, 7), torch.zeros(3, 6))),
        ("logit_scale", lambda: fc.chain(TS, CAC)(torch.zeros(3, 7), torch.zeros(3, 7), -1.0)),
        ("zeroshot_image_features", lambda: fc.chain(CAC).predict_features(torch.ones(3, 16), TEXTS[0])),
    ],
)
def test_bad_input(name, call):
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        call()
    assert "\n" not in str(caught.value)
