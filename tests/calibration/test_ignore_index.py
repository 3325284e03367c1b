"""Rows with a label that is to be ignored are as if they were not there."""

import numpy as np
import pytest
import torch

import pyfastcal as fc

from .data import logits_and_labels, proximities

LOGITS, LABELS = logits_and_labels(n=300)
KEPT = torch.arange(300) % 3 != 0
ZEROSHOT, PROBS, NEAR = LOGITS + LOGITS.roll(1, 1) / 10, LOGITS.softmax(1), proximities(n=300)
FITS = {
    "ts": lambda rows, labels, **o: fc.TemperatureScaling().fit(LOGITS[rows], labels, **o),
    "cac": lambda rows, labels, **o: fc.ContrastAwareCalibration().fit(
        LOGITS[rows], zeroshot_logits=ZEROSHOT[rows], labels=labels, **o
    ),
    "hb": lambda rows, labels, **o: fc.HistogramBinning(5).fit(PROBS[rows], labels, **o),
    "hb-top_label": lambda rows, labels, **o: fc.HistogramBinning(5, "top_label").fit(PROBS[rows], labels, **o),
    "ir": lambda rows, labels, **o: fc.IsotonicRegression().fit(PROBS[rows], labels, **o),
    "mir": lambda rows, labels, **o: fc.MultiIsotonicRegression().fit(PROBS[rows], labels, **o),
    "den": lambda rows, labels, **o: fc.DensityRatioCalibration().fit(PROBS[rows], labels, NEAR[rows], **o),
    "bms": lambda rows, labels, **o: fc.BinMeanShift(fc.HistogramBinning(5), 3).fit(
        PROBS[rows], labels, NEAR[rows], **o
    ),
}
EVERY = slice(None)
by_fit = pytest.mark.parametrize("name", FITS)


def assert_same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


@by_fit
@pytest.mark.parametrize("ignored", [-100, -1, 5, 2**40])
def test_ignored_rows_are_as_if_they_were_not_there(name, ignored):
    labels = torch.where(KEPT, LABELS, ignored)
    assert_same(FITS[name](EVERY, labels, ignore_index=ignored), FITS[name](KEPT, LABELS[KEPT]))


@by_fit
def test_a_class_may_be_ignored(name):
    kept = LABELS != 2
    assert_same(FITS[name](EVERY, LABELS, ignore_index=2), FITS[name](kept, LABELS[kept]))


@by_fit
def test_none_to_ignore_changes_nothing(name):
    assert_same(FITS[name](EVERY, LABELS, ignore_index=-100), FITS[name](EVERY, LABELS))
    assert_same(FITS[name](EVERY, LABELS, ignore_index=None), FITS[name](EVERY, LABELS))


def test_arrays():
    labels = np.where(KEPT, LABELS, -100)
    found = fc.TemperatureScaling().fit(LOGITS.numpy(), labels, ignore_index=-100)
    assert found.temperature == fc.TemperatureScaling().fit(LOGITS[KEPT], LABELS[KEPT]).temperature


@by_fit
@pytest.mark.parametrize(
    ("argument", "labels", "options"),
    [
        ("labels", torch.where(KEPT, LABELS, -100), {}),  # who asks for nothing gets nothing
        ("labels", torch.where(KEPT, LABELS, -1), {"ignore_index": -100}),
        ("labels", torch.full((300,), -100), {"ignore_index": -100}),
        ("labels", LABELS[:9], {"ignore_index": -100}),
        ("labels", LABELS.float(), {"ignore_index": -100}),
        ("labels", LABELS[:, None], {"ignore_index": -100}),
        ("ignore_index", LABELS, {"ignore_index": -1.5}),
        ("ignore_index", LABELS, {"ignore_index": True}),
        ("ignore_index", LABELS, {"ignore_index": 2**70}),
    ],
)
def test_bad_input(name, argument, labels, options):
    with pytest.raises(ValueError, match=f"^{argument} ") as caught:
        FITS[name](EVERY, labels, **options)
    assert "\n" not in str(caught.value)
