"""``make gpu`` as far as it goes without a GPU: its commands, what it leaves behind whatever ends a stage."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks import products, results
from benchmarks.harness import Row
from scripts import ROOT
from scripts.gpu import __main__ as command
from scripts.gpu import outcomes, stages
from scripts.gpu.runner import Record, Stage, run_all, summary

from .process import python


def stage(code: str, name: str = "stage", budget: float = 30, **options) -> Stage:
    return Stage(name, [sys.executable, "-c", code], budget, **options)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], stages.FIRST),
        (["--second"], stages.SECOND),
        (["--only", "ncu", "build"], ("ncu", "build")),
    ],
)
def test_commands(options: list[str], names: tuple[str, ...], capsys: pytest.CaptureFixture):
    assert command.main(["--dry-run", *options]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert tuple(lines) == names
    assert "PYFASTCAL_CUDA_ARCHS=" in lines["build"]
    for name, words in {
        "tests": "tests -m gpu",
        "racecheck": "--tool racecheck",
        "floors": "--contenders floors",
        "products": "--contenders products",
    }.items():
        assert name not in lines or words in lines[name]


def test_a_run_fits_in_its_time():
    planned = stages.Stages("sm_90a", Path("out"), Path("nothing")).by_name
    for names in (stages.FIRST, stages.SECOND):
        assert sum(planned[name].budget for name in names) <= 400
    with pytest.raises(SystemExit):
        command.main(["--dry-run", "--only", "nothing"])


def test_a_failure_stops_nothing_but_tells(tmp_path: Path, capsys: pytest.CaptureFixture):
    planned = [
        stage("print('one'); raise SystemExit(3)", "first"),
        stage("import time; time.sleep(60)", "second", budget=0.5),
        stage("", "third", skip="no GPU"),
        stage("import os; print(os.environ['WORD'])", "fourth", environment={"WORD": "hello"}),
    ]
    done = run_all(planned, 60, Record(tmp_path))
    assert [o.result for o in done] == ["failed", "out of time", "skipped", "ok"]
    assert [o.good for o in done] == [False, False, True, True]
    assert done[0].note == "exit code 3" and done[1].seconds < 10
    log = (tmp_path / "log.txt").read_text()
    assert "== first ==" in log and "\nhello\n" in log and "\nhello\n" in capsys.readouterr().out
    assert "second" in summary(done)


def test_the_other_product_is_taken_where_that_by_warpgroups_did_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whatever became of its stages: hung, crashed or wrong."""
    monkeypatch.delenv("PYFASTCAL_CUDA_PRODUCT", raising=False)
    planned = stages.Stages("sm_90a", tmp_path, Path("nothing")).by_name
    for name in ("tests", "failed", "floors", "peers", "repeat"):
        assert {"ops", "products"} == set(planned[name].wary_of)
        assert planned[name].if_wary == {"PYFASTCAL_CUDA_PRODUCT": "mma"}
    assert not planned["products"].wary_of and not planned["memcheck"].wary_of
    say = "import os; print('product', os.environ.get('PYFASTCAL_CUDA_PRODUCT'))"
    then = stage(say, "then", **stages.WARY)
    for code, product in (("", None), ("import os; os.abort()", "mma")):
        record = Record(tmp_path / str(product))
        assert run_all([stage(code, "products"), stage(say, "between"), then], 60, record)[-1].result == "ok"
        log = (record.folder / "log.txt").read_text()
        assert f"\nproduct {product}\nthen: ok" in log and "\nproduct None\nbetween: ok" in log
        assert ("PYFASTCAL_CUDA_PRODUCT='mma'" in log) == ("# for products did not succeed" in log) == bool(product)


def test_products_are_compared_where_there_are_two(tmp_path: Path):
    for arch, skipped in (("sm_90a", False), ("sm_100", True), (None, False)):
        assert bool(stages.Stages(arch, tmp_path, Path("nothing")).by_name["products"].skip) == skipped


def test_nothing_is_begun_after_a_vital_failure(tmp_path: Path):
    planned = [stage("raise SystemExit(1)", "build", vital=True), stage("print('never')", "tests")]
    done = run_all(planned, 60, Record(tmp_path))
    assert [o.result for o in done] == ["failed", "not begun"] and done[1].note == "build did not succeed"
    assert "\nnever" not in (tmp_path / "log.txt").read_text()


def test_time_is_shared(tmp_path: Path):
    echo = stage("import sys; print(sys.argv[1:])", takes_the_rest=True, told_the_time=True)
    assert run_all([echo], 66.4, Record(tmp_path))[0].result == "ok"
    assert "'--budget', '50'" in (tmp_path / "log.txt").read_text()
    assert run_all([stage("", budget=30)], 5, Record(tmp_path))[0].result == "not begun"


def test_a_stage_is_asked_to_end_before_it_is_killed(tmp_path: Path):
    """As pytest is, which then writes its report."""
    code = f"""
import pathlib, time
try:
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path({str(tmp_path / "report")!r}).write_text("so far")
"""
    assert run_all([stage(code, budget=12)], 60, Record(tmp_path))[0].result == "out of time"
    assert (tmp_path / "report").read_text() == "so far"


def test_what_a_stage_leaves_running_holds_nobody_up(tmp_path: Path):
    code = "import subprocess; subprocess.Popen(['sleep', '30'], start_new_session=True); print('done')"
    (done,) = run_all([stage(code)], 60, Record(tmp_path))
    assert done.result == "ok" and done.seconds < 10


