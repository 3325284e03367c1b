"""The demo for real, cut short: one run, few epochs; and its feature files through ``evaluate``."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pyfastcal import demo
from pyfastcal.cli import app
from pyfastcal.clip import tasks
from pyfastcal.clip.prompts import CoOp
from pyfastcal.clip.tasks.images import STD, normalize
from pyfastcal.report import Report, findings, mistakes, neighbours

pytest.importorskip("open_clip", reason="the extra 'demo' is not installed")
pytest.importorskip("sklearn", reason="the extra 'demo' is not installed")


@pytest.fixture(scope="module")
def seen() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def report(seen: list[tuple[str, int, int]]) -> Report:
    return demo.run("digits", [5], epochs=12, progress=lambda *step: seen.append(step))


def test_splits_and_methods(report: Report) -> None:
    (run,) = report.runs
    base, new = run.evaluations
    assert (base.split, new.split) == ("base", "new")
    assert set(base.features.classnames).isdisjoint(new.features.classnames)
    assert base.base.classnames == base.features.classnames == new.base.classnames
    for evaluation in run.evaluations:
        assert [row["method"] for row in evaluation.rows] == list(demo.METHODS)
        assert all(0 <= row["ece"] <= 1 for row in evaluation.rows)
        plain = evaluation.calibrated["conf"].prediction
        assert all(torch.equal(evaluation.calibrated[m].prediction, plain) for m in ("dac", "cac", "cac-fit"))
    chance = 1 / len(new.features.classnames)
    assert all(row["accuracy"] > 1.5 * chance for e in run.evaluations for row in e.rows)


def test_held_out_images_are_not_the_test_images(report: Report) -> None:
    base = report.runs[0].evaluations[0]
    distance = torch.cdist(base.base.image_features, base.features.image_features)
    assert float((distance.min(1).values < 1e-4).float().mean()) < 0.1


def test_tuning_is_reported_and_repeatable(report: Report, seen: list[tuple[str, int, int]]) -> None:
    assert [s for s in seen if "CoOp" in s[0]] == [("seed 5: tune CoOp", epoch, 12) for epoch in range(1, 13)]
    last = {what: (done, total) for what, done, total in seen}
    assert len(last) == 5 and all(done == total for done, total in last.values())
    again = demo.features_of("digits", 5, epochs=12)
    torch.testing.assert_close(again["new"].text_features, report.runs[0].evaluations[1].features.text_features)


def test_images_are_those_of_the_features(report: Report) -> None:
    (run,) = report.runs
    task = tasks.load("digits", seed=5)
    parts = {"validation": task.validation, "base": task.base_test, "new": task.new_test}
    assert run.images.keys() == parts.keys()
    for name, split in parts.items():
        pixels = run.images[name].permute(0, 3, 1, 2).float() / 255
        assert float((normalize(pixels) - split.images).abs().max()) < 0.51 / 255 / min(STD)
    n = len(mistakes.most_confident(run, demo.METHODS))
    assert mistakes.cards(report).count("<img") == n
    assert neighbours.blocks(report).count("<img") == 5 * (1 + 5 + 5)


def test_findings_are_about_both_splits(report: Report) -> None:
    text = " ".join(findings(report))
    assert "Base classes without calibration" in text and "DAC on new classes" in text


def test_command_writes_report_numbers_picture_and_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = demo.run
    monkeypatch.setattr(demo, "run", lambda *a, **k: run(*a, **k, epochs=3))
    picture = tmp_path / "demo.png"
    arguments = ["demo", "--task", "digits", "--seeds", "1", "--out", str(tmp_path), "--picture", str(picture)]
    done = CliRunner().invoke(app, [*arguments, "--features"])
    assert done.exit_code == 0, done.output
    assert "New classes without calibration" in done.stdout and "DAC" in done.stdout
    names = {p.name for p in tmp_path.rglob("*.*")}
    stem = "digits-seed0"
    assert names == {"digits.html", "digits.json", "demo.png"} | {
        f"{stem}-{split}.safetensors" for split in ("base", "new", "validation")
    }
    page = (tmp_path / "digits.html").read_text(encoding="utf-8")
    assert "The most confident mistakes" in page and "The neighbours that gave a class its γ" in page
    rows = {
        (row["split"], row["method"]): row
        for row in json.loads((tmp_path / "digits.json").read_text())["runs"][0]["rows"]
    }
    folder = tmp_path / "features"
    files = [
        str(folder / f"{stem}-new.safetensors"),
        "--base",
        str(folder / f"{stem}-validation.safetensors"),
    ]
    done = CliRunner().invoke(app, ["evaluate", *files, "--json", str(tmp_path / "again.json")])
    assert done.exit_code == 0, done.output
    for row in json.loads((tmp_path / "again.json").read_text())["runs"][0]["rows"]:
        assert row["ece"] == rows["new", row["method"]]["ece"], row["method"]


def test_drawings_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(CoOp, "fit", lambda coop, *_, seed, **__: asked.append((seed, coop.epochs)) or coop)
    found = demo.run(methods=["conf", "dac"])
    task = tasks.load("animals")
    assert asked == [(seed, 1500 // 19) for seed in range(2)]
    assert found.title == "pyfastcal demo: animals" and "drawn by people" in found.description[0]
    for run in found.runs:
        base, new = run.evaluations
        assert (base.features.classnames, new.features.classnames) == (task.base_classes, task.new_classes)
    assert len(found.runs[0].images["new"]) == len(task.new_test.labels) and not found.runs[1].images


@pytest.mark.parametrize(("task", "seeds", "name"), [("cats", [0], "task"), ("digits", [], "seeds")])
def test_bad_arguments(task: str, seeds: list[int], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        demo.run(task, seeds)
