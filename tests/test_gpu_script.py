"""``make gpu`` as far as it goes without a GPU: its commands, its bookkeeping of time and failure, its calls of ops."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import gpu, gpu_ops


def step(code: str, name: str = "step", budget: float = 30, **options) -> gpu.Step:
    return gpu.Step(name, [sys.executable, "-c", code], budget, **options)


def test_commands(capsys: pytest.CaptureFixture):
    assert gpu.main(["--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["build", "tests", "ops", "memcheck", "racecheck", "benchmarks"]
    assert "PYFASTCAL_CUDA_ARCHS=" in lines[0] and "--tool racecheck" in lines[4] and "--device cuda" in lines[5]


def test_steps_fit_in_eight_minutes(tmp_path: Path):
    steps = gpu.plan("sm_90a", tmp_path)
    assert gpu.TOTAL < 480
    assert sum(s.budget for s in steps if not s.takes_the_rest) + 60 < gpu.TOTAL


def test_a_failure_stops_nothing_but_tells(tmp_path: Path, capsys: pytest.CaptureFixture):
    steps = [
        step("print('one'); raise SystemExit(3)", "first"),
        step("import time; time.sleep(60)", "second", budget=0.5),
        step("", "third", skip="no GPU"),
        step("import os; print(os.environ['WORD'])", "fourth", environment={"WORD": "hello"}),
    ]
    outcomes = gpu.run_all(steps, 60, tmp_path / "log")
    assert [o.result for o in outcomes] == ["failed", "out of time", "skipped", "ok"]
    assert [o.good for o in outcomes] == [False, False, True, True]
    assert outcomes[0].note == "exit code 3" and outcomes[1].seconds < 10
    log = (tmp_path / "log").read_text()
    assert "== first ==" in log and log.endswith("\nhello\n") and "\nhello\n" in capsys.readouterr().out
    assert "second" in gpu.summary(outcomes)


def test_the_last_step_gets_the_time_that_is_left(tmp_path: Path):
    echo = step("import sys; print(sys.argv[1:])", takes_the_rest=True)
    assert gpu.run_all([echo], 65.4, tmp_path / "log")[0].result == "ok"
    assert "'--budget', '50'" in (tmp_path / "log").read_text()
    assert gpu.run_all([step("", budget=30)], 5, None)[0].result == "out of time"


def test_results_are_carried_to_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, carried = tmp_path / "results", tmp_path / "carried"
    monkeypatch.setenv("OUT", str(carried))
    code = f"from pathlib import Path; Path({str(out)!r}, 'rows.json').write_text('x')"
    monkeypatch.setattr(gpu, "plan", lambda arch, out: [step(code)])
    assert gpu.main(["--rehearse", "--out", str(out)]) == 0
    assert (carried / "rows.json").read_text() == "x" and (carried / "gpu.log").exists()
    assert json.loads((carried / "steps.json").read_text())["steps"][0]["result"] == "ok"
    with pytest.raises(SystemExit):
        gpu.main(["--rehearse", "--only", "nothing"])


def test_every_op_is_called():
    names = [name for name, _, _ in gpu_ops.cases()]
    assert len(set(names)) == len(names)
    for op in ("confidence", "bins", "similarity_confidence", "contrast_distance", "knn"):
        assert any(name.startswith(op) for name in names)
    done = subprocess.run([sys.executable, "-m", "scripts.gpu_ops", "--device", "cpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as on the CPU" in done.stdout
