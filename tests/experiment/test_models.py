"""An experiment on several models of a task: the bundled CLIP of the digits and an untrained ResNet."""

import json
from pathlib import Path

import pytest

from pyfastcal import experiment
from pyfastcal.clip import tasks
from pyfastcal.experiment import bundled_tasks
from pyfastcal.experiment.page import render
from pyfastcal.experiment.results import Results
from pyfastcal.experiment.tables import all_tables

RESNET = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}


@pytest.fixture
def two_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task "digits" can be run on a second model, "tiny"."""
    import open_clip
    import torch

    digits = bundled_tasks.load_small("digits")
    text = {"context_length": digits.model.context_length, "vocab_size": digits.model.vocab_size}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(64, RESNET, text | {"width": 64, "heads": 2, "layers": 1}).eval().requires_grad_(False)
    tiny = type(digits)(model, digits.tokenizer, digits.preprocess, "tiny")
    monkeypatch.setattr(bundled_tasks, "small_clip", {"digits": digits, "tiny": tiny}.__getitem__)
    task = bundled_tasks.Bundled("digits", {}, ("digits", "tiny"), "ten", "handwritten digits")
    monkeypatch.setitem(experiment.BUNDLED, "digits", task)
    bundled_tasks._material.cache_clear()


def test_names_of_groups_and_models(two_models: None) -> None:
    def pairs(*arguments: list[str] | None) -> list[tuple[str, str, str]]:
        return [(task.name, task.model, task.folder) for task in experiment.bundled(*arguments)]

    assert pairs(["ten"]) == [("digits", "digits", "digits")]
    assert pairs(["digits", "ten"], ["all"]) == [("digits", "digits", "digits"), ("digits", "tiny", "digits@tiny")]
    assert pairs(["ten"], ["tiny"]) == [("digits", "tiny", "digits@tiny")]
    assert {name for name, _, _ in pairs(["small"])} == set(experiment.BUNDLED) - {"digits", *tasks.DRAWINGS}
    assert len(pairs(["all"])) == len(experiment.BUNDLED)
    with pytest.raises(ValueError, match="models must be one of 'all', 'digits', 'tiny', got 'huge'"):
        experiment.bundled(["ten"], ["huge"])
    with pytest.raises(ValueError, match="models must have one for each task, got tiny, none of which shapes has"):
        experiment.bundled(["digits", "shapes"], ["tiny"])
    with pytest.raises(ValueError, match="model must be one of 'shapes', got 'tiny'"):
        experiment.BundledTask("shapes", "tiny")


def test_two_models(two_models: None, tmp_path: Path) -> None:
    options = {"methods": ["zs", "conf", "dac"], "epochs": 1, "few_shots": [1], "few_shot_learners": ["KgCoOp"]}
    sources = experiment.bundled(["digits"], ["all"])
    results = experiment.run(tmp_path, sources, ["KgCoOp", "MaPLe"], [0], **options)
    names = {str(file.relative_to(tmp_path / "cells")) for file in tmp_path.glob("cells/*/*.json")}
    assert names == {f"digits/{name}-seed0.json" for name in ("KgCoOp-1shots", "KgCoOp-16shots", "MaPLe-16shots")} | {
        "digits@tiny/KgCoOp-16shots-seed0.json"
    }
    rows = json.loads((tmp_path / "results.json").read_text())
    assert {(row["task"], row["model"]) for row in rows} == {("digits", "digits"), ("digits", "tiny")}
    (why,) = results.left_out.values()
    assert list(results.left_out) == [("tiny", "MaPLe")] and "must have a vision transformer" in why
    loaded = Results.load(tmp_path)
    assert loaded.left_out == results.left_out and loaded.rows == results.rows

    found = {table.name: table for table in all_tables(loaded)}
    assert found["backbones"].note.startswith("In per cent, mean over KgCoOp and digits.")
    by_model = dict(found["backbones"].rows)
    assert len(by_model) == 6
    for model in ("digits", "tiny"):
        (own,) = loaded.select(model=model, learner="KgCoOp", method="dac", split="new")
        assert by_model[f"{model}, DAC"][4] == f"{100 * own['accuracy']:.1f}"
        assert by_model[f"{model}, DAC"][5] == f"{100 * own['ece']:.1f}"
    (own,) = loaded.select(model="digits", learner="KgCoOp", method="conf", split="new")
    assert dict(found["table 1 new"].rows)["KgCoOp"][1] == f"{100 * own['ece']:.1f}"  # of the first model alone
    assert found["shots KgCoOp"].heads[:2] == ["1", "16"]

    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    page = render(loaded, [])
    assert "Models: digits, tiny." in page and "MaPLe on tiny: left out: model must have a vision transformer" in page


def test_one_model_that_does_not_take_a_learner_is_an_error(two_models: None, tmp_path: Path) -> None:
    sources = experiment.bundled(["digits"], ["tiny"])
    with pytest.raises(ValueError, match="^digits@tiny/MaPLe-16shots-seed0: model must have a vision transformer"):
        experiment.run(tmp_path, sources, ["MaPLe"], [0], epochs=1)
