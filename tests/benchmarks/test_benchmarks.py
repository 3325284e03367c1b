"""The benchmarks run: every module, at small sizes, with contenders that agree. Their times are not tested."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import harness, knn_sweep, results, small, tables
from benchmarks.targets import TARGETS, at_least, at_most, in_microseconds, share_of_floor

from .cases import case


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results file of one quick run."""
    folder = tmp_path_factory.mktemp("results")
    assert command.main(["--quick", "--out", str(folder)]) == 0
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def quick_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """One quick run of the GPU's works, on a GPU where there is one."""
    folder = tmp_path_factory.mktemp("results")
    assert command.main(["--quick", "--device", "cuda", "--out", str(folder)]) == 0
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


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


@pytest.mark.gpu
def test_targets_belong_to_measured_work(quick: Path, quick_gpu: dict):
    rows = {"SIZES": json.loads(quick.read_text())["rows"], "GPU_SIZES": quick_gpu["rows"]}
    works = {
        module.work(size): (op, sizes)
        for sizes in rows
        for op, module in command.OPS.items()
        for size in getattr(module, sizes)
    }
    for work, targets in TARGETS.items():
        op, sizes = works[work]
        contenders = {row["contender"] for row in rows[sizes] if row["op"] == op}
        assert set(targets) - {"torch.compile"} <= contenders


@pytest.mark.gpu
def test_every_op_is_measured_on_a_gpu(quick_gpu: dict):
    assert {row["op"] for row in quick_gpu["rows"]} == {op for op, module in command.OPS.items() if module.GPU_QUICK}
    assert all(row["seconds"] > 0 for row in quick_gpu["rows"])
    on_gpu = torch.cuda.is_available()
    assert quick_gpu["stamp"]["device"] == ("cuda" if on_gpu else "cpu")
    assert all((row["cpu_seconds"] is None) == on_gpu for row in quick_gpu["rows"])


def test_works_of_cpu_and_gpu_have_names_of_their_own():
    for module in command.OPS.values():
        names = [module.work(size) for size in (*module.SIZES, *module.GPU_SIZES)]
        assert len(set(names)) == len(names)


def test_targets():
    assert at_least(2).holds(2.5) and not at_least(2).holds(1.9)
    assert at_most(2).holds(1.9) and not at_most(2).holds(2.5)


def test_a_target_may_be_a_time():
    row = harness.Row("op", "work", "pyfastcal", "ours", seconds=14e-6)
    target = in_microseconds(15)
    assert str(target) == "≤ 15 µs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TARGETS, "work", {"pyfastcal": target})
        assert row.holds and not replace(row, seconds=16e-6).holds
    assert str(share_of_floor(0.8)) == "≤ 1.25" and share_of_floor(0.8).holds(1.2)


def test_work_begun_too_late_is_a_row_that_says_so():
    run = command.Run(results.stamp(quick=True, only=[]))
    assert command.measure(["bins"], True, harness.QUICK_SETTINGS, Console(stderr=True), run, budget=-1)
    assert [row.note for row in run.rows] == ["not measured: out of time"]
    assert "out of time" in tables.markdown(run.rows, run.stamp)


def test_too_little_memory_reduces_the_work(monkeypatch: pytest.MonkeyPatch):
    def short_of_memory(size: tuple, device: str) -> harness.Case:
        if size[0] > 3000:
            raise torch.cuda.OutOfMemoryError
        return case(lambda x: x + x)

    monkeypatch.setattr(command.OPS["bins"], "case", short_of_memory)
    rows = command.measure_one("bins", (10_000,), harness.QUICK_SETTINGS, "cpu")
    assert {row.work for row in rows} == {"bins, 2,500 confidences"}
    assert {row.note for row in rows} == {"too little memory for bins, 10,000 confidences"}
    with pytest.raises(torch.cuda.OutOfMemoryError):
        monkeypatch.setattr(command.OPS["bins"], "case", lambda size, device: short_of_memory((9999,), device))
        command.measure_one("bins", (10_000,), harness.QUICK_SETTINGS, "cpu")