def test_the_python_path_is_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    run_all([stage("import os; print(os.environ['PYTHONPATH'])")], 60, Record(tmp_path))
    assert f"\n{ROOT}{os.pathsep}/elsewhere\n" in (tmp_path / "log.txt").read_text()


def test_a_rehearsal_survives_what_hangs_and_what_crashes(tmp_path: Path):
    """The whole chain but for the build, on the CPU, with real commands."""
    (tmp_path / "rows.json").write_text('{"stamp": {"commit": "of an earlier run"}, "rows": []}')
    names = ["hangs", "ops", "products", "crashes", "tests", "floors", "memcheck", "peers"]
    done = python("-m", "scripts.gpu", "--rehearse", "--out", str(tmp_path), "--only", *names)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {s["stage"]: s["result"] for s in json.loads((tmp_path / "stages.json").read_text())["stages"]}
    assert found == {
        **dict.fromkeys(("ops", "products", "tests", "floors", "peers"), "ok"),
        "hangs": "out of time",
        "crashes": "failed",
        "memcheck": "skipped",
    }
    tests = [json.loads(line) for line in (tmp_path / "tests.jsonl").read_text().splitlines()]
    assert len(tests) > 20 and {t["outcome"] for t in tests} == {"passed"}
    assert "<testsuite" in (tmp_path / "tests.xml").read_text()
    stamp, rows = results.read(tmp_path / "rows.json")
    assert {row.role for row in rows} == {"ours", "product", "peer", "floor"} and stamp["quick"]
    compared = results.read(tmp_path / "rows-products.json")[1]
    assert {row.op for row in compared} == set(products.OPS)
    assert {row.role for row in compared} == {"ours", "product", "floor"}
    log = (tmp_path / "log.txt").read_text()
    assert "kernels: not looked at" in log and log.count("| yes |") + log.count("| no |") == len(verdicts(compared))
    assert len(list(tmp_path.iterdir())) <= 9


def verdicts(rows: list[Row]) -> set[str]:
    return {row.work for row in rows if row.role == "product"}


def test_outcomes_are_there_whatever_ends_the_tests(tmp_path: Path):
    (tmp_path / "test_some.py").write_text(
        "import os\ndef test_good(): pass\ndef test_bad(): assert 1 == 2\ndef test_end(): os._exit(7)\n"
    )
    (tmp_path / "test_broken.py").write_text("import nothing_of_the_kind\n")
    file = tmp_path / "outcomes.jsonl"
    options = ["--continue-on-collection-errors", "-p", "scripts.gpu.outcomes", "--outcomes", str(file)]
    done = python("-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, *options, str(tmp_path))
    assert done.returncode == 7
    lines = {line["test"].rpartition("/")[2]: line for line in map(json.loads, file.read_text().splitlines())}
    assert {name: line["outcome"] for name, line in lines.items()} == {
        "test_broken.py": "failed",
        "test_some.py::test_good": "passed",
        "test_some.py::test_bad": "failed",
    }
    assert "assert 1 == 2" in lines["test_some.py::test_bad"]["said"]
    assert [name.rpartition("/")[2] for name in outcomes.failed(file)] == ["test_broken.py", "test_some.py::test_bad"]


def test_the_second_run_repeats_what_failed(tmp_path: Path):
    failing, passing = "tests/evaluate/test_methods.py", "tests/io/test_features.py"
    before = tmp_path / "tests.jsonl"
    lines = [
        {
            "test": f"{failing}::test_gives_what_the_calibrator_gives[of-another-day]",
            "outcome": "failed",
        },
        {"test": f"{passing}::test_round_trip[dtype0]", "outcome": "passed"},
    ]
    before.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = stages.Stages("sm_90a", tmp_path, before).by_name["failed"]
    assert not found.skip and failing in found.command and passing not in found.command
    select = ["-p", "scripts.gpu.outcomes", "--failed-in", str(before), "--collect-only"]
    done = python("-m", "pytest", "-p", "no:cacheprovider", *select, failing, passing)
    names = [line.rpartition("::")[2].partition("[")[0] for line in done.stdout.splitlines() if "::" in line]
    assert len(names) > 1 and set(names) == {"test_gives_what_the_calibrator_gives"}
    before.write_text(json.dumps({"test": passing, "outcome": "failed"}) + "\n")
    done = python("-m", "pytest", "-p", "no:cacheprovider", *select, failing, passing)
    assert f"{passing}: " in done.stdout or f"{passing}::" in done.stdout
    assert failing not in done.stdout
    before.write_text(json.dumps(lines[1]) + "\n")
    assert "nothing failed" in stages.Stages("sm_90a", tmp_path, before).by_name["failed"].skip


def test_tests_that_touch_the_gpu_are_marked():
    """As they are collected where torch finds a GPU: whatever runs on "cuda", and the tests that ask for one."""
    code = """
import sys, torch
torch.cuda.is_available, torch.cuda.device_count = (lambda: True), (lambda: 1)
torch.cuda.get_device_capability, torch.cuda.get_device_name = (lambda i=0: (9, 0)), (lambda i=0: "GPU")
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *sys.argv[1:], "tests"]))
"""
    marked, others = (python("-c", code, "-m", which).stdout for which in ("gpu", "not gpu"))
    assert "ERROR" not in marked, marked
    assert sum(map(int, re.findall(r"^tests/\S+: (\d+)$", marked, re.MULTILINE))) > 280
    assert "test_cuda_launch.py" in marked and "test_cuda_launch.py" not in others
    assert "cuda]" not in python("-c", code, "--collect-only", "-qq", "-m", "not gpu", "-v").stdout
