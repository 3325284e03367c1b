"""The experiment on image folders and a CLIP by name: the digits as files."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pyfastcal import experiment
from pyfastcal.cli import app
from pyfastcal.clip.tasks.digits import CLASS_NAMES, TEMPLATE
from pyfastcal.experiment.sources import FolderTask
from tests.command import error_of, invoke

PER_CLASS = 9
MODEL = "pyfastcal/digits"
BASE = ("digit_zero", "digit seven", "digit_two", "digit_three", "digit_six")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image
    from sklearn.datasets import load_digits

    root, digits = tmp_path_factory.mktemp("data") / "my digits", load_digits()
    for number, name in enumerate(CLASS_NAMES):
        folder = root / name.replace(" ", "_")
        folder.mkdir(parents=True)
        for i, image in enumerate(digits.images[digits.target == number][:PER_CLASS]):
            Image.fromarray((image * 255 / 16).astype("uint8")).resize((32, 32)).save(folder / f"{i}.png")
    return root


def task(images: Path, **options) -> FolderTask:
    options = {"base_classes": BASE, "template": TEMPLATE} | options
    return FolderTask(str(images), MODEL, **options)


def test_splits(images: Path, tmp_path: Path) -> None:
    found = task(images).load(seed=0, shots=2)
    assert found.base_classes == [name.replace("_", " ") for name in BASE]
    assert set(found.base_classes) | set(found.new_classes) == set(CLASS_NAMES) and len(found.new_classes) == 5
    sizes = [len(part.labels) for part in (found.train, found.validation, found.base_test, found.new_test)]
    assert sizes == [10, 10, 5 * (PER_CLASS - 4), 5 * PER_CLASS]
    seen = []
    for part, names in ((found.train, 0), (found.validation, 0), (found.base_test, 0), (found.new_test, 1)):
        dataset = part.images.dataset
        for place, label in zip(part.images.indices, part.labels.tolist(), strict=True):
            folder = dataset.files[place][0].parent.name.replace("_", " ")
            assert folder == (found.new_classes if names else found.base_classes)[label]
            seen.append(place)
    assert sorted(seen) == list(range(10 * PER_CLASS))  # every image once
    other = task(images).load(seed=1, shots=2)
    assert other.train.images.indices != found.train.images.indices
    few = found.train.few(1)
    assert few.labels.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(few.stacked(), found.train.stacked()[::2])


def test_features_are_kept_until_a_file_changes(images: Path, tmp_path: Path) -> None:
    from pyfastcal.experiment import sources

    def loaded() -> torch.Tensor:
        sources._images.clear()
        return task(images, cache=str(tmp_path)).load(0, 2).train.features

    first = loaded()
    (kept,) = tmp_path.iterdir()
    stamp = kept.stat().st_mtime_ns
    assert torch.equal(loaded(), first) and kept.stat().st_mtime_ns == stamp
    os.utime(images / "digit_zero" / "0.png", ns=(0, 0))
    assert torch.equal(loaded(), first) and len(list(tmp_path.iterdir())) == 2


def test_first_half_is_base_by_default(images: Path) -> None:
    found = task(images, base_classes=None).load(0, 1)
    assert found.base_classes == sorted(CLASS_NAMES)[:5] and found.new_classes == sorted(CLASS_NAMES)[5:]


@pytest.mark.parametrize(
    ("options", "shots", "message"),
    [
        ({"base_classes": ("digit ten", "digit one")}, 1, "base_classes must be folders of .*, got 'digit ten'"),
        ({"base_classes": ("digit one",)}, 1, "base_classes must leave 2 classes on either side, got 1 of 10"),
        ({}, 5, "class 'digit zero' must have more than 10 images for 5 shots .*, got 9"),
    ],
)
def test_what_does_not_fit(images: Path, options: dict, shots: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(images, **options).load(0, shots)


def test_command(images: Path, tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("\n".join(BASE) + "\n")
    out = tmp_path / "out"
    arguments = ["experiment", "--out", out, "--data", images, "--model", MODEL, "--template", TEMPLATE]
    arguments += [
        "--base-classes",
        tmp_path / "base.txt",
        "--learners",
        "all",
        "--seeds",
        1,
        "--shots",
        3,
        "--epochs",
        2,
    ]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    rows = json.loads((out / "results.json").read_text())
    assert {(row["task"], row["model"]) for row in rows} == {("my digits", MODEL)}
    assert len({row["learner"] for row in rows}) == 7
    plain = [row for row in rows if row["method"] == "conf"]
    assert len(plain) == 14 and all(row["accuracy"] > 0.3 for row in plain)  # chance: 0.2
    assert {r["value"] for r in json.loads((out / "ablations.json").read_text()) if r["ablation"] == "shots"} == {
        1,
        2,
        3,
    }
    page = (out / "report.html").read_text()
    assert "Model: pyfastcal/digits.</p>" in page and "on 1 task (my digits) with 1 seed: 7 runs." in page
    assert "1 task and 1 seed." in page


def test_a_folder_of_an_odd_name(images: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(images, tmp_path / "[bold] $x$ \x1b[31m <b>")
    arguments = "--data", odd, "--model", MODEL, "--template", TEMPLATE, "--learners", "KgCoOp", "--seeds", 1
    options = "--shots", 2, "--epochs", 1, "--few-shot-learners", "none", "--methods", "conf,dac"
    done = invoke("experiment", "--out", tmp_path / "out", *arguments, *options)
    assert "\x1b" not in done.stdout + done.stderr and r"[bold] $x$ \x1b[31m <b>" in done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "\x1b" not in page and r"[bold] $x$ \x1b[31m &lt;b&gt;" in page


def test_a_template_without_a_place_for_the_name(images: Path, tmp_path: Path) -> None:
    """Said before anything is made."""
    arguments = "experiment", "--out", tmp_path / "out", "--data", images, "--model", MODEL, "--template", "a photo"
    assert "template must be a text with one {} for the class name, got 'a photo'" in error_of(*arguments)
    assert not (tmp_path / "out").exists()


def test_an_error_names_the_run(images: Path, tmp_path: Path) -> None:
    few = task(images)
    with pytest.raises(ValueError, match="^my digits@pyfastcal-digits/KgCoOp-5shots-seed0: .*must have more than 10"):
        experiment.run(tmp_path, [few], ["KgCoOp"], [0], shots=5)


def test_two_folders_of_one_name_are_refused(images: Path, tmp_path: Path) -> None:
    twice = [task(images), task(images)]
    with pytest.raises(ValueError, match="data must be folders of different names, got my digits, my digits"):
        experiment.run(tmp_path, twice, ["KgCoOp"], [0])