def test_contenders_that_disagree_are_not_timed():
    with pytest.raises(harness.Disagreement, match="torch eager"):
        list(harness.measure("op", "work", case(lambda x: x * 2 + 1e-3), harness.QUICK_SETTINGS))


class _Stream:
    """Stands in for torch.cuda's streams, graphs and events; a replay does nothing, a record takes the time."""

    def __init__(self, *arguments, **options):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def wait_stream(self, other):
        pass

    def replay(self):
        pass

    def record(self):
        self.time = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 1e3 * (other.time - self.time)


@pytest.mark.skipif(torch.cuda.is_available(), reason="stands in for a GPU")
def test_calls_on_a_gpu_are_graphs_timed_by_events(monkeypatch: pytest.MonkeyPatch):
    for name in ("Stream", "stream", "graph", "CUDAGraph", "Event", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, _Stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def waits(x):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    on_gpu = replace(case(lambda x: x + x), device="cuda", graph=True, floors={"copy": harness.Floor(list, share=0.5)})
    rows = {row.contender: row for row in harness.measure("op", "work", on_gpu, harness.QUICK_SETTINGS)}
    assert rows["torch eager"].figure > 0 and rows["copy"].figure > 0
    assert all(row.cpu_seconds is None and row.cpu_figure is None for row in rows.values())
    on_gpu = replace(on_gpu, idiom=waits)
    rows = {row.contender: row for row in harness.measure("op", "work", on_gpu, harness.QUICK_SETTINGS)}
    assert rows["torch eager"].note == "no CUDA graph: operation not permitted when stream is capturing"


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
        results.write(rows, run["stamp"] | {"date": date, "quick": False, "only": only}, tmp_path / f"{date}.json")
    capsys.readouterr()
    assert command.main(["--markdown", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| work |") and lines[-1].endswith("2026-01-02.")
    sweeps = {"small", "knn_sweep"} & set(command.OPS)  # whose works are cells of tables of their own
    assert len(sweeps) == 2
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(command.OPS) - len(sweeps)


def test_serving_calls_are_cells_of_a_sweep():
    def row(size: tuple, figure: float | None) -> harness.Row:
        return harness.Row("small", small.work(size), "torch eager", "peer", figure=figure)

    rows = [row((small.LOGITS, 1, 2), 1.5), row((small.LOGITS, 1, 1000), 2.0), row((small.UPDATE, 8, 10), 3.0)]
    first, second, note = small.grids(rows).split("\n\n")
    assert first.splitlines()[2:] == ["| 1 | 1.50x |  | 2.00x |  |"]
    assert second.splitlines()[2:] == ["| 8 | 3.00x |"]
    assert note == small.NOTES[small.UPDATE]
    assert small.grids([]) == ""


def test_neighbours_are_cells_of_a_sweep():
    rows = [
        harness.Row("knn_sweep", knn_sweep.work((10, 1000, 64, k)), "torch eager", "peer", figure=figure)
        for k, figure in ((1, 1.5), (500, 2.0))
    ]
    assert knn_sweep.grids(rows).splitlines()[2:] == ["| 10 queries | 1.50x |  |  |  |  |  | 2.00x |  |"]
    assert knn_sweep.grids([]) == ""


def test_a_failed_write_leaves_nothing(quick: Path, tmp_path: Path):
    stamp = json.loads(quick.read_text())["stamp"]
    with pytest.raises(TypeError):
        results.write([], stamp | {"rounds": object()}, tmp_path / "rows.json")
    assert not list(tmp_path.iterdir())


def test_unknown_op(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        command.main(["--only", "knn,nothing"])
    assert stop.value.code == 2 and "nothing" in capsys.readouterr().err


@pytest.mark.parametrize(("x", "text"), [(2.0, "2 s"), (0.0123, "12.3 ms"), (1.5e-5, "15 µs"), (0.2, "200 ms")])
def test_seconds(x: float, text: str):
    assert tables.seconds(x) == text
