"""The command line: results on stdout, errors in one line on stderr, exit codes, files whole or not there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pyfastcal import reference
from pyfastcal.cli import app
from pyfastcal.installation.commands import with_extra
from pyfastcal.io import load_features
from pyfastcal.io.progress import ProgressReport
from tests.command import error_of, feature_files, invoke


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return feature_files(tmp_path)


def test_evaluate_prints_and_writes(files: tuple[Path, Path], tmp_path: Path) -> None:
    new, base = files
    out, page = tmp_path / "out" / "new.json", tmp_path / "new.html"
    result = invoke("evaluate", new, "--base", base, "--json", out, "--report", page)
    for word in ("Conf", "DAC", "CAC-fit", "ECE", "PIECE", f"Written: {page}, {out}"):
        assert word in result.stdout
    content = json.loads(out.read_text())
    rows = {row["method"]: row for row in content["runs"][0]["rows"]}
    assert list(rows) == ["conf", "dac", "cac", "cac-fit"] and rows["conf"]["split"] == "new"
    features = load_features(new)
    confidence, prediction = reference.similarity_confidence(features.image_features, features.text_features, 30.0)
    ece = reference.expected_calibration_error(confidence, prediction == features.labels)
    assert rows["conf"]["ece"] == pytest.approx(float(ece), abs=1e-4)
    assert page.read_text().startswith("<!doctype html>")
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == [
        "base.safetensors",
        "new.html",
        "new.json",
        "new.safetensors",
    ]


def test_evaluate_several_files_bins_and_methods(files: tuple[Path, Path], tmp_path: Path) -> None:
    new, base = files
    invoke(
        "evaluate",
        new,
        base,
        "--base",
        base,
        "--methods",
        "conf, dac",
        "--n-bins",
        5,
        "--json",
        tmp_path / "o.json",
    )
    content = json.loads((tmp_path / "o.json").read_text())
    assert content["n_bins"] == 5
    assert [(r["split"], r["method"]) for r in content["runs"][0]["rows"]] == [
        ("new", "conf"),
        ("new", "dac"),
        ("base", "conf"),
        ("base", "dac"),
    ]


def test_all_methods(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The whole table of the papers, on base and new classes; "-" and why where a method has no map for a class."""
    new, base = files
    out, page = tmp_path / "all.json", tmp_path / "all.html"
    result = invoke("evaluate", base, new, "--base", base, "--methods", "all", "--json", out, "--report", page)
    for name in ("Zero-shot", "Conf", "TS", "DEN", "HB", "IR", "MIR", "BMS-MIR", "DAC", "TS + DAC", "CAC", "CAC-fit"):
        assert len(re.findall(rf"^ {re.escape(name)} +[-\d]", result.stdout, re.M)) == 2, name
    assert "HB, New classes: there is a map for each class of the base file and none for other classes" in result.stdout
    rows = {(row["split"], row["method"]): row for row in json.loads(out.read_text())["runs"][0]["rows"]}
    assert rows["base", "hb"]["ece"] is not None and rows["new", "hb"]["ece"] is None
    assert "- there is a map for each class" in page.read_text()


def test_a_method_that_cannot_apply_is_a_dash_with_a_reason(files: tuple[Path, Path]) -> None:
    result = invoke("evaluate", files[0], "--methods", "conf,cac-fit")
    assert "CAC-fit, New classes: alpha and k are fitted on labelled base classes: give a base file" in result.stdout


