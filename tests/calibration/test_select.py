"""A calibrator narrowed to some of its classes, without a new fit."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pyfastcal as fc

from .data import logits_and_labels, proximities


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LOGITS, LABELS = logits_and_labels()
PROBS, NEAR = LOGITS.softmax(1), proximities()
TEXTS = {name: normal(i, 5, 16) for i, name in enumerate(("tuned", "zeroshot"))}
CHOSEN = [3, 0, 4]


def narrowed_probs() -> torch.Tensor:
    return LOGITS[:, CHOSEN].softmax(1)


# how each is made (constructor), fitted, and given its inputs for some columns of the logits
PER_CLASS = {
    "dac": (lambda: fc.DistanceAwareCalibration(k=3), lambda m: m.fit(**TEXTS)),
    "hb": (lambda: fc.HistogramBinning(5), lambda m: m.fit(PROBS, LABELS)),
    "ir": (lambda: fc.IsotonicRegression(), lambda m: m.fit(PROBS, LABELS)),
    "mir": (lambda: fc.MultiIsotonicRegression("per_class"), lambda m: m.fit(PROBS, LABELS)),
    "bms": (lambda: fc.BinMeanShift(fc.HistogramBinning(5), 3), lambda m: m.fit(PROBS, LABELS, NEAR)),
    "chain": (
        lambda: fc.chain(fc.TemperatureScaling(1.2), fc.chain(fc.DistanceAwareCalibration(k=3))),
        lambda m: (m.calibrators[1].calibrators[0].fit(**TEXTS), m)[1],
    ),
}
OF_NO_CLASS = {
    "ts": (lambda: fc.TemperatureScaling(), lambda m: m.fit(LOGITS, LABELS)),
    "cac": (lambda: fc.ContrastAwareCalibration(k=0.1), lambda m: m),
    "hb-top_label": (lambda: fc.HistogramBinning(5, "top_label"), lambda m: m.fit(PROBS, LABELS)),
    "ir-top_label": (lambda: fc.IsotonicRegression("top_label"), lambda m: m.fit(PROBS, LABELS)),
    "mir-shared": (lambda: fc.MultiIsotonicRegression(), lambda m: m.fit(PROBS, LABELS)),
    "den": (lambda: fc.DensityRatioCalibration(), lambda m: m.fit(PROBS, LABELS, NEAR)),
}
ALL = PER_CLASS | OF_NO_CLASS


def fitted(name: str):
    make, fit = ALL[name]
    return fit(make())


def arguments(name: str, columns=slice(None)) -> tuple:
    if name in ("dac", "ts", "chain"):
        return (LOGITS[:, columns],)
    if name == "cac":
        return LOGITS[:, columns], LOGITS[:, columns] + 1
    return (LOGITS[:, columns].softmax(1), *((NEAR,) if name in ("bms", "den") else ()))


@pytest.mark.parametrize("name", ALL)
def test_a_new_calibrator_whose_state_is_that_of_the_classes(name, tmp_path):
    whole = fitted(name)
    before = {key: value.clone() for key, value in whole.state_dict().items()}
    narrow = whole.select(CHOSEN)
    assert type(narrow) is type(whole) and narrow is not whole
    out = narrow(*arguments(name, CHOSEN))
    assert out.shape == (600, 3) and torch.isfinite(out).all()
    for value in narrow.state_dict().values():
        value.zero_()  # its own
    for key, value in whole.state_dict().items():
        assert torch.equal(value, before[key])
    save_file(whole.select(CHOSEN).state_dict(), tmp_path / "narrow.safetensors")
    fresh = ALL[name][0]()
    fresh.load_state_dict(load_file(tmp_path / "narrow.safetensors"))
    assert torch.equal(fresh(*arguments(name, CHOSEN)), out)


def test_distance_aware_is_the_weight_of_each_class():
    whole = fitted("dac")
    narrow = whole.select(CHOSEN)
    assert torch.equal(narrow.class_weight, whole.class_weight[CHOSEN]) and narrow.k == 3
    logits = LOGITS[:, CHOSEN]
    torch.testing.assert_close(narrow(logits), whole.class_weight[CHOSEN][logits.argmax(1)][:, None] * logits)
    torch.testing.assert_close(fitted("chain").select(CHOSEN)(logits), narrow(logits) / 1.2)
    with pytest.raises(ValueError, match=r"^logits must have the 3 classes of the fit"):
        narrow(LOGITS)


@pytest.mark.parametrize("name", ["hb", "ir", "mir", "bms"])
def test_maps_per_class_stay_with_their_classes(name):
    """Where every row has its probability in the classes that stay, nothing is lost."""
    whole, probs = fitted(name), PROBS.clone()
    probs[:, [1, 2]] = 0
    probs /= probs.sum(1, keepdim=True)
    near = (NEAR,) if name == "bms" else ()
    expected = whole(probs, *near)[:, CHOSEN].double()
    kept = expected.sum(1) > 1e-3
    expected = (expected / expected.sum(1, keepdim=True)).float()
    out = whole.select(CHOSEN)(probs[:, CHOSEN], *near)
    torch.testing.assert_close(out[kept], expected[kept], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", OF_NO_CLASS)
def test_without_classes_it_is_a_copy(name):
    whole = fitted(name)
    assert torch.equal(whole.select(CHOSEN)(*arguments(name)), whole(*arguments(name)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "same",
    [
        lambda: torch.tensor(CHOSEN, dtype=torch.int32),
        lambda: np.array(CHOSEN),
        lambda: tuple(CHOSEN),
        lambda: range(3),
        lambda: torch.tensor([True, True, True, False, False]),
        lambda: np.array([True, True, True, False, False]),
        lambda: [True, True, True, False, False],
    ],
)
def test_indices_of_any_kind(name, same):
    indices, whole = same(), fitted(name)
    columns = CHOSEN if list(indices) == CHOSEN else [0, 1, 2]
    expected = whole.select(columns)(*arguments(name, columns))
    assert torch.equal(whole.select(indices)(*arguments(name, columns)), expected)


def test_an_empty_group_of_bin_mean_shift_stays_without_a_fit():
    ties = (torch.arange(600) % 2).float()
    narrow = fc.BinMeanShift(fc.HistogramBinning(5), 5).fit(PROBS, LABELS, ties).select(CHOSEN)
    assert [c.is_fitted for c in narrow.calibrators] == [False, False, True, False, True]
    assert narrow(narrowed_probs(), ties).shape == (600, 3)


def test_before_fit_it_says_what_to_do():
    for make in (fc.DistanceAwareCalibration, fc.HistogramBinning, lambda: fc.BinMeanShift(fc.HistogramBinning())):
        with pytest.raises(RuntimeError, match="is not fitted: call fit or load_state_dict first"):
            make().select([0])
    assert not fc.TemperatureScaling().select([0]).is_fitted


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("indices", "says"),
    [
        ([], "must name at least one class, got none"),
        ([False] * 5, "must name at least one class, got none"),
        ([0, 3, 0], "must name every class once, got 0 twice"),
        ([0, -1], "must"),
        ([0.0, 1.0], "must be integers, got a float32 tensor"),
        (torch.zeros(2, 2, dtype=torch.int64), "must have 1 dimension"),
        (2, "must be integers or booleans, got 2"),
        (None, "must be integers or booleans, got None"),
        ("dog", "must be integers or booleans, got 'dog'"),
        (["dog"], "must be integers or booleans, got a list"),
    ],
)
def test_bad_indices(name, indices, says):
    with pytest.raises(ValueError, match=f"^indices {says}") as caught:
        fitted(name).select(indices)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PER_CLASS)
def test_indices_of_other_classes(name):
    with pytest.raises(ValueError, match=r"^indices must lie in \[0, 5\), got 5"):
        fitted(name).select([0, 5])
    with pytest.raises(ValueError, match=r"^indices must have 5 booleans, one per class, got 4"):
        fitted(name).select([True] * 4)
    if name not in ("dac", "chain"):
        with pytest.raises(ValueError, match="^indices must name at least two classes where each has a map"):
            fitted(name).select([1])
