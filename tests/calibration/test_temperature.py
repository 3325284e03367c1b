"""TemperatureScaling: the minimum of NLL, wherever it lies, and what is done where there is none."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from pyfastcal import ops, reference
from pyfastcal.calibration import TemperatureScaling

from .data import calibrated_by_scikit_learn, logits_and_labels


def slope(logits: torch.Tensor, labels: torch.Tensor, temperature: torch.Tensor) -> float:
    """d NLL / d log beta in float64, relative to its curvature: how far off log beta is."""
    beta = 1 / float(temperature)
    _, first, second = reference.nll(logits.double(), labels, beta).tolist()
    return first / (beta * second)


def nll(logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> float:
    return float(cross_entropy(logits.double() / temperature, labels))


@given(
    seed=st.integers(0, 2**31 - 1),
    c=st.sampled_from((2, 3, 10, 100)),
    true=st.sampled_from((0.05, 0.5, 1.0, 3.0, 40.0)),
)
@settings(max_examples=25)
def test_finds_the_minimum(seed, c, true):
    logits, labels = logits_and_labels(seed, 400, c, temperature=true)
    fitted = TemperatureScaling().fit(logits, labels)
    assert abs(slope(logits, labels, fitted.temperature)) < 1e-6
    assert fitted.temperature == pytest.approx(true, rel=0.5)
    exact = TemperatureScaling().fit(logits.double(), labels)
    assert abs(slope(logits, labels, exact.temperature)) < 1e-11


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e3, 1e6])
def test_any_scale_of_the_logits(scale):
    logits, labels = logits_and_labels()
    one = TemperatureScaling().fit(logits, labels).temperature
    scaled = TemperatureScaling().fit(scale * logits, labels).temperature
    assert float(scaled / (scale * one)) == pytest.approx(1, abs=1e-6)


def test_is_the_temperature_of_scikit_learn():
    logits, labels = logits_and_labels(dtype=torch.float64)
    new = logits_and_labels(1, dtype=torch.float64)[0]
    expected = calibrated_by_scikit_learn("temperature", logits, labels, new)
    fitted = TemperatureScaling().fit(logits, labels)
    torch.testing.assert_close(fitted(new).softmax(1), expected, rtol=0, atol=1e-7)  # its minimiser stops at 1e-8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_have_the_temperature_of_the_numbers_they_are(dtype):
    logits, labels = logits_and_labels(dtype=dtype)
    fitted = TemperatureScaling().fit(logits, labels)
    assert abs(slope(logits, labels, fitted.temperature)) < 1e-6
    assert fitted(logits).dtype == dtype


def test_a_few_passes_over_the_logits_are_enough(monkeypatch):
    passes = []
    monkeypatch.setattr(ops, "nll", lambda *args, f=ops.nll: passes.append(args) or f(*args))
    TemperatureScaling().fit(*logits_and_labels(n=5000, c=100))
    assert len(passes) <= 6


def test_never_worse_than_leaving_the_logits_as_they_are():
    for true in (0.2, 1.0, 5.0):
        logits, labels = logits_and_labels(3, 200, 4, temperature=true)
        fitted = TemperatureScaling().fit(logits, labels)
        assert nll(logits, labels, fitted.temperature) <= nll(logits, labels, 1.0)


def test_forward_divides_and_keeps_predictions():
    logits, labels = logits_and_labels()
    fitted = TemperatureScaling().fit(logits, labels)
    torch.testing.assert_close(fitted(logits), logits / fitted.temperature.float())
    assert torch.equal(fitted(logits).argmax(1), logits.argmax(1))
    torch.testing.assert_close(fitted.factor(logits), torch.full((600,), 1 / float(fitted.temperature)))
    assert TemperatureScaling(temperature=2.0)(logits).equal(logits / 2)
    assert fitted(torch.empty(0, 7)).shape == (0, 7)


def test_features_and_logits_give_the_same_confidence():
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(50, 16, generator=generator), torch.randn(7, 16, generator=generator)
    bias = torch.randn(7, generator=generator)
    logits = 30 * torch.nn.functional.normalize(image) @ torch.nn.functional.normalize(text).T + bias
    ts = TemperatureScaling(temperature=1.7)
    confidence, prediction = ts.predict_features(image, text, 30.0, logit_bias=bias)
    expected = ts(logits).softmax(1).max(1)
    torch.testing.assert_close(confidence, expected.values, rtol=1e-5, atol=1e-6)
    assert torch.equal(prediction, expected.indices)


def separable(n: int = 50, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    logits = (5 * torch.randn(n, 4, generator=torch.Generator().manual_seed(1))).to(dtype)
    return logits, logits.argmax(1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_separable_labels(scale, dtype):
    """NLL has no minimum: it goes to 0 as the temperature does."""
    logits, labels = separable(dtype=dtype)
    with pytest.warns(UserWarning, match="every label has the highest logit") as caught:
        fitted = TemperatureScaling().fit(scale * logits, labels)
    assert caught[0].filename == __file__
    # the likelihood of all rows together is 1/2
    assert 50 * nll(scale * logits, labels, fitted.temperature) == pytest.approx(math.log(2), rel=1e-4)


def test_separable_labels_with_ties():
    """The limit of NLL is that of the ties; fp16 logits have them."""
    logits, labels = separable(dtype=torch.float16)
    logits[0, (labels[0] + 1) % 4] = logits[0, labels[0]]
    logits[1] = 1.0
    with pytest.warns(UserWarning, match="every label has the highest logit"):
        fitted = TemperatureScaling().fit(logits, labels)
    limit = math.log(2) + math.log(4)
    assert 50 * nll(logits, labels, fitted.temperature) == pytest.approx(limit + math.log(2), rel=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_labels_that_the_logits_say_nothing_of(scale):
    """NLL has no minimum: it goes to log C as the temperature goes to infinity."""
    logits, _ = separable()
    with pytest.warns(UserWarning, match="labels have no higher logits"):
        fitted = TemperatureScaling().fit(scale * logits, logits.argmin(1))
    excess = 50 * (nll(scale * logits, logits.argmin(1), fitted.temperature) - math.log(4))
    assert excess == pytest.approx(math.log(2), rel=1e-3)
    assert torch.equal(fitted(logits).argmax(1), logits.argmax(1))


def test_all_logits_equal():
    with pytest.warns(UserWarning):
        fitted = TemperatureScaling().fit(torch.ones(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert math.isfinite(float(fitted.temperature)) and float(fitted.temperature) > 0


def test_nearly_separable_labels_have_a_minimum():
    logits, labels = separable(2000)
    labels[7] = logits[7].argsort()[-2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = TemperatureScaling().fit(logits, labels)
    assert abs(slope(logits, labels, fitted.temperature)) < 1e-5


L, Y = torch.zeros(3, 4), torch.tensor([0, 1, 2])
BAD = [
    ("logits", lambda: TemperatureScaling().fit(L[0], Y)),
    ("logits", lambda: TemperatureScaling().fit(L[:, :1], Y * 0)),
    ("logits", lambda: TemperatureScaling().fit(L[:0], Y[:0])),
    ("logits", lambda: TemperatureScaling().fit(L + math.nan, Y)),
    ("labels", lambda: TemperatureScaling().fit(L, Y + 2)),
    ("labels", lambda: TemperatureScaling().fit(L, Y[:2])),
    ("labels", lambda: TemperatureScaling().fit(L, Y.float())),
    ("logits", lambda: TemperatureScaling(1.0)(L[0, 0])),
    ("logits", lambda: TemperatureScaling(1.0)(L + math.inf)),
    ("temperature", lambda: TemperatureScaling(0.0)),
    ("temperature", lambda: TemperatureScaling(math.nan)),
    ("temperature", lambda: TemperatureScaling().load_state_dict({"temperature": torch.tensor(-1.0)})),
    ("text_features", lambda: TemperatureScaling(1.0).predict_features(L, L[0])),
    ("logit_scale", lambda: TemperatureScaling(1.0).predict_features(L, L, 0.0)),
]


@pytest.mark.parametrize(("name", "call"), BAD)
def test_bad_input(name, call):
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        call()
    assert "\n" not in str(caught.value)


def test_labels_that_nothing_could_check_are_named():
    """As under torch.compile, which looks at no value."""
    torch._dynamo.reset()
    fit = torch.compile(lambda logits, labels: TemperatureScaling().fit(logits, labels).temperature, backend="eager")
    with pytest.raises(ValueError, match=r"^labels must lie in \[0, 4\)"):
        fit(torch.eye(4), torch.tensor([0, 1, 10**9, 2]))
