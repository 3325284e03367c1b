"""Builds, tests and measures everything on a machine with a GPU: one command, no network, under 8 minutes.

    python -m scripts.gpu [--only STEP ...] [--out FOLDER] [--rehearse] [--dry-run]

Steps: build (both halves in place, for this GPU only), tests (pytest), memcheck and racecheck (every op at small sizes
under compute-sanitizer), benchmarks (result rows and a table). Each has a share of the time, and the last one what is
left. A step that fails or takes too long does not stop the others, but the exit code tells. Results go to FOLDER
(benchmarks/results; of a rehearsal build/gpu), a copy of them and the output of all steps to $OUT where that is set.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TOTAL = 465.0  # seconds for everything
LEAST = 20.0  # a step is not begun with less


@dataclass
class Step:
    name: str
    command: list[str]
    budget: float  # seconds
    environment: dict[str, str] = field(default_factory=dict)
    skip: str = ""  # why it cannot run here
    takes_the_rest: bool = False  # of the time; its command is told how much by --budget

    def line(self) -> str:
        return " ".join([*(f"{k}='{v}'" for k, v in self.environment.items()), *self.command])


@dataclass
class Outcome:
    step: str
    result: str  # ok, failed, out of time, skipped
    seconds: float
    note: str = ""

    @property
    def good(self) -> bool:
        return self.result in ("ok", "skipped")


def find_tool(name: str) -> str | None:
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    candidates = [shutil.which(name), home / "bin" / name, home / "compute-sanitizer" / name]
    return next((str(c) for c in candidates if c and os.access(c, os.X_OK)), None)


def gpu_arch() -> str | None:
    """``sm_90a``, say: with the features of this very architecture, where it has them; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}" + ("a" if (major, minor) in ((9, 0), (10, 0)) else "")


def plan(arch: str | None, out: Path) -> list[Step]:
    """The steps; without an ``arch`` a rehearsal: the same commands, but small and on the CPU."""
    python = sys.executable
    ops = [python, "-m", "scripts.gpu_ops", "--device", "cuda" if arch else "cpu"]
    workers = min(8, max(1, (os.cpu_count() or 2) // 2))
    parallel = ["-n", str(workers), "--dist", "loadfile"] if importlib.util.find_spec("xdist") else []
    # all but those that emulate and build: they need no GPU, but minutes
    tests = ["tests", "--ignore=tests/test_cuda_model.py", "--ignore=tests/test_package.py"]
    if not arch:
        tests = ["tests/ops/test_knn.py"]
    sanitizer = find_tool("compute-sanitizer")

    def check(tool: str) -> Step:
        options = [sanitizer or "compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
        if tool == "memcheck":
            options += ["--report-api-errors", "no"]  # torch asks for what not every GPU has
        # one allocation per tensor, so that what lies past its end is nobody's
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        why_not = "no GPU" if not arch else "" if sanitizer else "compute-sanitizer was not found"
        return Step(tool, [*options, *ops], 65, environment, why_not)

    return [
        Step(
            "build",
            [python, "setup.py", "build_ext", "--inplace"],
            100 if arch else 600,
            {"PYFASTCAL_BUILD": "require", "PYFASTCAL_CUDA": "1", "PYFASTCAL_CUDA_ARCHS": arch or "sm_90a"},
        ),
        Step("tests", [python, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *parallel, *tests], 120),
        Step("ops", ops, 20),
        check("memcheck"),
        check("racecheck"),
        Step(
            "benchmarks",
            [python, "-m", "benchmarks", "--device", "cuda", "--out", str(out), *([] if arch else ["--quick"])],
            120,
            takes_the_rest=True,
        ),
    ]


def run(step: Step, seconds: float, log: Path | None, echo: Callable[[str], object] = print) -> Outcome:
    """Runs a step with all that it starts for at most ``seconds``; its output is shown, and kept in ``log``."""
    if step.skip:
        return Outcome(step.name, "skipped", 0.0, step.skip)
    command = [*step.command, "--budget", f"{seconds - 15:.0f}"] if step.takes_the_rest else step.command
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)} | step.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    late = threading.Event()

    def stop() -> None:
        late.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, stop)
    timer.start()
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        echo(line.rstrip("\n"))
        lines.append(line)
    code = process.wait()
    timer.cancel()
    if log is not None:
        with log.open("a") as file:
            file.write("".join([f"\n== {step.name} ==\n{step.line()}\n", *lines]))
    took = time.monotonic() - begin
    if late.is_set():
        return Outcome(step.name, "out of time", took, f"stopped after {took:.0f} s")
    return Outcome(step.name, "ok" if code == 0 else "failed", took, "" if code == 0 else f"exit code {code}")


def run_all(steps: list[Step], total: float, log: Path | None) -> list[Outcome]:
    end = time.monotonic() + total
    outcomes = []
    for step in steps:
        left = end - time.monotonic()
        print(f"\n== {step.name} ==\n{step.line()}", flush=True)
        if left < min(LEAST, step.budget):
            outcomes.append(Outcome(step.name, "out of time", 0.0, "not begun"))
            continue
        seconds = left if step.takes_the_rest else min(step.budget, left)
        outcomes.append(run(step, seconds, log))
        print(f"{step.name}: {outcomes[-1].result} {outcomes[-1].note}".rstrip(), flush=True)
    return outcomes


def summary(outcomes: list[Outcome]) -> str:
    return "\n".join(f"{o.step:<12}{o.result:<12}{o.seconds:6.1f} s  {o.note}".rstrip() for o in outcomes)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="STEP", help="some of the steps")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where results go")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: as far as it goes, small, on the CPU")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    options = parser.parse_args(arguments)
    arch = gpu_arch()
    if arch is None and not (options.rehearse or options.dry_run):
        print("torch sees no GPU here (--dry-run prints the commands, --rehearse tries them)", file=sys.stderr)
        return 2
    out = options.out or (RESULTS if arch or options.dry_run else ROOT / "build" / "gpu")
    steps = plan("sm_90a" if options.dry_run and arch is None else arch, out)
    if options.only:
        if unknown := set(options.only) - {s.name for s in steps}:
            parser.error(f"no step {', '.join(sorted(unknown))}: {', '.join(s.name for s in steps)}")
        steps = [s for s in steps if s.name in options.only]
    if options.dry_run:
        for step in steps:
            print(f"{step.name} ({step.budget:.0f} s): {step.line()}")
        return 0
    carried = Path(os.environ["OUT"]) if os.environ.get("OUT") else None
    for folder in (out, carried):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    begin = time.time()
    outcomes = run_all(steps, TOTAL if arch else 1800.0, carried / "gpu.log" if carried else None)
    print(f"\n{summary(outcomes)}")
    record = {"arch": arch, "seconds": time.time() - begin, "steps": [asdict(o) for o in outcomes]}
    if carried is not None:
        (carried / "steps.json").write_text(json.dumps(record, indent=1) + "\n")
        for path in out.iterdir():
            if path.is_file() and path.stat().st_mtime >= begin and path.parent != carried:
                shutil.copy2(path, carried / path.name)
    return 0 if all(o.good for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
