"""The benchmarks run: every module, at small sizes, with contenders that agree. Their times are not tested."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import harness, results, tables
from benchmarks.targets import TARGETS, at_least, at_most


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results file of one quick run."""
    folder = tmp_path_factory.mktemp("results")
    assert command.main(["--quick", "--out", str(folder)]) == 0
    (path,) = folder.iterdir()
    return path


def case(idiom) -> harness.Case:
    x = torch.arange(4.0)
    return harness.Case(lambda: x * 2, idiom, (x,), lambda a, b: torch.testing.assert_close(a, b))


def test_every_op_is_measured(quick: Path):
    run = json.loads(quick.read_text())
    assert {row["op"] for row in run["rows"]} == set(command.OPS)
    for op in command.OPS:
        rows = [row for row in run["rows"] if row["op"] == op]
        assert {"ours", "peer", "floor"} <= {row["role"] for row in rows}
    for row in run["rows"]:
        if row["note"] and row["figure"] is None:
            continue  # a peer that is not installed
        if row["role"] == "memory":
            assert math.isfinite(row["figure"])
            continue
        assert row["seconds"] > 0 and row["cpu_seconds"] >= 0 and row["rounds"] >= 1
        assert (row["figure"] is None) == (row["role"] == "ours")
        assert row["figure"] is None or row["figure"] > 0


def test_results_say_where_they_come_from(quick: Path):
    stamp = json.loads(quick.read_text())["stamp"]
    assert stamp["cpu"] and stamp["threads"] == torch.get_num_threads()
    assert stamp["versions"]["torch"] == torch.__version__
    assert {"pyfastcal", "python", "numpy", "faiss-cpu", "torchmetrics"} <= set(stamp["versions"])
    assert quick.name.startswith(stamp["date"][:10])
    assert len(stamp["commit"] or "0" * 40) == 40 and stamp["dirty"] in (True, False, None)


def test_targets_belong_to_measured_work(quick: Path):
    rows = json.loads(quick.read_text())["rows"]
    works = {module.work(size): op for op, module in command.OPS.items() for size in module.SIZES}
    for work, targets in TARGETS.items():
        contenders = {row["contender"] for row in rows if row["op"] == works[work]}
        assert set(targets) <= contenders


def test_targets():
    assert at_least(2).holds(2.5) and not at_least(2).holds(1.9)
    assert at_most(2).holds(1.9) and not at_most(2).holds(2.5)


def test_contenders_that_disagree_are_not_timed():
    with pytest.raises(harness.Disagreement, match="torch eager"):
        list(harness.measure("op", "work", case(lambda x: x * 2 + 1e-3), harness.QUICK_SETTINGS))


def test_figures_are_relative_to_ours():
    contenders = {name: harness._Contender("peer", lambda: None) for name in ("ours", "slow")}
    contenders["ours"].wall, contenders["slow"].wall = [1.0, 2.0, 10.0], [3.0, 6.0, 10.0]
    for contender in contenders.values():
        contender.cpu = contender.wall
    row = harness._row("op", "work", "slow", contenders["slow"], contenders["ours"])
    assert (row.figure, row.ratio_of_medians) == (3.0, 3.0)
    floor = replace(contenders["slow"], role="floor")
    assert harness._row("op", "work", "floor", floor, contenders["ours"]).figure == pytest.approx(1 / 3)


def test_a_peer_that_cannot_run_is_a_row_that_says_so():
    lacking = replace(case(lambda x: x + x), peers={"peer": "peer is not installed"})
    rows = {row.contender: row for row in harness.measure("op", "work", lacking, harness.QUICK_SETTINGS)}
    assert rows["peer"].figure is None and rows["peer"].note == "peer is not installed"
    assert rows["torch eager"].figure > 0


def test_torch_compile_contender():
    call = harness.compiled(lambda x: x + x, (torch.arange(4.0),))
    assert isinstance(call, str) or torch.equal(call(), torch.arange(4.0) * 2)


def test_markdown_is_of_the_newest_complete_run(quick: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert command.main(["--markdown", "--out", str(tmp_path)]) == 1
    run = json.loads(quick.read_text())
    fields = harness.Row.__dataclass_fields__
    rows = [harness.Row(**{k: v for k, v in row.items() if k in fields}) for row in run["rows"]]
    for date, only in (("2026-01-02", []), ("2026-01-01", []), ("2026-01-03", ["knn"])):
        results.write(rows, run["stamp"] | {"date": date, "quick": False, "only": only}, tmp_path)
    capsys.readouterr()
    assert command.main(["--markdown", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| work |") and lines[-1].endswith("2026-01-02.")
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(command.OPS)


def test_a_failed_write_leaves_nothing(quick: Path, tmp_path: Path):
    stamp = json.loads(quick.read_text())["stamp"]
    with pytest.raises(TypeError):
        results.write([], stamp | {"rounds": object()}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_op(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        command.main(["--only", "knn,nothing"])
    assert stop.value.code == 2 and "nothing" in capsys.readouterr().err


@pytest.mark.parametrize(("x", "text"), [(2.0, "2 s"), (0.0123, "12.3 ms"), (1.5e-5, "15 µs"), (0.2, "200 ms")])
def test_seconds(x: float, text: str):
    assert tables.seconds(x) == text
