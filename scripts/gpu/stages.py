"""What a run on a machine with a GPU consists of: the first, and the second, after what the first found is mended."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from scripts.gpu import outcomes, profiled
from scripts.gpu.runner import Stage

TESTS = "tests.jsonl"  # what became of each test
ROWS = "rows.json"  # what was measured
# what a rehearsal tests in place of what touches the GPU
REHEARSED = ["tests/ops/test_similarity.py"]


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
    return f"sm_{major}{minor}" + ("a" if (major, minor) == (9, 0) else "")


class Stages:
    """The stages, in ``folder``; without an ``arch`` those of a rehearsal: the same commands, small and on the CPU."""

    def __init__(self, arch: str | None, folder: Path):
        self.arch, self.folder = arch, folder

    def first(self) -> list[Stage]:
        return [
            self.build(),
            self.ops(),
            self.tests(),
            self.benchmarks("floors", 90, "--contenders", "floors"),
            self.check("memcheck"),
            self.benchmarks("peers", 60, takes_the_rest=True),
        ]

    def second(self, failed_in: Path) -> list[Stage]:
        """``failed_in``: the tests' outcomes of the first."""
        failed = outcomes.failed(failed_in) if failed_in.exists() else []
        tests = self.tests(failed)
        if not failed:
            tests.skip = f"nothing failed in {failed_in}" if failed_in.exists() else f"no {failed_in}"
        return [
            self.build(),
            tests,
            self.check("racecheck"),
            self.profile(),
            self.benchmarks("repeat", 60, "--contenders", "floors", takes_the_rest=True, rows="rows-repeated.json"),
        ]

    def build(self) -> Stage:
        """For this GPU only; of a rehearsal the CPU half only, and not in place, where others may be running it."""
        settings = {"PYFASTCAL_BUILD": "require", "PYFASTCAL_CUDA": "1", "PYFASTCAL_CUDA_ARCHS": self.arch or ""}
        where = ["--inplace"]
        if not self.arch:
            settings = {"PYFASTCAL_BUILD": "require", "PYFASTCAL_CUDA": "0"}
            where = ["--build-lib", str(self.folder / "lib"), "--build-temp", str(self.folder / "temp")]
        command = [sys.executable, "setup.py", "build_ext", *where]
        return Stage("build", command, 110 if self.arch else 600, settings, vital=True)

    def ops(self) -> Stage:
        return Stage("ops", self._ops_command(), 40)

    def _ops_command(self) -> list[str]:
        return [sys.executable, "-m", "scripts.gpu.ops", "--device", "cuda" if self.arch else "cpu"]

    def tests(self, only: list[str] | None = None) -> Stage:
        chosen = only or (["tests", "-m", "gpu"] if self.arch else REHEARSED)
        workers = min(6, max(1, (os.cpu_count() or 2) - 1))
        parallel = ["-n", str(workers), "--dist", "worksteal"] if importlib.util.find_spec("xdist") else []
        report = ["-p", "scripts.gpu.outcomes", "--outcomes", str(self.folder / TESTS)]
        report += [f"--junitxml={self.folder / 'junit.xml'}", "--tb=short", "-rs", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", "--continue-on-collection-errors", *parallel, *report, *chosen]
        return Stage("tests", command, 120)

    def benchmarks(
        self, name: str, budget: float, *options: str, takes_the_rest: bool = False, rows: str = ROWS
    ) -> Stage:
        command = [sys.executable, "-m", "benchmarks", "--device", "cuda", "--into", str(self.folder / rows), *options]
        command += [] if self.arch else ["--quick"]
        return Stage(name, command, budget, takes_the_rest=takes_the_rest, told_the_time=True)

    def check(self, tool: str) -> Stage:
        sanitizer = find_tool("compute-sanitizer")
        options = [sanitizer or "compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
        if tool == "memcheck":
            options += ["--report-api-errors", "no"]  # torch asks for what not every GPU has
        # one allocation per tensor, so that what lies past its end is nobody's
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        why_not = "no GPU" if not self.arch else "" if sanitizer else "compute-sanitizer was not found"
        return Stage(tool, [*options, *self._ops_command()], 75, environment, why_not)

    def profile(self) -> Stage:
        """Counters of the hardware, of one launch of each kernel, at the clocks that the GPU has."""
        ncu = find_tool("ncu")
        sections = "SpeedOfLight LaunchStats Occupancy SchedulerStats WarpStateStats InstructionStats "
        sections += "MemoryWorkloadAnalysis ComputeWorkloadAnalysis"
        options = [ncu or "ncu", "--clock-control", "none", "--launch-count", str(len(profiled.WORKS))]
        options += ["--kernel-name", f"regex:{profiled.KERNELS}", "--log-file", str(self.folder / "ncu.txt")]
        options += [word for section in sections.split() for word in ("--section", section)]
        why_not = "no GPU" if not self.arch else "" if ncu else "ncu was not found"
        return Stage("ncu", [*options, sys.executable, "-m", "scripts.gpu.profiled"], 75, skip=why_not)


def unruly() -> list[Stage]:
    """Of a rehearsal: a stage that hangs and does not end when asked to, and one that crashes."""
    hang = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('hanging'); time.sleep(3600)"
    crash = "import os; print('crashing'); os.abort()"
    return [
        Stage("hangs", [sys.executable, "-c", hang], 4),
        Stage("crashes", [sys.executable, "-c", crash], 10),
    ]
