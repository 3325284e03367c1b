"""``evaluate`` against the definitions in plain torch, and what it does where a method cannot apply."""

import pytest
import torch
from torch.nn.functional import normalize

from pyfastcal import reference
from pyfastcal.evaluate import DEFAULT_METHODS, METHODS, METRICS, evaluate, evaluate_split, proper_scores
from pyfastcal.io import FeatureSet

from .data import pair


def expected(features: FeatureSet, base: FeatureSet, factor: torch.Tensor, near: torch.Tensor) -> dict[str, float]:
    """A row by the definitions, in float64."""
    logits = (
        30.0
        * normalize(features.image_features.double(), dim=-1)
        @ normalize(features.text_features.double(), dim=-1).T
    )
    probs = (factor[:, None] * logits).softmax(-1)
    confidence, prediction = probs.max(-1)
    correct = prediction == features.labels
    return {
        "accuracy": correct.double().mean(),
        "confidence": confidence.mean(),
        "ece": reference.expected_calibration_error(confidence, correct),
        "ace": reference.adaptive_calibration_error(confidence, correct),
        "mce": reference.maximum_calibration_error(confidence, correct),
        "mce_weighted": reference.maximum_calibration_error(confidence, correct, weighted=True),
        "piece": reference.proximity_informed_ece(confidence, correct, near),
        "nll": reference.negative_log_likelihood(probs, features.labels),
        "brier": reference.brier_score(probs, features.labels),
    }


@pytest.mark.parametrize("method", ["conf", "dac", "cac"])
def test_rows_are_the_definitions(method: str) -> None:
    new, base = pair()
    row = evaluate(new, base, [method])[0]
    images, texts = new.image_features.double(), new.text_features.double()
    similarity = normalize(images, dim=-1) @ normalize(texts, dim=-1).T
    zeroshot = normalize(images, dim=-1) @ normalize(new.zeroshot_text_features.double(), dim=-1).T
    factor = torch.ones(len(images), dtype=torch.float64)
    if method == "dac":
        banks = base.text_features.double(), base.zeroshot_text_features.double()
        gamma = reference.textual_deviation(texts, new.zeroshot_text_features.double(), *banks)
        assert gamma.std() > 0.01  # else the test says nothing
        factor = gamma[similarity.argmax(1)]
    if method == "cac":
        factor = reference.contrast_weight(similarity, zeroshot)
        assert factor.std() > 0.001
    near = reference.proximity(new.image_features, base.image_features)
    # float32 against float64 can move a confidence across an edge of a bin: one image in 400 at the most
    for metric, value in expected(new, base, factor, near).items():
        assert row[metric] == pytest.approx(float(value), abs=3e-3 if metric in ("mce", "piece") else 3e-4), metric
    assert row["gap"] == row["confidence"] - row["accuracy"]


