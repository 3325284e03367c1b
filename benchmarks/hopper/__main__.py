"""Builds the study of Hopper's instructions with nvcc, and runs it where there is a GPU of compute capability 9.0.

    python -m benchmarks.hopper [--build-only] [--out build/hopper]

``--build-only`` needs no GPU and prints what the kernels use. OUT/study is a program of its own: it can be built here
and run elsewhere.
"""

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.cuda.check import Usage, find_nvcc, losses, parse

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
FLAGS = ["-std=c++20", "-O3", "-DNDEBUG", "-gencode=arch=compute_90a,code=sm_90a"]
STATIC = ["-cudart=static", "-Xcompiler=-static-libstdc++", "-Xcompiler=-static-libgcc"]


def names() -> list[str]:
    """The configurations, in the order of their numbers."""
    return re.findall(r'^ +\{"(\w+)",', (FOLDER / "configurations.h").read_text(), re.MULTILINE)


class BuildError(RuntimeError):
    """The compiler's words."""


def call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stderr


def build(nvcc: str, out: Path) -> dict[str, str]:
    """Compiles ``out``/study; by configuration what ptxas says of its kernel."""
    out.mkdir(parents=True, exist_ok=True)
    compile_ = [nvcc, *FLAGS, "-Xptxas=-v", "-c"]
    # a kernel takes a compiler for seconds; in one unit they would spill registers that they do not need to
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        host = pool.submit(call, [*compile_, str(FOLDER / "study.cu"), "-o", str(out / "study.o")])
        logs = {
            name: pool.submit(
                call,
                [*compile_, f"-DPYFASTCAL_CONFIGURATION={i}", str(FOLDER / "kernel.cu"), "-o", str(out / f"{name}.o")],
            )
            for i, name in enumerate(names())
        }
        host.result()
        reports = {name: log.result() for name, log in logs.items()}
    objects = [str(out / f"{name}.o") for name in ["study", *reports]]
    call([nvcc, *FLAGS, *STATIC, *objects, "-o", str(out / "study.new")])
    (out / "study.new").replace(out / "study")
    return reports


def usage(report: str) -> Usage:
    """What the one kernel of a report uses."""
    (kernel,) = parse(report)
    return kernel


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-only", action="store_true", help="do not run it")
    parser.add_argument("--out", type=Path, default=ROOT / "build/hopper", help="default: build/hopper")
    arguments = parser.parse_args(argv)
    nvcc = find_nvcc()
    if nvcc is None:
        print("the Hopper study needs nvcc: set CUDA_HOME", file=sys.stderr)
        return 2
    try:
        reports = build(nvcc, arguments.out)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    if not arguments.build_only:
        return subprocess.run([arguments.out.resolve() / "study"]).returncode
    for name, report in reports.items():
        kernel = usage(report)
        print(f"{name:24} {kernel.registers} registers, {kernel.stack} bytes of stack, {kernel.spilled} spilled")
        for line in losses(report):
            print(f"    {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
