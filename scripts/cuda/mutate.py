"""Seeds bugs into the CUDA kernels, one at a time, and reports how many the tests on the CPU model notice.

    python -m scripts.cuda.mutate [--kernels bins knn ...] [--only TEXT] [--jobs N] [--list]

A bug is planted in a copy of the sources; the tests of its kernel are built and run plainly, then under the address
and the thread sanitizer, until one of them notices: by a failure, a report, a crash, or by taking far too long.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from scripts import ROOT
from scripts.cuda import mutations
from scripts.cuda.mutations import Mutation

VARIANTS = ["plain", "address", "thread"]
SOURCES = ["csrc", "tests/cuda_model"]
MODEL = re.findall(r"^MODEL := (.+)$", (ROOT / "tests/cuda_model/Makefile").read_text(), re.MULTILINE)[0].split()
SHARED_OBJECTS = ["main", *MODEL]  # per variant, the same for all tests and mutations
WANTED = 0.95


def load(kernels: list[str] | None) -> list[Mutation]:
    return [m for kernel in mutations.kernels() if kernels is None or kernel in kernels for m in mutations.read(kernel)]


def mutate(mutation: Mutation, root: Path) -> None:
    path = root / "csrc/cuda" / mutation.file
    text = path.read_text()
    if (count := text.count(mutation.old)) != 1:
        raise ValueError(f"{mutation.name}: the old text occurs {count} times in {mutation.file}, not once")
    path.write_text(text.replace(mutation.old, mutation.new))


class Scratch:
    """A copy of the sources, in which nothing but the mutated kernel's tests must be compiled anew."""

    def __init__(self, root: Path, origin: Path = ROOT):
        self.root = root
        for folder in SOURCES:
            shutil.copytree(origin / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))

    def take_objects(self, other: "Scratch") -> None:
        for variant in VARIANTS:
            for name in SHARED_OBJECTS:
                self._copy(other, f"{variant}/{name}")
        self._copy(other, "cpu_kernels")

    def _copy(self, other: "Scratch", name: str) -> None:
        for suffix in (".o", ".d"):
            path = Path("build/cuda_model") / f"{name}{suffix}"
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(other.root / path, self.root / path)

    def build(self, target: str) -> subprocess.CompletedProcess:
        command = ["make", "-s", "-C", self.root / "tests/cuda_model", f"../../build/cuda_model/{target}"]
        return subprocess.run(command, capture_output=True, text=True)

    def run(self, variant: str, test: str, limit: int) -> tuple[bool, str]:
        """Whether the test passed; else the line that says why not. limit: seconds of processor time."""
        command = [
            "sh",
            "-c",
            f'ulimit -t {limit}; exec "$0" --fail-fast',
            self.root / "build/cuda_model" / variant / test,
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if -done.returncode in (signal.SIGXCPU, signal.SIGKILL):
            return False, f"did not end in {limit} s"
        lines = (done.stdout + done.stderr).splitlines()
        for i, line in enumerate(lines):
            if "FAILED" in line:
                return False, (lines[i + 1] if i + 1 < len(lines) else line).strip()
            if "CUDA model:" in line or "runtime error:" in line or "SUMMARY:" in line:
                return False, line.strip()
        return done.returncode == 0, f"ended with {done.returncode}"


def noticed(mutation: Mutation, base: Scratch, limits: dict[tuple[str, str], int]) -> str | None:
    """How the tests noticed a mutation, or None."""
    with tempfile.TemporaryDirectory(prefix="pyfastcal-mutate-") as folder:
        scratch = Scratch(Path(folder), base.root)
        scratch.take_objects(base)
        mutate(mutation, scratch.root)
        for variant in VARIANTS:
            for test in mutation.tests:
                built = scratch.build(f"{variant}/{test}")
                if "static assertion failed" in built.stderr:
                    return "compiler: static assertion failed"
                if built.returncode:
                    raise ValueError(f"{mutation.name}: does not compile\n{built.stderr}")
                passed, why = scratch.run(variant, test, limits[variant, test])
                if not passed:
                    return f"{variant}: {why.replace(str(scratch.root) + '/', '')}"
    return None


def prepare(base: Scratch, tests: list[str], pool: ThreadPoolExecutor) -> dict[tuple[str, str], int]:
    """Builds and runs everything unmutated; gives the time each test may take."""

    def run_one(job: tuple[str, str]) -> int:
        built = base.build("/".join(job))
        if built.returncode:
            raise RuntimeError(f"{job} does not compile\n{built.stderr}")
        start = time.monotonic()
        passed, why = base.run(*job, limit=600)
        if not passed:
            raise RuntimeError(f"{job} fails without a mutation: {why}")
        return int(10 + 10 * (time.monotonic() - start))

    for variant in VARIANTS:  # what all share is built once
        for name in SHARED_OBJECTS:
            base.build(f"{variant}/{name}.o")
    base.build("cpu_kernels.o")
    jobs = [(variant, test) for test in tests for variant in VARIANTS]
    return dict(zip(jobs, pool.map(run_one, jobs), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", nargs="+", help="lists of scripts/cuda/mutations; default: all")
    parser.add_argument("--only", default="", help="mutations whose name holds this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutations at a time")
    parser.add_argument("--list", action="store_true", help="only list them")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in load(arguments.kernels) if arguments.only in mutation.name]
    if arguments.list:
        for mutation in chosen:
            print(f"{mutation.file}: {mutation.name}")
        return 0
    n_noticed, mistakes, start = 0, [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pyfastcal-mutate-") as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        base = Scratch(Path(folder))
        if (built := ROOT / "build/cuda_model").exists():
            shutil.copytree(built, base.root / "build/cuda_model")
        limits = prepare(base, sorted({test for mutation in chosen for test in mutation.tests}), pool)
        jobs = {pool.submit(noticed, mutation, base, limits): mutation for mutation in chosen}
        for job in as_completed(jobs):
            mutation = jobs[job]
            try:
                how = job.result()
            except ValueError as mistake:  # of the mutation itself
                mistakes.append(str(mistake))
                continue
            n_noticed += how is not None
            verdict = "noticed " if how else "SURVIVED"
            print(f"{verdict}  {mutation.file}: {mutation.name}\n          {how or mutation.survives}", flush=True)
    for mistake in mistakes:
        print(f"NO MUTATION  {mistake}", file=sys.stderr)
    share = n_noticed / max(len(chosen), 1)
    print(f"{n_noticed} of {len(chosen)} mutations noticed ({share:.1%}) in {time.monotonic() - start:.0f} s")
    return 1 if mistakes or share < WANTED else 0


if __name__ == "__main__":
    sys.exit(main())