def test_bad_files_leave_nothing_behind(files: tuple[Path, Path], tmp_path: Path) -> None:
    new, base = files
    tensors = load_file(new)
    outputs = ["--json", tmp_path / "o.json", "--report", tmp_path / "o.html"]
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(new.read_bytes()[:-10])
    assert "broken.safetensors: not a complete safetensors file" in error_of("evaluate", broken, *outputs)
    save_file(tensors | {"labels": tensors["labels"] + 6}, broken)
    assert "broken.safetensors: labels must lie in [0, 6)" in error_of("evaluate", new, broken, *outputs)
    assert "broken.safetensors: labels" in error_of("evaluate", new, "--base", broken, *outputs)
    assert "none: no such file" in error_of("evaluate", tmp_path / "none", *outputs)
    invoke("evaluate", new, "--json", new / "o.json", code=1)  # the folder cannot be made
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([base.name, broken.name, new.name])


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "none"), "--debug"])
    assert result.exit_code == 1 and isinstance(result.exception, ValueError)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate"], "Missing argument"),
        (["evaluate", "x", "--methods", "conf,magic"], "got 'magic'"),
        (["evaluate", "x", "--methods", ","], "at least one"),
        (["evaluate", "x", "--n-bins", "0"], "greater than or equal to 1"),
        (["demo", "--task", "cats"], "digits, shapes"),
        (["demo", "--seeds", "0"], "greater than or equal to 1"),
        (["extract", "x", "y"], "--model"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], words: str) -> None:
    assert words in invoke(*arguments, code=2).stderr


@pytest.mark.parametrize("name", ["demo", "evaluate", "extract", "info"])
def test_help(name: str) -> None:
    text = invoke(name, "--help").stdout
    assert "Usage: pyfastcal" in text or "Usage: root" in text
    assert name == "info" or f"pyfastcal {name} " in text.split("Options")[0]  # examples


def test_info() -> None:
    import pyfastcal

    text = invoke("info").stdout
    build = pyfastcal.build_info()
    assert torch.__version__ in text and build["pyfastcal"] in text
    assert ("compiled CPU kernels" in text) == build["kernels"] and ("reference path" in text) != build["kernels"]
    found = json.loads(invoke("info", "--json").stdout)
    assert found["build"]["torch"] == torch.__version__ and "matplotlib" in found["optional packages"]


