"""The methods that are fitted on the base file: what they give for its classes and for others, whole or in pieces."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

import pyfastcal as fc
from pyfastcal import reference
from pyfastcal.evaluate import METHODS, check_methods, evaluate, evaluate_split, methods, proper_scores
from pyfastcal.evaluate.methods import image_proximity
from pyfastcal.io import FeatureSet
from tests.devices import kernels_only

from .data import pair

FITTED = ("ts", "den", "hb", "ir", "mir", "bms-mir", "ts+dac")
ONE_MAP_PER_CLASS = ("hb", "ir")


@pytest.fixture(scope="module")
def splits() -> tuple[FeatureSet, FeatureSet]:
    return pair(n=500)


def probabilities(features: FeatureSet, factor: float | Tensor = 1.0) -> Tensor:
    images, texts = (normalize(x.double(), dim=-1) for x in (features.image_features, features.text_features))
    return (torch.as_tensor(factor).reshape(-1, 1) * 30.0 * images @ texts.T).softmax(-1)


def expected(method: str, features: FeatureSet, base: FeatureSet) -> Tensor:
    """The probabilities of all classes, by the calibrators themselves in float64."""
    probs, fit = probabilities(features), probabilities(base)
    near = reference.proximity(features.image_features.double(), base.image_features.double())
    near_base = reference.proximity(base.image_features.double(), base.image_features.double(), exclude_self=True)
    if method.startswith("ts"):
        factor = 1 / fc.TemperatureScaling().fit(fit.log(), base.labels).temperature
        if method == "ts+dac":
            texts = [x.double() for f in (features, base) for x in (f.text_features, f.zeroshot_text_features)]
            factor = factor * reference.textual_deviation(*texts)[probs.argmax(1)]
        return probabilities(features, factor)
    if method == "den":
        return fc.DensityRatioCalibration().fit(fit, base.labels, near_base)(probs, near)
    if method == "bms-mir":
        return fc.BinMeanShift(fc.MultiIsotonicRegression()).fit(fit, base.labels, near_base)(probs, near)
    calibrator = {"hb": fc.HistogramBinning, "ir": fc.IsotonicRegression, "mir": fc.MultiIsotonicRegression}[method]()
    return calibrator.fit(fit, base.labels)(probs)


@pytest.mark.parametrize("split", ["new", "base"])
@pytest.mark.parametrize("method", FITTED)
def test_gives_what_the_calibrator_gives(splits, method: str, split: str) -> None:
    new, base = splits
    features = new if split == "new" else base
    if split == "new" and method in ONE_MAP_PER_CLASS:
        with pytest.raises(methods.NotApplicable, match="a map for each class of the base file"):
            METHODS[method](features.classes, base)
        return
    near = image_proximity(features, base)
    done = METHODS[method](features.classes, base)(features, near)
    probs = expected(method, features, base)
    same = slice(None)
    if method in ("hb", "mir", "bms-mir"):  # steps, or lines as steep: a float32 number may fall on a step's other side
        same = (done.confidence.double() - probs.amax(1)).abs() < 1e-4
        assert same.double().mean() > 0.97
    prediction = probabilities(features).argmax(1) if method in ("den", "mir", "bms-mir") else probs.argmax(1)
    assert (done.prediction == prediction).double().mean() > 0.99
    top = probs.gather(1, done.prediction[:, None])[:, 0]
    torch.testing.assert_close(done.confidence.double()[same], top[same], rtol=0, atol=1e-4)
    scores = proper_scores(done, features)
    brier = (probs - torch.nn.functional.one_hot(features.labels, 8)).square().sum(1)
    torch.testing.assert_close(scores["brier"][same], brier[same], rtol=0, atol=1e-3)
    true = probs.gather(1, features.labels[:, None])[:, 0]
    likely = (true > 1e-3) if isinstance(same, slice) else (true > 1e-3) & same
    torch.testing.assert_close(scores["nll"][likely], -true[likely].log(), rtol=0, atol=2e-2)


@kernels_only
@pytest.mark.parametrize("method", METHODS)
def test_a_row_does_not_depend_on_the_others(splits, method: str, threads, monkeypatch) -> None:
    """To the bit, whatever batch it comes in, however many threads there are and how many rows are mapped at a time."""
    _, base = splits
    apply, near = METHODS[method](base.classes, base), image_proximity(base, base)
    whole = apply(base, near)
    monkeypatch.setattr(methods.mapping, "CHUNK", 8 * 13)
    for n, size in ((1, 500), (2, 137), (3, 1)):
        threads(n)
        parts, scores = [], []
        for start in range(0, 500 if size > 1 else 5, size):
            rows = slice(start, start + size)
            part = FeatureSet(
                base.image_features[rows], base.text_features, base.labels[rows], 30.0, base.zeroshot_text_features
            )
            parts.append(apply(part, near[rows]))
            scores.append(proper_scores(parts[-1], part))
        for key in ("confidence", "prediction"):
            joined = torch.cat([getattr(part, key) for part in parts])
            assert torch.equal(joined, getattr(whole, key)[: len(joined)]), (key, n)
        for key, score in proper_scores(whole, base).items():
            joined = torch.cat([part[key] for part in scores])
            assert torch.equal(joined, score[: len(joined)]), (key, n)


def test_all_methods_on_base_and_new_classes(splits) -> None:
    new, base = splits
    rows = {(row["split"], row["method"]): row for row in evaluate(new, base, ["all"])}
    rows |= {(row["split"], row["method"]): row for row in evaluate(base, base, ["all"], split="base")}
    assert {method for _, method in rows} == set(METHODS)
    for (split, method), row in rows.items():
        if split == "new" and method in ONE_MAP_PER_CLASS:
            assert row["ece"] is None and "none for other classes" in row["note"]
            continue
        assert row["ece"] is not None and row["brier"] is not None, (split, method)
        assert row["nll"] is not None or "NLL is infinite" in row["note"]
        if method not in ("zero-shot", *ONE_MAP_PER_CLASS):  # these two may change predictions
            assert row["accuracy"] == rows[split, "conf"]["accuracy"], method
    conf = rows["base", "conf"]
    for method in ("hb", "ir", "mir"):  # on the images that they were fitted on
        assert rows["base", method]["brier"] < conf["brier"], method
    assert rows["base", "ts"]["nll"] < conf["nll"]
    assert rows["base", "ts+dac"]["nll"] == rows["base", "ts"]["nll"]  # DAC leaves base classes as they are
    assert rows["new", "ts"]["settings"]["temperature"] == rows["base", "ts"]["settings"]["temperature"] > 1


def test_without_a_base_file_fitted_methods_say_so(splits) -> None:
    new, _ = splits
    for row in evaluate(new, None, [*FITTED, "cac-fit"]):
        assert row["ece"] is None and row["note"].endswith("fitted on labelled base classes: give a base file")


def test_classes_are_the_same_by_name_or_else_by_text_features(splits) -> None:
    new, base = splits
    names = [f"class {c}" for c in range(8)]
    one, other = (
        FeatureSet(f.image_features, f.text_features, f.labels, 30.0, classnames=n)
        for f, n in ((base, names), (base, names[::-1]))
    )
    fit_without = FeatureSet(base.image_features, base.text_features, base.labels, 30.0)
    assert evaluate(one, one, ["hb"])[0]["ece"] is not None
    assert evaluate(other, one, ["hb"])[0]["ece"] is None
    assert evaluate(other, fit_without, ["hb"])[0]["ece"] is not None
    assert evaluate(new, fit_without, ["hb"])[0]["ece"] is None


def test_what_the_base_file_lacks_is_told(splits) -> None:
    new, base = splits
    few = FeatureSet(base.image_features[:4], base.text_features, base.labels[:4], 30.0)
    for row in evaluate(new, few, ["den", "bms-mir"]):
        assert row["ece"] is None and "proximity to 5 base images" in row["note"]
    right = probabilities(base).argmax(1) == base.labels
    easy = FeatureSet(base.image_features[right], base.text_features, base.labels[right], 30.0)
    den, ts = evaluate(new, easy, ["den", "ts"])
    assert den["ece"] is None and "two wrong predictions" in den["note"]
    assert ts["ece"] is not None and "every label has the highest logit" in ts["note"]


def test_without_scikit_learn_isotonic_rows_say_what_to_install(splits, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.isotonic", None)
    done = evaluate_split(*splits, ["conf", "mir"])
    assert list(done.calibrated) == ["conf"] and "[isotonic]'" in done.rows[1]["note"]


def test_all_stands_for_every_method_once() -> None:
    assert check_methods(["dac", "all", "conf"])[0] == "dac"
    assert sorted(check_methods(["dac", "all"])) == sorted(METHODS)
    with pytest.raises(ValueError, match="methods must be among all, zero-shot, .*, got 'every'"):
        check_methods(["every"])
