"""DistanceAwareCalibration."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyfastcal import reference
from pyfastcal.calibration import DistanceAwareCalibration
from pyfastcal.calibration.proximity import textual_deviation
from tests.devices import each_device, moved, run_on


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def texts(seed: int = 0, n_classes: int = 7, n_base: int = 6, dim: int = 16) -> dict[str, torch.Tensor]:
    zeroshot, base_zeroshot = normal(seed, n_classes, dim), normal(seed + 1, n_base, dim)
    tuned = zeroshot + 0.5 * normal(seed + 2, n_classes, dim)
    base_tuned = base_zeroshot + 0.5 * normal(seed + 3, n_base, dim)
    return dict(tuned=tuned, zeroshot=zeroshot, base_tuned=base_tuned, base_zeroshot=base_zeroshot)


@pytest.fixture
def dac() -> DistanceAwareCalibration:
    return DistanceAwareCalibration().fit(**texts())


def test_fit_returns_the_module_with_the_textual_deviation(dac):
    assert isinstance(dac, DistanceAwareCalibration)
    assert torch.equal(dac.class_weight, textual_deviation(**texts()))
    assert dac.class_weight.std() > 0.01
    alone = {name: texts()[name] for name in ("tuned", "zeroshot")}
    own_bank = DistanceAwareCalibration(k=3).fit(**alone)
    assert torch.equal(own_bank.class_weight, textual_deviation(**alone, k=3))


def test_forward_is_the_definition(dac):
    logits = 20 * normal(5, 40, 7)
    prediction = logits.argmax(1)
    torch.testing.assert_close(dac(logits), dac.class_weight[prediction][:, None] * logits)


@given(st.integers(0, 2**32 - 1), st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
def test_predictions_are_kept(seed, dtype):
    dac = DistanceAwareCalibration().fit(**texts())
    logits = (normal(seed, 50, 7) * 3).to(dtype)
    logits = (logits * 4).round() / 4  # many ties
    scaled = dac(logits)
    assert scaled.dtype == dtype
    assert torch.equal(scaled.argmax(1), logits.argmax(1))


@each_device
def test_features_and_logits_give_the_same_confidence(dac, device):
    image, text = normal(9, 60, 16), texts()["tuned"]
    confidence, prediction = run_on(device, dac.to(device).predict_features)(image, text, 30.0)
    dac = dac.cpu()
    logits = 30 * torch.nn.functional.normalize(image) @ torch.nn.functional.normalize(text).T
    scaled = dac(logits).softmax(1).max(1)
    torch.testing.assert_close(confidence, scaled.values, rtol=1e-5, atol=1e-6)
    assert torch.equal(prediction, scaled.indices)
    exact, _ = reference.similarity_confidence(image.double(), text.double(), 30.0, class_weight=dac.class_weight)
    torch.testing.assert_close(confidence.double(), exact, rtol=1e-5, atol=1e-6)


def test_logit_bias_moves_no_confidence(dac):
    image, text = normal(9, 10, 16), texts()["tuned"]
    plain, biased = (dac.predict_features(image, text, 30.0, logit_bias=b)[0] for b in (None, -10.0))
    torch.testing.assert_close(plain, biased, rtol=1e-4, atol=1e-5)


def test_untuned_features_change_nothing():
    zeroshot, base = texts()["zeroshot"], texts()["base_zeroshot"]
    dac = DistanceAwareCalibration().fit(tuned=zeroshot, zeroshot=zeroshot, base_tuned=base, base_zeroshot=base)
    logits = 20 * normal(1, 30, 7)
    assert torch.equal(dac(logits), logits)


def test_permuting_classes_permutes_the_weights():
    features, order = texts(), torch.tensor([3, 1, 6, 0, 2, 5, 4])
    weight = DistanceAwareCalibration().fit(**features).class_weight
    moved = {name: features[name][order] for name in ("tuned", "zeroshot")}
    permuted = DistanceAwareCalibration().fit(**(features | moved)).class_weight
    torch.testing.assert_close(permuted, weight[order], rtol=1e-6, atol=0)


def test_state_dict_round_trip_into_a_fresh_module(dac, tmp_path):
    torch.save(dac.state_dict(), tmp_path / "dac.pt")
    state = torch.load(tmp_path / "dac.pt")
    other_size = DistanceAwareCalibration(k=2).fit(**{name: t[:4] for name, t in texts().items()})
    for fresh in (DistanceAwareCalibration(), other_size):
        assert fresh.load_state_dict(state).missing_keys == []
        assert torch.equal(fresh.class_weight, dac.class_weight)
    nested = torch.nn.Sequential(DistanceAwareCalibration())
    nested.load_state_dict(torch.nn.Sequential(dac).state_dict())
    assert torch.equal(nested[0].class_weight, dac.class_weight)
    assert torch.equal(copy.deepcopy(dac).class_weight, dac.class_weight)
    assert dac.double().class_weight.dtype == torch.float64


def test_a_state_without_weights_or_with_bad_ones_is_refused(dac):
    with pytest.raises(RuntimeError, match="class_weight"):
        dac.load_state_dict({})
    with pytest.raises(ValueError, match=r"^class_weight "):
        dac.load_state_dict({"class_weight": torch.tensor([1.0, -1.0])})


def test_compile_and_export(dac):
    logits = 20 * normal(3, 12, 7)
    expected = dac(logits)
    assert torch.equal(torch.compile(dac, fullgraph=True, backend="aot_eager")(logits), expected)
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(dac, (logits,), dynamic_shapes=({0: rows},))
    assert torch.equal(program.module()(logits), expected)
    longer = 20 * normal(4, 33, 7)
    assert torch.equal(program.module()(longer), dac(longer))


def test_compile_with_the_default_backend(dac):
    logits = 20 * normal(3, 12, 7)
    torch.testing.assert_close(torch.compile(dac, fullgraph=True)(logits), dac(logits))


def test_numpy_in_numpy_out(dac):
    arrays = {name: t.numpy() for name, t in texts().items()}
    fitted = DistanceAwareCalibration().fit(**arrays)
    assert torch.equal(fitted.class_weight, dac.class_weight)
    logits = normal(3, 5, 7)
    out = fitted(logits.numpy())
    assert isinstance(out, np.ndarray)
    np.testing.assert_array_equal(out, dac(logits).numpy())
    confidence, prediction = fitted.predict_features(normal(4, 5, 16).numpy(), arrays["tuned"], 100.0)
    assert isinstance(confidence, np.ndarray) and prediction.dtype == np.int64


@each_device
def test_fit_on_a_device(dac, device):
    fitted = DistanceAwareCalibration().fit(**moved(device, texts()))
    assert fitted.class_weight.device.type == device
    torch.testing.assert_close(fitted.class_weight.cpu(), dac.class_weight, rtol=1e-6, atol=0)
    logits = 20 * normal(5, 40, 7)
    torch.testing.assert_close(run_on(device, fitted)(logits), dac(logits))


@each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dac, device, dtype):
    features = moved(device, {name: t.to(dtype) for name, t in texts().items()})
    half = DistanceAwareCalibration().fit(**features)
    assert half.class_weight.dtype == torch.float32
    torch.testing.assert_close(half.class_weight.cpu(), dac.class_weight, rtol=0.02, atol=0)
    confidence, _ = half.predict_features(normal(4, 5, 16).to(device, dtype), features["tuned"])
    assert confidence.dtype == torch.float32


def test_no_rows_and_one_class(dac):
    assert dac(torch.empty(0, 7)).shape == (0, 7)
    one = DistanceAwareCalibration(k=1).fit(**{name: t[:1] for name, t in texts().items()})
    assert one.predict_features(normal(1, 3, 16), texts()["tuned"][:1])[0].tolist() == [1.0] * 3


def test_before_fit_it_says_what_to_do():
    with pytest.raises(RuntimeError, match="call fit or load_state_dict first"):
        DistanceAwareCalibration()(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("k", lambda dac: DistanceAwareCalibration(k=0)),
        ("base_threshold", lambda dac: DistanceAwareCalibration(base_threshold=-1)),
        ("base_tuned", lambda dac: dac.fit(**texts(n_base=4))),
        ("logits", lambda dac: dac(torch.zeros(3, 6))),
        ("logits", lambda dac: dac(torch.zeros(6))),
        ("logits", lambda dac: dac(torch.zeros(1, 1, 7))),
        ("logits", lambda dac: dac(torch.zeros(3, 7, dtype=torch.int64))),
        ("logits", lambda dac: dac(torch.full((3, 7), torch.nan))),
        ("logits", lambda dac: dac([[1.0] * 7])),
        ("text_features", lambda dac: dac.predict_features(torch.ones(3, 16), torch.ones(6, 16))),
        ("text_features", lambda dac: dac.predict_features(torch.ones(3, 16), torch.ones(7, 15))),
        ("image_features", lambda dac: dac.predict_features(torch.ones(1, 1, 16), torch.ones(7, 16))),
        ("logit_scale", lambda dac: dac.predict_features(torch.ones(3, 16), torch.ones(7, 16), -1.0)),
        ("logit_scale", lambda dac: dac.predict_features(torch.ones(3, 16), torch.ones(7, 16), np.nan)),
    ],
)
def test_bad_input(dac, name, call):
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        call(dac)
    assert "\n" not in str(caught.value)
