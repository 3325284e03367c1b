"""``pyfastcal experiment``: the rows it writes, that it goes on where it was, and that processes change nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pyfastcal import experiment
from pyfastcal.cli import app
from pyfastcal.clip import tasks
from pyfastcal.clip.prompts import LEARNERS
from pyfastcal.experiment import tables
from pyfastcal.experiment.cell import epochs_of
from pyfastcal.experiment.page import render, where_learners_stop
from pyfastcal.experiment.results import Results, average

from .conftest import OPTIONS

DIGITS = experiment.bundled(["digits"])


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*.json"))}


def test_a_row_per_task_learner_method_split_and_seed(results, folder: Path) -> None:
    rows = json.loads((folder / "results.json").read_text())
    assert rows == results.rows
    keys = [tuple(row[k] for k in ("task", "model", "learner", "method", "split", "seed")) for row in rows]
    assert set(keys) == {
        ("digits", "digits", learner, method, split, seed)
        for learner in ("CoOp", "MaPLe")
        for method in experiment.METHODS
        for split in ("base", "new")
        for seed in (0, 1)
    }
    assert len(keys) == len(set(keys))
    for row in rows:
        numbers = [row[k] for k in ("accuracy", "confidence", "ece", "ace", "mce", "mce_weighted", "piece")]
        if row["split"] == "new" and row["method"] in ("hb", "ir"):
            assert numbers == [None] * 7 and "map for each class" in row["note"]
        else:
            assert all(0 <= x <= 1 for x in numbers), row


def test_scaling_methods_keep_predictions_and_dac_leaves_base_classes(results) -> None:
    for split in ("base", "new"):
        accuracy = {m: [r["accuracy"] for r in results.select(split=split, method=m)] for m in experiment.METHODS}
        assert all(accuracy[m] == accuracy["conf"] for m in ("ts", "dac", "ts+dac", "cac", "cac-fit"))
    base = {m: [r["ece"] for r in results.select(split="base", method=m)] for m in ("conf", "dac")}
    assert base["dac"] == base["conf"]
    one, other = ([r["ece"] for r in results.select(method="zs", learner=name)] for name in ("CoOp", "MaPLe"))
    assert one == other  # the model before tuning is the same


def test_rows_are_what_evaluate_gives(results) -> None:
    """Made once more from the learner by hand."""
    from pyfastcal.clip import load_small, tasks
    from pyfastcal.clip.prompts import MaPLe
    from pyfastcal.evaluate import evaluate
    from pyfastcal.io import FeatureSet

    task, clip = tasks.load("digits", seed=1), load_small("digits")
    learner = MaPLe(clip, template=task.template, epochs=3).fit(*task.train, task.base_classes, seed=1)

    def features(split, names) -> FeatureSet:
        tuned, before = learner.features(split.images), learner.zeroshot_features(split.images)
        texts = learner.text_features(names), learner.zeroshot_text_features(names)
        return FeatureSet(tuned, texts[0], split.labels, learner.logit_scale, texts[1], before, classnames=names)

    base = features(task.validation, task.base_classes)
    for row in evaluate(features(task.new_test, task.new_classes), base, ["conf", "ts", "dac", "cac", "cac-fit"]):
        (found,) = results.select(learner="MaPLe", method=row["method"], split="new", seed=1)
        for metric in ("accuracy", "confidence", "ece", "ace", "piece"):
            assert found[metric] == pytest.approx(row[metric], abs=1e-6), (row["method"], metric)


def test_processes_change_no_bit(results, folder: Path, tmp_path: Path) -> None:
    options = OPTIONS | {"learners": ["CoOp"], "jobs": 2}
    experiment.run(tmp_path, DIGITS, **options)
    here, there = files(folder), files(tmp_path)
    cells = [name for name in there if name.startswith("cells")]
    assert len(cells) == 4
    for name in cells:
        one, other = json.loads(here[name]), json.loads(there[name])
        assert one.pop("seconds").keys() == other.pop("seconds").keys() and one == other


def test_what_is_done_is_not_done_again(results, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyfastcal.experiment import grid

    ran = []
    run = grid.run
    monkeypatch.setattr(grid, "run", lambda cell, *rest: ran.append(cell.name) or run(cell, *rest))
    before = files(folder)
    experiment.run(folder, DIGITS, **OPTIONS)
    assert not ran and files(folder) == before
    lost = folder / "cells/digits/CoOp-16shots-seed1.json"
    lost.unlink()
    again = experiment.run(folder, DIGITS, **OPTIONS)
    assert ran == ["digits/CoOp-16shots-seed1"] and again.rows == results.rows
    seeds = experiment.run(folder, DIGITS, **OPTIONS | {"seeds": [2], "learners": ["MaPLe"]})
    assert len(ran) == 2 and seeds.seeds == [2]  # it can grow
    experiment.run(folder, DIGITS, **OPTIONS)
    assert files(folder)["results.json"] == before["results.json"]


def test_killed_it_goes_on(tmp_path: Path) -> None:
    """kill -9 as soon as there is a cell: what is left is whole, and the rest is made."""
    command = [sys.executable, "-m", "pyfastcal", "experiment", "--out", str(tmp_path), "--learners", "KgCoOp"]
    command += ["--tasks", "digits", "--seeds", "4", "--epochs", "60", "--jobs", "1"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and not list(tmp_path.glob("cells/*/*.json")):
        time.sleep(0.01)
    running.kill()
    running.wait()
    done = files(tmp_path)
    cells = [name for name in done if name.startswith("cells")]
    assert cells and all(json.loads(done[name])["rows"] for name in cells)
    results = experiment.run(tmp_path, DIGITS, ["KgCoOp"], range(4), epochs=60)
    assert len(results.cells) == 4 and all(files(tmp_path)[name] == done[name] for name in cells)


def stat(process: str) -> list[str]:
    """The fields from the state on, as proc(5) has them."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def seconds_of(process: str) -> float:
    """Of the processor."""
    user, system = stat(process)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def is_running(process: str) -> bool:
    """Not so one that has ended and that nobody has asked for its result."""
    try:
        return stat(process)[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's lists of processes")
def test_killed_it_leaves_no_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyfastcal", "experiment", "--out", str(tmp_path), "--learners", "ProDA"]
    command += ["--tasks", "shapes,digits", "--seeds", "1", "--jobs", "2", "--few-shot-learners", "none"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    listed, workers = Path(f"/proc/{running.pid}/task/{running.pid}/children"), []
    while running.poll() is None and (len(workers) < 2 or min(map(seconds_of, workers)) < 10):  # they work by then
        time.sleep(0.1)
        workers = [p for p in listed.read_text().split() if "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()]
    running.kill()
    running.wait()
    end = time.monotonic() + 60
    while (left := [p for p in workers if is_running(p)]) and time.monotonic() < end:
        time.sleep(0.1)
    for p in left:
        os.kill(int(p), signal.SIGKILL)
    assert len(workers) == 2 and not left


def test_other_settings_are_refused(results, folder: Path) -> None:
    with pytest.raises(ValueError, match="holds an experiment with epochs 3, not 4"):
        experiment.run(folder, DIGITS, **OPTIONS | {"epochs": 4})
    with pytest.raises(ValueError, match="holds an experiment with methods zs, conf, .*, not dac"):
        experiment.run(folder, DIGITS, methods=["dac"], **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learners": ["CoOpp"]}, "learners must be among all, CoOp, .*, got 'CoOpp'"),
        ({"methods": ["dacc"]}, "methods must be among all, zs, conf, .*, got 'dacc'"),
        ({"seeds": []}, "seeds must name at least one"),
        ({"seeds": [-1]}, "seeds must be"),
        ({"shots": 4, "few_shots": [8]}, "few_shots must be an integer of at least 1 and at most 4"),
        ({"jobs": 0}, "jobs must be"),
        ({"epochs": 0}, "epochs must be"),
    ],
)
def test_wrong_arguments(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        experiment.run(tmp_path, DIGITS, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("learner", "images", "most_steps", "most_epochs", "epochs"),
    [
        ("CoOp", 80, None, None, 200),
        ("CoOp", 80, None, 3, 3),
        ("CoOp", 608, 1500, None, 78),  # of 19 batches
        ("CoOp", 80, 1500, None, 200),
        ("ProDA", 608, 1500, None, 9),
        ("CoCoOp", 608, 1500, None, 5),  # one image at a time: two epochs would be a warm-up and hardly more
        ("MaPLe", 608, 1500, None, 5),
        ("MaPLe", 608, 1500, 2, 2),
    ],
)
def test_epochs(learner: str, images: int, most_steps: int | None, most_epochs: int | None, epochs: int) -> None:
    assert epochs_of(LEARNERS[learner], images, most_steps, most_epochs) == epochs


def test_the_eleven_tasks_of_drawings() -> None:
    sources = experiment.bundled(["drawings"])
    assert [(source.name, source.model) for source in sources] == [(name, "drawings") for name in tasks.DRAWINGS]
    assert all(source.most_steps == 1500 for source in sources) and DIGITS[0].most_steps is None


def test_unknown_task() -> None:
    with pytest.raises(ValueError, match="tasks must be one of 'all', 'digits'.*got 'cifar'"):
        experiment.bundled(["cifar"])
    assert len(experiment.bundled(["all", "digits"])) >= 6


@pytest.mark.parametrize("content", ["{}", "[]", '{"task": "digits"}', "[" * 100_000])
def test_a_cell_of_something_else_is_named(results, folder: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    cell = tmp_path / "copy" / "cells" / "digits" / "CoOp-16shots-seed1.json"
    cell.write_text(content)
    with pytest.raises(ValueError, match=r"CoOp-16shots-seed1\.json: (is not the result of|not a file of an exp)"):
        experiment.run(tmp_path / "copy", DIGITS, **OPTIONS)


@pytest.mark.parametrize("key", ["weights", "most_steps"])
def test_a_folder_of_other_weights_or_steps_is_refused(results, folder: Path, tmp_path: Path, key: str) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy" / "experiment.json"
    found = json.loads(file.read_text())
    found["sources"]["digits"][key] = "other"
    file.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=f"in which digits was made of .*'{key}': 'other'.*, not .*'{key}': "):
        experiment.run(tmp_path / "copy", DIGITS, **OPTIONS)


def test_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text("{")
    with pytest.raises(ValueError, match=r"experiment\.json: not a file of an experiment"):
        experiment.run(tmp_path, DIGITS, **OPTIONS)


def test_tables_have_the_means_of_the_rows(results) -> None:
    found = {table.name: table for table in tables.all_tables(results)}
    assert list(found) == [
        *("states", "tuned", "table 1 base", "table 1 new", "table 1 published", "table 2 base", "table 2 new"),
        *("table 3 base", "table 3 new", "dac"),
        *("tasks base", "tasks new", "cac k", "cac alpha", "cac lambda1", "cac lambda2", "shots CoOp"),
        *("normalisation", "normalisation base", "normalisation new", "contrast", "proximity"),
    ]
    values = torch.tensor([r["ece"] for r in results.select(split="new", method="dac", learner="MaPLe")])
    table = found["table 1 new"]
    row = dict(table.rows)["MaPLe"]
    expected = f"{100 * values.mean():.1f} ± {100 * values.std():.1f}"
    assert row[experiment.METHODS.index("dac")] == expected
    assert row[experiment.METHODS.index("hb")] == "-" and "-: HB, IR: there is a map for each class" in table.note
    assert table.note.startswith("ECE in per cent, mean over 1 task and 2 seeds; ±: ")
    counts = re.findall(r"\((\d[\d,]*)\)", " ".join(dict(found["table 3 new"].rows)["CoOp, Conf"]))
    images = sum(r["images"] for r in results.select(learner="CoOp", split="new", method="conf"))
    assert sum(int(c.replace(",", "")) for c in counts) == images
    assert found["shots CoOp"].heads == ["2", "16", "published", "agrees"]
    by_learner = found["normalisation new"]
    place = by_learner.heads.index("CAC, logit: ECE")
    own = [
        r["ece"]
        for r in results.ablations
        if (r["ablation"], r["value"], r["learner"], r["split"]) == ("normalisation", "cac logit", "MaPLe", "new")
    ]
    assert dict(by_learner.rows)["MaPLe"][place].startswith(f"{50 * sum(own):.1f} ±") and len(own) == 2
    points = [c["classes"]["new"]["conf gap"] for c in results.cells if c["learner"] == "MaPLe"]
    ranks = [torch.tensor(pair).argsort(1).argsort(1).double() for pair in points]  # no two are equal
    expected = torch.stack([pair.corrcoef()[0, 1] for pair in ranks]).mean()
    assert dict(found["proximity"].rows)["MaPLe"][found["proximity"].heads.index("new: gap")] == f"{expected:.2f}"
    zero = dict(found["cac k"].rows)["0"]  # alpha alone, 1.1, is outside [0.9, 1]: squared
    assert zero[-2:] == ["1.21", "1.21"]
    for cells in (cells for table in found.values() for _, cells in table.rows):
        assert not any("nan" in cell for cell in cells)


def test_mean_and_spread_are_over_runs_and_seeds() -> None:
    rows = [{"seed": s, "ece": x} for s, x in ((0, 0.1), (0, 0.3), (1, 0.4), (1, None))]
    mean, spread = average(rows, "ece")
    assert mean == pytest.approx(0.8 / 3)
    assert spread == pytest.approx(0.2 / 2**0.5)  # of 0.2 and 0.4
    assert average([{"seed": 0, "ece": None}], "ece") is None


def test_page(results) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    html = render(results, ["A sentence & more."])
    assert "A sentence &amp; more." in html and "http" not in re.sub(r'xmlns\S*="[^"]*"', "", html)
    for table in tables.all_tables(results):
        assert table.title.replace("'", "&#x27;") in html
    for title in ("Accuracy and confidence", "Reliability of new classes", "Proximity, confidence", "ECE by shots"):
        assert title in html
    assert html.count("<svg") == 2 + 2 * 4 + 3 + 2


def test_page_says_where_learners_stop(results) -> None:
    def told(*sources: tuple[str, str]) -> list[str]:
        cells = [results.cells[0] | {"task": task, "model": model} for task, model in sources]
        return where_learners_stop(Results(cells, results.settings, sources))

    end = "a learner is tuned for 1,500 steps at most, where its published epochs come to more, but for 5 epochs at "
    end += "least."
    assert told(("digits", "digits"), ("flags", "ViT-B-16")) == []  # a folder's task that is called so
    assert told(("animals", "drawings"), ("flags", "drawings")) == [f"On all tasks {end}"]
    assert told(("digits", "digits"), ("flags", "drawings-small")) == [f"On flags {end}"]


def test_command(results, folder: Path) -> None:
    arguments = ["experiment", "--out", str(folder), "--learners", "coop,maple", "--tasks", "digits", "--seeds", "2"]
    arguments += ["--epochs", "3", "--jobs", "1", "--few-shot-learners", "none"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "Table 1: ECE by calibration method, new classes" in done.stdout and "MaPLe" in done.stdout
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "x"], "must be given with --data"),
        (["--model", "ViT-B-16"], "must be given with --model and"),
        (["--data", "x", "--model", "m", "--tasks", "digits"], "give either"),
        (["--data", "x", "--model", "m", "--models", "digits"], "give either"),
    ],
)
def test_command_with_options_that_do_not_go_together(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["experiment", "--out", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 2 and message in " ".join(done.stderr.replace("│", " ").split())
