"""Arguments by name: positional ones warn and give what they gave."""

import inspect
import warnings

import pytest
import torch

import pyfastcal as fc
from pyfastcal.arguments.keywords import by_name


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FEATURES = {name: normal(i, 7, 16) for i, name in enumerate(("tuned", "zeroshot", "base_tuned", "base_zeroshot"))}
SCORES = {"logits": normal(4, 40, 5), "zeroshot_logits": normal(5, 40, 5)}
CHANCES = {"confidence": torch.rand(9) / 2 + 0.5, "proximity": torch.rand(9)}
DEN = fc.DensityRatioCalibration()
DEN.load_state_dict({"right": torch.rand(9, 2), "wrong": torch.rand(9, 2), "bandwidth": torch.ones(2, 2)})
LABELS = torch.arange(40) % 5
CALLS = {
    "textual_deviation": (fc.textual_deviation, FEATURES),
    "DistanceAwareCalibration.fit": (lambda *a, **k: fc.DistanceAwareCalibration().fit(*a, **k).class_weight, FEATURES),
    "ContrastAwareCalibration.fit": (
        lambda *a, **k: fc.ContrastAwareCalibration().fit(*a, **k).alpha,
        {**SCORES, "labels": LABELS, "logit_scale": 20.0},
    ),
    "DensityRatioCalibration.confidence": (lambda *a, **k: DEN.confidence(*a, **k), CHANCES),
}


@pytest.mark.parametrize("name", CALLS)
def test_positional_arguments_warn_and_give_the_same(name):
    call, arguments = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = call(**arguments)
    with pytest.warns(FutureWarning, match=rf"^{name} takes .* by name .*: swapped, they would give wrong") as caught:
        given = call(*arguments.values())
    assert torch.equal(given, expected)
    assert [w.filename for w in caught] == [__file__]


@pytest.mark.parametrize("name", CALLS)
def test_a_swap_would_go_unnoticed(name):
    """Why: it gives other numbers, and no error."""
    call, arguments = CALLS[name]
    first, second = list(arguments)[:2]
    swapped = call(**{**arguments, first: arguments[second], second: arguments[first]})
    assert torch.isfinite(swapped).all()
    if name == "textual_deviation":
        alone = {first: arguments[first], second: arguments[second], "k": 3}
        assert not torch.equal(call(**{**alone, first: alone[second], second: alone[first]}), call(**alone))


def test_a_swap_in_forward_shows_in_the_predictions():
    """So positional arguments stay as they are there."""
    first, second = (20 * x.tanh() for x in SCORES.values())
    cac = fc.ContrastAwareCalibration(k=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(cac(first, second, 100.0).argmax(1), first.argmax(1))
        assert torch.equal(cac(second, first, 100.0).argmax(1), second.argmax(1))
    first, second = first / 100, second / 100
    assert torch.equal(fc.contrast_weight(first, second, k=1.0), fc.contrast_weight(second, first, k=1.0))


def test_is_traced_without_a_break():
    @by_name("b")
    def minus(a, b):
        return a - b

    class Module(torch.nn.Module):
        def forward(self, x):
            return minus(x, 2 * x)

    assert list(inspect.signature(minus).parameters) == ["a", "b"]
    x = torch.arange(3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert torch.equal(torch.compile(minus, fullgraph=True, backend="eager")(x, 2 * x), -x)
        assert torch.equal(torch.export.export(Module(), (x,)).module()(x), -x)
