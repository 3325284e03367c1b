"""``pyfastcal evaluate`` of files and shards: results on stdout, errors in one line on stderr, whole files or none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from pyfastcal import reference
from pyfastcal.io import load_features
from tests.command import error_of, invoke, shards_of


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
