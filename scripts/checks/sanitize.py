"""Runs the tests of the CPU kernels under the address and undefined-behaviour sanitizers of g++.

    python -m scripts.checks.sanitize [--variant avx2 ...] [pytest arguments]

The extension is built for it apart, in build/sanitize. Then, with every variant of the kernels that this processor has
(AVX-512, AVX2, scalar): a control, a label that is no class, which the kernel of the loss follows past the end of a
tensor and has to be caught at; and the tests. Memory starts as NaN, so that a value that nothing wrote is noticed too.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys

from scripts import ROOT

BUILD = ROOT / "build/sanitize"
SANITIZERS = "address,undefined,float-cast-overflow"
# those that run the kernels, but not those that limit memory, of which the sanitizers take a lot
TESTS = ["ops", "calibration", "metrics", "reference", "evaluate/test_methods.py", "evaluate/test_split.py"]
SKIP = "--deselect=tests/metrics/test_accumulator.py::test_a_soak_against_integer_arithmetic"
# No argument makes a kernel read too far: memory that is taken away from a tensor does.
CONTROL = """
import pyfastcal, torch
logits = torch.zeros(1, 64)
logits.untyped_storage().resize_(128)
torch.ops.pyfastcal.nll(logits, torch.tensor([0]), 1.0)
"""


def runtime(name: str) -> str | None:
    """One of g++'s libraries; None where it is not installed."""
    if platform.system() != "Linux" or shutil.which("g++") is None:
        return None
    path = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return path if os.path.isabs(path) else None


def why_not() -> str:
    """Why the sanitizers cannot run here, or nothing."""
    missing = [name for name in ("libasan.so", "libubsan.so") if runtime(name) is None]
    return f"needs Linux and g++ with {' and '.join(missing)}" if missing else ""


def build() -> None:
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", BUILD, "--build-lib", BUILD / "site"]
    settings = dict(CC="gcc", CXX="g++", PYFASTCAL_SANITIZE=SANITIZERS, PYFASTCAL_BUILD="require", PYFASTCAL_CUDA="0")
    shutil.rmtree(BUILD, ignore_errors=True)  # no module that was deleted or renamed stays
    subprocess.run(command, cwd=ROOT, env=os.environ | settings, check=True, stdout=subprocess.DEVNULL)


def environment(**more: str) -> dict[str, str]:
    """Python is not instrumented: the runtime must be loaded first, and what Python keeps to its end is no leak."""
    libraries = [runtime("libasan.so"), runtime("libstdc++.so")]  # the second: whose exceptions the first follows
    return os.environ | {
        "LD_PRELOAD": " ".join(filter(None, libraries)),
        "ASAN_OPTIONS": "detect_leaks=0:malloc_fill_byte=255:max_malloc_fill_size=1073741824",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(BUILD / "site"),
        **more,
    }


def variants() -> list[str]:
    code = "import pyfastcal; print(*pyfastcal.build_info()['cpu_capabilities'])"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True
    )
    if found.returncode or not found.stdout.strip():
        raise RuntimeError(f"the build does not load: {found.stderr.strip()}")
    return found.stdout.split()


def notices(variant: str) -> bool:
    """Whether a read past the end of a tensor is caught, at the kernel's own line."""
    env = environment(PYFASTCAL_CPU_CAPABILITY=variant)
    done = subprocess.run([sys.executable, "-P", "-c", CONTROL], env=env, cwd=ROOT, capture_output=True, text=True)
    return done.returncode != 0 and "heap-buffer-overflow" in done.stderr and f"pyfastcal::{variant}::" in done.stderr


def run_tests(*arguments: str, **settings: str) -> bool:
    # -P and -p: the package is that of build/sanitize, loaded before the root of the tests is on the path. Reports go
    # to stderr itself: what pytest captured of it is lost where its process ends.
    command = [sys.executable, "-P", "-m", "pytest", "-p", "pyfastcal", "-p", "no:cacheprovider", "--capture=sys", SKIP]
    return subprocess.run([*command, *arguments], env=environment(**settings), cwd=ROOT).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", action="append", metavar="NAME", help="of the kernels; default: all that run here")
    options, arguments = parser.parse_known_args()
    if reason := why_not():
        print(f"sanitize: {reason}", file=sys.stderr)
        return 1
    build()
    if not any(a.startswith("tests") for a in arguments):
        arguments += [f"tests/{name}" for name in TESTS]
    failed = []
    for variant in options.variant or variants():
        print(f"== {variant} ==", flush=True)
        if not notices(variant):
            print("sanitize: a read past the end of a tensor was not caught", file=sys.stderr)
            failed.append(variant)
        elif not run_tests(*arguments, PYFASTCAL_CPU_CAPABILITY=variant):
            failed.append(variant)
    print(f"sanitize: failed on {', '.join(failed)}" if failed else "sanitize: no finding")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
