"""The scripts of examples/ run, and print what they find."""

import subprocess
import sys
from pathlib import Path

import pytest

from pyfastcal.io import load_features

FOLDER = Path(__file__).parents[2] / "examples"
pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
pytest.importorskip("sklearn", reason="the extra 'demo' is not installed")


@pytest.fixture(autouse=True)
def _few_threads(threads):
    threads(1)


@pytest.fixture
def example(monkeypatch):
    """``example(name)``: the module of that script."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: __import__(name)


def test_drop_in(example):
    found = example("drop_in").main(epochs=20)
    assert 0.4 < found["accuracy"] < 0.9 and found["ece with DAC"] != found["ece"]
    assert found["ece with DAC, from features"] == pytest.approx(found["ece with DAC"], abs=1e-3)


def test_saved_features_as_a_script():
    run = subprocess.run([sys.executable, FOLDER / "saved_features.py"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = dict(line.rsplit(": ", 1) for line in run.stdout.splitlines())
    assert lines.keys() == {"accuracy", "ece", "ece with DAC"}
    assert float(lines["accuracy"].removesuffix(" %")) == pytest.approx(82.2, abs=1)  # docs/learners.json


def test_saved_features_are_left_in_a_folder(example, tmp_path):
    example("saved_features").main(str(tmp_path))
    assert load_features(tmp_path / "new.safetensors").meta == {"learner": "KgCoOp", "split": "new"}


def test_training_loop(example):
    history = example("training_loop").main(epochs=3)
    assert [row.pop("epoch") for row in history] == [1, 2, 3]
    for row in history:
        assert row.keys() == {
            f"{split} {key}" for split in ("base", "new", "new with DAC") for key in ("accuracy", "ece")
        }
        assert row["new with DAC accuracy"] == row["new accuracy"] and row["new with DAC ece"] != row["new ece"]
    assert len({row["base ece"] for row in history}) == 3  # it learns, and the metrics begin anew
    assert all(0.4 < row["base accuracy"] < 0.8 for row in history)


def test_every_example_is_tested():
    assert {file.stem for file in FOLDER.glob("*.py")} == {"drop_in", "saved_features", "training_loop"}
