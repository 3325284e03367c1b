"""BinMeanShift: a calibrator of its own per group of proximity."""

import pytest
import torch

import pyfastcal as fc
from pyfastcal import reference

from .data import probs_and_labels, proximities

CALIBRATORS = [
    fc.HistogramBinning(5),
    fc.HistogramBinning(5, "top_label"),
    fc.IsotonicRegression(),
    fc.MultiIsotonicRegression(),
]


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=lambda c: f"{type(c).__name__}-{c.strategy}")
def test_each_group_has_its_own(calibrator):
    probs, labels, proximity = *probs_and_labels(), proximities()
    fitted = fc.BinMeanShift(calibrator, 3).fit(probs, labels, proximity)
    group = reference.equal_mass_groups(proximity, 3)
    out = fitted(probs, proximity)
    for g in range(3):
        rows = group == g
        assert rows.sum() == 200
        alone = type(calibrator)(
            **({"n_bins": 5} if hasattr(calibrator, "n_bins") else {}), strategy=calibrator.strategy
        )
        assert torch.equal(out[rows], alone.fit(probs[rows], labels[rows])(probs[rows]))
    assert not calibrator.is_fitted  # copies were


def test_new_rows_go_by_where_the_groups_begin():
    probs, labels, proximity = *probs_and_labels(), proximities()
    fitted = fc.BinMeanShift(fc.MultiIsotonicRegression(), 4).fit(probs, labels, proximity)
    beyond = torch.tensor([-1.0, float(fitted.starts[1]), 2.0], dtype=torch.float64)
    out = fitted(probs[:3], beyond)
    for row, group in enumerate((0, 2, 3)):
        assert torch.equal(out[row], fitted.calibrators[group](probs[row : row + 1])[0])


def test_one_group_is_the_calibrator_itself():
    probs, labels, proximity = *probs_and_labels(), proximities()
    fitted = fc.BinMeanShift(fc.HistogramBinning(), 1).fit(probs, labels, proximity)
    assert torch.equal(fitted(probs, proximity), fc.HistogramBinning().fit(probs, labels)(probs))


def test_ties_leave_groups_empty_and_unused(tmp_path):
    probs, labels = probs_and_labels()
    proximity = (torch.arange(600) % 2).float()
    fitted = fc.BinMeanShift(fc.HistogramBinning(), 5).fit(probs, labels, proximity)
    assert [c.is_fitted for c in fitted.calibrators] == [False, False, True, False, True]
    near = torch.linspace(-1, 2, 600)
    assert torch.isfinite(fitted(probs, near)).all()
    fresh = fc.BinMeanShift(fc.HistogramBinning(), 5)
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(probs, near), fitted(probs, near))


def test_shared_maps_keep_predictions():
    probs, labels, proximity = *probs_and_labels(), proximities()
    fitted = fc.BinMeanShift(fc.MultiIsotonicRegression()).fit(probs, labels, proximity)
    assert torch.equal(fitted(probs, proximity).argmax(1), probs.argmax(1))
    assert not fitted.knows_only_its_classes and fc.BinMeanShift(fc.HistogramBinning()).knows_only_its_classes


P, Y, N = *probs_and_labels(n=6), proximities(n=6)
FIT = fc.BinMeanShift(fc.HistogramBinning(), 2).fit(P, Y, N)
BAD = [
    ("calibrator", lambda: fc.BinMeanShift(fc.TemperatureScaling())),
    ("calibrator", lambda: fc.BinMeanShift("hb")),
    ("n_proximity_bins", lambda: fc.BinMeanShift(fc.HistogramBinning(), 0)),
    ("probs", lambda: FIT.fit(2 * P, Y, N)),
    ("labels", lambda: FIT.fit(P, Y[:4], N)),
    ("labels", lambda: FIT.fit(P, Y.to("meta"), N)),
    ("proximity", lambda: FIT.fit(P, Y, N[:4])),
    ("proximity", lambda: FIT(P, N[:4])),
    ("proximity", lambda: FIT(P, N * torch.nan)),
    ("probs", lambda: FIT(P[:, :2] / P[:, :2].sum(1, keepdim=True), N)),
    ("starts", lambda: FIT.load_state_dict(FIT.state_dict() | {"starts": torch.zeros(3)})),
]


@pytest.mark.parametrize(("name", "call"), BAD)
def test_bad_input(name, call):
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        call()
    assert "\n" not in str(caught.value)
