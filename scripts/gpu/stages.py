"""What a run on a machine with a GPU consists of: a first, and a second when what the first found was mended."""

import importlib.util
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import products
from scripts.gpu import outcomes, profiled
from scripts.gpu.runner import Stage

ROWS, REPEATED = "rows.json", "rows-repeated.json"  # what was measured, and measured again
COMPARED = "rows-products.json"  # by each product
# the stages that begin these files; "peers" adds to the first
BEGUN_BY = {"products": COMPARED, "floors": ROWS, "repeat": REPEATED}
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


FIRST = ("build", "ops", "products", "tests", "floors", "memcheck", "peers")
SECOND = ("build", "failed", "racecheck", "ncu", "repeat")
# Where the product by warpgroups failed, hung or crashed, the other is tested and measured: both processes and the GPU
# itself may not survive it.
WARY = {"wary_of": ("ops", "products"), "if_wary": {products.VARIABLE: "mma"}}


class Stages:
    """Each stage by its name; without an ``arch`` those of a rehearsal: the same commands, small and on the CPU.

    ``folder``: where they write. ``before``: what the tests left in an earlier run, for the stage that repeats those
    that failed.
    """

    def __init__(self, arch: str | None, folder: Path, before: Path):
        self.arch, self.folder = arch, folder
        stages = [
            self.build(),
            self.ops(),
            self.tests("tests", ["tests", "-m", "gpu"] if arch else REHEARSED),
            self.failed(before),
            self.products(),
            self.benchmarks("floors", 45, ROWS, "--contenders", "floors"),
            self.benchmarks("peers", 15, ROWS, rest=True),
            self.benchmarks("repeat", 15, REPEATED, "--contenders", "floors", rest=True),
            self.check("memcheck"),
            self.check("racecheck"),
            self.profile(),
        ]
        self.by_name = {stage.name: stage for stage in stages}

    def build(self) -> Stage:
        """For this GPU only; of a rehearsal the CPU half only, and not in place, where others may be running it."""
        settings = {"PYFASTCAL_BUILD": "require", "PYFASTCAL_CUDA": "1", "PYFASTCAL_CUDA_ARCHS": self.arch or ""}
        where = ["--inplace"]
        if not self.arch:
            settings = {"PYFASTCAL_BUILD": "require", "PYFASTCAL_CUDA": "0"}
            where = ["--build-lib", str(self.folder / "lib"), "--build-temp", str(self.folder / "temp")]
        command = [sys.executable, "setup.py", "build_ext", *where]
        return Stage("build", command, 115 if self.arch else 600, settings, vital=True)

    def ops(self) -> Stage:
        return Stage("ops", [*self._ops_command(), "--kernels"], 35)

    def _ops_command(self) -> list[str]:
        return [sys.executable, "-m", "scripts.gpu.ops", "--device", "cuda" if self.arch else "cpu"]

    def tests(self, name: str, chosen: list[str]) -> Stage:
        workers = min(6, max(1, (os.cpu_count() or 2) - 1))
        parallel = ["-n", str(workers), "--dist", "worksteal"] if importlib.util.find_spec("xdist") else []
        report = ["-p", "scripts.gpu.outcomes", "--outcomes", str(self.folder / f"{name}.jsonl")]
        report += [f"--junitxml={self.folder / f'{name}.xml'}", "--tb=short", "-rs", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", "--continue-on-collection-errors", *parallel, *report, *chosen]
        return Stage(name, command, 100, **WARY)

    def failed(self, before: Path) -> Stage:
        """Also those parameters of a failed test that passed, or that there were not: mending may change them."""
        tests = outcomes.failed(before) if before.exists() else []
        files = sorted({test.partition("::")[0] for test in tests})
        which = ["-m", "gpu"] if self.arch else []
        stage = self.tests("failed", [*files, "--failed-in", str(before), *which])
        if not tests:
            stage.skip = f"nothing failed in {before}" if before.exists() else f"there is no {before}"
        return stage

    def benchmarks(self, name: str, budget: float, rows: str, *options: str, rest: bool = False) -> Stage:
        command = [sys.executable, "-m", "benchmarks", "--device", "cuda", "--into", str(self.folder / rows), *options]
        command += [] if self.arch else ["--quick"]
        return Stage(name, command, budget, takes_the_rest=rest, told_the_time=True, **WARY)

    def products(self) -> Stage:
        stage = self.benchmarks("products", 45, COMPARED, "--contenders", "products", "--rounds", "5")
        other = self.arch not in (None, "sm_90a")
        return replace(stage, wary_of=(), skip="there is one product off compute capability 9.0" if other else "")

    def check(self, tool: str) -> Stage:
        sanitizer = find_tool("compute-sanitizer")
        options = [sanitizer or "compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
        if tool == "memcheck":
            options += ["--report-api-errors", "no"]  # torch asks for what not every GPU has
        # one allocation per tensor, so that what lies past its end is nobody's
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        why_not = "no GPU" if not self.arch else "" if sanitizer else "compute-sanitizer was not found"
        return Stage(tool, [*options, *self._ops_command()], 45 if tool == "memcheck" else 75, environment, why_not)

    def profile(self) -> Stage:
        """Counters of the hardware, of one call of each kernel's, at the clocks that the GPU has."""
        ncu = find_tool("ncu")
        sections = "SpeedOfLight LaunchStats Occupancy SchedulerStats WarpStateStats InstructionStats "
        sections += "MemoryWorkloadAnalysis ComputeWorkloadAnalysis"
        options = [ncu or "ncu", "--clock-control", "none", "--launch-count", str(profiled.LAUNCHES)]
        options += ["--kernel-name", f"regex:{profiled.KERNELS}", "--log-file", str(self.folder / "ncu.txt")]
        options += [word for section in sections.split() for word in ("--section", section)]
        why_not = "no GPU" if not self.arch else "" if ncu else "ncu was not found"
        return Stage("ncu", [*options, sys.executable, "-m", "scripts.gpu.profiled"], 90, skip=why_not)


def unruly() -> dict[str, Stage]:
    """Of a rehearsal: a stage that hangs and does not end when asked to, and one that crashes."""
    hang = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('hanging'); time.sleep(3600)"
    crash = "import os; print('crashing'); os.abort()"
    stages = [Stage("hangs", [sys.executable, "-c", hang], 4), Stage("crashes", [sys.executable, "-c", crash], 10)]
    return {stage.name: stage for stage in stages}