def python(*arguments: object, hide: str = "") -> subprocess.CompletedProcess:
    """A process of its own, in which the packages ``hide`` cannot be imported."""
    code = (
        "import sys\n"
        f"for name in {hide.split()!r}: sys.modules[name] = None\n"
        f"sys.argv = ['pyfastcal', *{[str(a) for a in arguments]!r}]\n"
        "from pyfastcal.cli import main\nmain()"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


def test_without_the_optional_packages(files: tuple[Path, Path], tmp_path: Path) -> None:
    hidden = "matplotlib open_clip torchvision sklearn PIL torchmetrics"
    done = python("evaluate", files[0], "--base", files[1], hide=hidden)
    assert done.returncode == 0 and "DAC" in done.stdout, done.stderr
    assert "new: calibrate and measure: 4 in" in done.stderr  # plain progress, no control characters
    assert "\x1b" not in done.stderr + done.stdout
    done = python("evaluate", files[0], "--report", tmp_path / "r.html", hide=hidden)
    assert done.returncode == 1 and done.stdout == "" and not (tmp_path / "r.html").exists()
    assert f"needs matplotlib for this: {with_extra('report')}" in done.stderr.replace("\n", "")


def test_module_entry_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "pyfastcal", "--version"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("pyfastcal ") and done.stderr == ""


def shards_of(file: Path, folder: Path) -> Path:
    """The images of a feature file in three shards, the classes in the first one alone."""
    features = load_features(file)
    folder.mkdir()
    for i, rows in enumerate((slice(0, 70), slice(70, 71), slice(71, None))):
        part = {"image_features": features.image_features[rows], "labels": features.labels[rows]}
        if not i:
            part |= {key: getattr(features, key) for key in ("text_features", "zeroshot_text_features")}
            part["logit_scale"] = torch.tensor(features.logit_scale)
        save_file(part, folder / f"part{i}.safetensors")
    return folder


def rows_of(*arguments: Any) -> list[dict]:
    """The rows of the JSON file that ``evaluate`` writes, by method, but for what only shards have."""
    out = arguments[arguments.index("--base") + 1].parent / "out.json"
    invoke("evaluate", *arguments, "--json", out)
    rows = json.loads(out.read_text())["runs"][0]["rows"]
    return [{key: row[key] for key in ("method", "images", "accuracy", "ece", "mce")} for row in rows]


def test_evaluate_shards(files: tuple[Path, Path], tmp_path: Path) -> None:
    new, base = files
    folder = shards_of(new, tmp_path / "shards")
    whole = rows_of(new, "--base", base)
    assert rows_of(folder, "--base", base) == whole
    assert rows_of(folder / "part*.safetensors", "--base", base) == whole
    assert rows_of(*sorted(folder.iterdir()), "--shards", "--base", base) == whole
    assert rows_of(new, "--classes", new, "--base", base, "--checkpoint", tmp_path / "kept") == whole
    page = tmp_path / "shards.html"
    result = invoke("evaluate", folder, base, "--base", base, "--report", page)  # a split in shards and one in memory
    assert "shards" in result.stdout and "Base classes" in result.stdout
    assert page.read_text().count("Reliability diagram:") == 8


def test_evaluate_says_which_shards_it_skipped(files: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shards_of(files[0], tmp_path / "shards")
    (folder / "part1.safetensors").write_bytes(b"?")
    assert "shards/part1.safetensors: not a complete" in error_of("evaluate", folder, "--methods", "conf")
    out, page = tmp_path / "out.json", tmp_path / "page.html"
    result = invoke("evaluate", folder, "--methods", "conf", "--skip-bad", "--json", out, "--report", page)
    assert "shards: without 1 shard that could not be read" in result.stdout
    (skipped,) = json.loads(out.read_text())["runs"][0]["skipped"]
    assert skipped["shard"] == str(folder / "part1.safetensors") and "not a complete" in skipped["reason"]
    assert "part1.safetensors: not a complete" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a*",), "a*: no file matches"),
        (("new.safetensors", "base.safetensors", "--checkpoint", "kept"), "--checkpoint must be of one split, got 2"),
        (("shards/part1.safetensors", "--shards"), "part1.safetensors: text_features is missing"),
        (("shards", "--classes", "none.safetensors"), "none.safetensors: no such file"),
        (("new.safetensors", "./new.safetensors"), "./new.safetensors: is named twice among the splits (also as new"),
        (("new.safetensors", "new.safetensors"), "new.safetensors: is named twice among the splits"),
        (("shards", "shards/part*.safetensors"), "part*.safetensors: is named twice among the splits (also as shards)"),
        (("shards", "./shards/part0.safetensors", "--shards"), "part0.safetensors: is named twice among the shards"),
        (("shards", "--device", "hpu"), "device must be one that can be used here, got 'hpu'"),
        (("shards", "--device", "meta"), "device must be one that can be used here, got 'meta'"),
        (("shards", "--device", "abacus"), "device must be one that torch knows, got 'abacus'"),
    ],
)
def test_evaluate_shards_wrongly(files, tmp_path: Path, monkeypatch, arguments: tuple, message: str) -> None:
    shards_of(files[0], tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    assert message in error_of("evaluate", *arguments)


def test_classes_of_shards_of_which_the_first_is_bad(files: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shards_of(files[0], tmp_path / "shards")
    (folder / "a.safetensors").write_bytes(b"?")
    assert "a.safetensors: not a complete" in error_of("evaluate", folder, "--methods", "conf")
    assert "without 1 shard that" in invoke("evaluate", folder, "--methods", "conf", "--skip-bad").stdout


def test_progress_off_a_terminal(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("pyfastcal.io.progress.time.monotonic", lambda: clock[0])
    with ProgressReport() as progress:
        for done in range(11):
            clock[0] = 7.0 * done
            progress("shards", done, 10)
    with ProgressReport(shown=False) as progress:
        progress("nothing", 1, 1)
    assert capsys.readouterr().err.splitlines() == [
        "shards: 5 of 10, 0.143/s, 0:00:35 left",
        "shards: 10 in 70.0 s",
    ]
