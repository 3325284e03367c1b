"""What all calibrators that learn from labels have in common: state, files, NumPy, devices, bad input."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pyfastcal as fc

from .data import logits_and_labels, probs_and_labels, proximities

MAPS = {
    "hb-one_vs_rest": lambda: fc.HistogramBinning(7),
    "hb-top_label": lambda: fc.HistogramBinning(7, "top_label"),
    "ir-one_vs_rest": lambda: fc.IsotonicRegression(),
    "ir-top_label": lambda: fc.IsotonicRegression("top_label"),
    "mir-shared": lambda: fc.MultiIsotonicRegression(),
    "mir-per_class": lambda: fc.MultiIsotonicRegression("per_class"),
}
ALL = MAPS | {
    "ts": lambda: fc.TemperatureScaling(),
    "den": lambda: fc.DensityRatioCalibration(),
    "bms-hb": lambda: fc.BinMeanShift(fc.HistogramBinning(), 3),
    "bms-mir": lambda: fc.BinMeanShift(fc.MultiIsotonicRegression(), 3),
}


def inputs(name: str, seed: int = 0, **options) -> tuple[tuple, tuple]:
    """Arguments of ``fit`` and of ``forward``."""
    scores, labels = (logits_and_labels if name == "ts" else probs_and_labels)(seed, **options)
    near = (proximities(seed, len(labels)),) if name == "den" or name.startswith("bms") else ()
    return (scores, labels, *near), (scores, *near)


def fitted(name: str):
    module = ALL[name]()
    assert module.fit(*inputs(name)[0]) is module
    return module


@pytest.mark.parametrize("name", ALL)
def test_state_dict_and_safetensors_round_trip(name, tmp_path):
    module, (_, arguments) = fitted(name), inputs(name, 1)
    path = tmp_path / "calibrator.safetensors"
    save_file(module.state_dict(), path)
    other = ALL[name]().fit(*inputs(name, 2, n=80)[0])  # of other sizes
    for fresh in (ALL[name](), other):
        assert fresh.load_state_dict(load_file(path)).missing_keys == []
        assert torch.equal(fresh(*arguments), module(*arguments))
    assert torch.equal(copy.deepcopy(module)(*arguments), module(*arguments))
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict({})


@pytest.mark.parametrize("name", ALL)
def test_before_fit_it_says_what_to_do(name):
    with pytest.raises(RuntimeError, match="is not fitted: call fit or load_state_dict first"):
        ALL[name]()(*inputs(name)[1])
    assert ALL[name]().state_dict() == {}
    repr(ALL[name]()), repr(fitted(name))


@pytest.mark.parametrize("name", ALL)
def test_numpy_in_numpy_out(name):
    fit, arguments = ([x.numpy() for x in part] for part in inputs(name))
    module = ALL[name]().fit(*fit)
    out = module(*arguments)
    assert isinstance(out, np.ndarray) and out.dtype == np.float32
    np.testing.assert_array_equal(out, fitted(name)(*inputs(name)[1]).numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_dtypes(name, dtype):
    out = fitted(name)(*(x.to(dtype) for x in inputs(name)[1]))
    expected = fitted(name)(*inputs(name)[1])
    assert out.dtype == dtype
    if name == "ts":
        out, expected = out.float().softmax(1), expected.softmax(1)
    if not name.startswith(("hb", "bms")):  # there a rounded number may fall in the next bin
        torch.testing.assert_close(out.float(), expected, rtol=0, atol=1e-6 if dtype == torch.float64 else 0.15)
    half = ALL[name]().fit(*(x.to(dtype) if x.is_floating_point() else x for x in inputs(name)[0]))
    assert torch.isfinite(half(*inputs(name)[1])).all()


@pytest.mark.parametrize("name", ALL)
def test_rows_do_not_depend_on_each_other(name):
    module, (_, arguments) = fitted(name), inputs(name, 1)
    whole = module(*arguments)
    parts = [module(*part) for part in zip(*(x.split(77) for x in arguments), strict=True)]
    assert torch.equal(torch.cat(parts), whole)
    assert module(*(x[:0] for x in arguments)).shape == (0, 5)


@pytest.mark.parametrize("name", ALL)
def test_the_order_of_the_rows_of_the_fit_does_not_matter(name):
    fit, arguments = inputs(name)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    shuffled = ALL[name]().fit(*(x[order] for x in fit))
    torch.testing.assert_close(shuffled(*arguments), fitted(name)(*arguments), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ALL if name != "ts"])
def test_rows_sum_to_one_and_help_where_they_were_fitted(name):
    (probs, labels, *_), arguments = inputs(name)
    out = fitted(name)(*arguments)
    assert (out >= 0).all() and (out <= 1).all()
    torch.testing.assert_close(out.sum(1), torch.ones(600), rtol=0, atol=1e-5)
    before, after = (
        fc.metrics.expected_calibration_error(p.max(1).values, p.argmax(1) == labels) for p in (probs, out)
    )
    assert before > 0.08 and after < before / 2


@pytest.mark.parametrize("name", ["ts", "hb-top_label", "ir-one_vs_rest", "mir-shared", "den"])
def test_compiles(name):
    torch._dynamo.reset()
    module, (_, arguments) = fitted(name), inputs(name, 1)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), module(*arguments))


@pytest.mark.parametrize("name", ["hb-one_vs_rest", "ir-one_vs_rest", "mir-per_class"])
def test_a_map_per_class_refuses_other_classes(name):
    module = fitted(name)
    assert module.knows_only_its_classes
    with pytest.raises(ValueError, match=r"^probs must have the 5 classes of the fit, got .*\(600, 4\)"):
        module(probs_and_labels(c=4)[0])


@pytest.mark.parametrize("name", ["hb-top_label", "ir-top_label", "mir-shared"])
def test_one_map_takes_any_classes(name):
    module = fitted(name)
    assert not module.knows_only_its_classes
    assert module(probs_and_labels(c=9)[0]).shape == (600, 9)


P, Y = probs_and_labels(n=6)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("probs", lambda m: m.fit(P[0], Y)),
        ("probs", lambda m: m.fit(P[:0], Y[:0])),
        ("probs", lambda m: m.fit(P[:, :1] / P[:, :1], 0 * Y)),
        ("probs", lambda m: m.fit(P.long(), Y)),
        ("probs", lambda m: m.fit(P * 1.5, Y)),
        ("probs", lambda m: m.fit(P * torch.nan, Y)),
        ("labels", lambda m: m.fit(P, Y + 5)),
        ("labels", lambda m: m.fit(P, Y[:3])),
        ("labels", lambda m: m.fit(P, Y.float())),
        ("labels", lambda m: m.fit(P, Y.to("meta"))),
        ("probs", lambda m: m.fit(P, Y)(P.log())),
        ("probs", lambda m: m.fit(P, Y)(P[0])),
        ("probs", lambda m: m.fit(P, Y)(P * 0.5)),
    ],
)
def test_bad_input(name, argument, call):
    with pytest.raises(ValueError, match=f"^{argument} ") as caught:
        call(MAPS[name]())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("strategy", lambda: fc.HistogramBinning(strategy="shared")),
        ("strategy", lambda: fc.IsotonicRegression("per_class")),
        ("strategy", lambda: fc.MultiIsotonicRegression("top_label")),
        ("n_bins", lambda: fc.HistogramBinning(0)),
        ("share", lambda: fc.HistogramBinning(7).load_state_dict({"share": torch.zeros(1, 6)})),
        ("share", lambda: fc.HistogramBinning(7).load_state_dict({"share": torch.full((1, 7), 2.0)})),
        ("x", lambda: fc.IsotonicRegression().load_state_dict({"x": torch.zeros(3), "y": torch.zeros(3)})),
    ],
)
def test_bad_settings_and_states(argument, call):
    with pytest.raises(ValueError, match=f"^{argument} "):
        call()