@pytest.mark.parametrize("method", ["conf", "zero-shot", "dac", "cac-fit"])
def test_proper_scores_of_each_image_are_those_of_its_probabilities(method: str) -> None:
    new, base = pair(c=20)
    new.logit_scale = 300.0  # confidences from 0.1 to 1 - 1e-12
    result = METHODS[method](new.classes, base)(new, None)
    images, texts = result.source or (new.image_features, new.text_features)
    factor = torch.ones(len(images)) if result.factor is None else result.factor
    similarity = normalize(images.double(), dim=-1) @ normalize(texts.double(), dim=-1).T
    probs = (300.0 * factor[:, None] * similarity).softmax(-1)
    truth = torch.nn.functional.one_hot(new.labels, 20)
    scores = proper_scores(result, new)
    # float32 logits of up to 300 are off by up to 2e-5
    torch.testing.assert_close(scores["nll"], -probs[truth.bool()].log(), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(scores["brier"], (probs - truth).square().sum(1), atol=1e-4, rtol=0)
    part = FeatureSet(new.image_features[7:8], new.text_features, new.labels[7:8], 300.0, new.zeroshot_text_features)
    alone = proper_scores(METHODS[method](new.classes, base)(part, None), part)
    assert all(torch.equal(alone[key], scores[key][7:8]) for key in scores)


def test_scaling_changes_no_prediction_and_fitting_helps_where_it_fits() -> None:
    new, base = pair()
    done = evaluate_split(new, base)
    assert set(done.calibrated) == set(DEFAULT_METHODS)
    for calibrated in done.calibrated.values():
        assert torch.equal(calibrated.prediction, done.calibrated["conf"].prediction)
    rows = {row["method"]: row for row in evaluate(base, base)}
    # fitted on these very images: never a higher NLL than the constants it starts from, or than doing nothing
    assert rows["cac-fit"]["nll"] <= min(rows["conf"]["nll"], rows["cac"]["nll"]) + 1e-4
    assert rows["dac"]["ece"] == rows["conf"]["ece"]  # every class is a base class: gamma = 1


def test_the_order_of_images_does_not_matter() -> None:
    new, base = pair()
    order = torch.randperm(len(new.labels), generator=torch.Generator().manual_seed(0))
    shuffled = FeatureSet(
        new.image_features[order], new.text_features, new.labels[order], 30.0, new.zeroshot_text_features
    )
    for one, other in zip(evaluate(new, base), evaluate(shuffled, base), strict=True):
        for metric in METRICS:
            assert one[metric] == pytest.approx(other[metric], abs=1e-6), (one["method"], metric)


def test_methods_that_cannot_apply_say_why() -> None:
    new, base = pair()
    bare = FeatureSet(new.image_features, new.text_features, new.labels, 30.0)
    rows = {row["method"]: row for row in evaluate(bare, None, ["zero-shot", *DEFAULT_METHODS])}
    assert rows["conf"]["accuracy"] is not None and rows["conf"]["note"] == ""
    for method in ("zero-shot", "dac", "cac"):
        assert rows[method]["accuracy"] is None and "zeroshot_text_features" in rows[method]["note"]
    assert "base file" in rows["cac-fit"]["note"]
    few = FeatureSet(
        base.image_features[:9],
        base.text_features[:3],
        base.labels[:9] % 3,
        30.0,
        base.zeroshot_text_features[:3],
    )
    (row,) = evaluate(new, few, ["dac"])
    assert row["ece"] is None and "at least k=5 classes, got 3" in row["note"]


def test_without_a_base_split() -> None:
    new, _ = pair()
    rows = {row["method"]: row for row in evaluate(new, methods=["conf", "dac"])}
    near = reference.proximity(new.image_features, new.image_features, exclude_self=True)
    confidence, prediction = reference.similarity_confidence(new.image_features, new.text_features, 30.0)
    piece = reference.proximity_informed_ece(confidence, prediction == new.labels, near)
    assert rows["conf"]["piece"] == pytest.approx(float(piece), abs=3e-3)
    assert rows["dac"]["ece"] is not None


def test_few_images_have_no_piece() -> None:
    new, _ = pair(n=4)
    (row,) = evaluate(new, methods=["conf"])
    assert row["piece"] is None and row["ece"] is not None


def test_bad_arguments() -> None:
    new, base = pair()
    with pytest.raises(ValueError, match=r"methods must be among .*, got 'magic'"):
        evaluate(new, base, ["conf", "magic"])
    with pytest.raises(ValueError, match="methods must name at least one"):
        evaluate(new, base, [])
    base.image_features = base.image_features[:, :16]
    base.text_features = base.text_features[:, :16]
    base.zeroshot_text_features = base.zeroshot_text_features[:, :16]
    with pytest.raises(ValueError, match="base image_features must have 32 columns"):
        evaluate(new, base)
    new.labels = new.labels + 8
    with pytest.raises(ValueError, match=r"features: labels must lie in \[0, 8\)"):
        evaluate(new)


def test_progress_names_each_method() -> None:
    new, base = pair()
    seen: list[str] = []
    evaluate(new, base, ["conf", "dac"], progress=seen.append)
    assert seen == ["conf", "dac"]
