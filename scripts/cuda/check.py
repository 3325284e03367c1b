"""Compiles every CUDA source for every architecture and prints what its kernels use; no GPU is needed.

    python -m scripts.cuda.check [--archs sm_90a ...] [sources ...]

Fails where something does not compile, where registers are spilled, where a kernel has a stack frame (a local array
that the compiler could not keep in registers), or where the assembler tells of lost performance (serialised wgmma);
where a kernel of the warpgroups' product is not made of Hopper's instructions on Hopper, or more than a stub elsewhere.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scripts import ROOT

from .machine_code import WARPGROUPS, dump, faults, find_cuobjdump

ARCHS = ["sm_80", "sm_90a", "sm_100", "sm_120"]


@dataclass
class Usage:
    """What one kernel (or a function of one) uses on one architecture."""

    name: str
    arch: str
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spilled: int = 0

    @property
    def faulty(self) -> bool:
        return self.stack > 0 or self.spilled > 0


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    candidates = [f"{home}/bin/nvcc"] if home else ["/usr/local/cuda/bin/nvcc", shutil.which("nvcc")]
    return next((c for c in candidates if c and os.access(c, os.X_OK)), None)


def torch_include() -> Path | None:
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent / "include" if spec and spec.origin else None


def parse(log: str) -> list[Usage]:
    """The kernels in ptxas -v's account, and the functions that it did not inline."""
    found: list[Usage] = []
    arch = ""
    for line in log.splitlines():
        if m := re.search(r"Compiling entry function '.*' for '(\w+)'", line):
            arch = m[1]
        elif m := re.search(r"Function properties for (\S+)", line):
            found.append(Usage(m[1], arch))
        elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            found[-1].stack, found[-1].spilled = int(m[1]), int(m[2]) + int(m[3])
        elif m := re.search(r"Used (\d+) registers", line):
            found[-1].registers = int(m[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                found[-1].shared = int(shared[1])
    return found


def losses(log: str) -> list[str]:
    """The complaints of ptxas that have a number: C75xx tells of products by wgmma that wait for one another, whose
    registers it had to guard, and of setmaxnreg ignored."""
    return [line for line in log.splitlines() if re.search(r"\(C\d{4}\)|Potential Performance Loss", line)]


def demangle(names: list[str]) -> dict[str, str]:
    """Readable names, without the project's namespaces and the parameters."""
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if not tool or not names:
        return {name: name for name in names}
    lines = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    short = {}
    for name, line in zip(names, lines.splitlines(), strict=True):
        line = re.sub(r"^void |pyfastcal::|cuda::|\(anonymous namespace\)::", "", line)
        line = line.replace("__nv_bfloat16", "bf16").replace("__half", "fp16")
        short[name] = re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)( const)?$", "", line)
    return short


def compiler(nvcc: str, arch: str) -> list[str]:
    """The call of the compiler, but for what it is to make of which source."""
    command = [nvcc, "-std=c++20", "-O3", f"-arch={arch}", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    include = torch_include()
    return command + (["-isystem", str(include)] if include else [])


def compile_source(nvcc: str, source: Path, arch: str) -> tuple[list[str], list[Usage]]:
    """What is wrong with it, if anything; and what the kernels use."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        command = [*compiler(nvcc, arch), "-Xptxas=-v", "-cubin", "-o", str(cubin), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return [done.stderr], []
        return losses(done.stderr) + faults_of_warpgroups(nvcc, cubin, arch, done.stderr), parse(done.stderr)


def faults_of_warpgroups(nvcc: str, cubin: Path, arch: str, log: str) -> list[str]:
    names = [n for n in re.findall(r"Compiling entry function '([^']+)'", log) if WARPGROUPS in n]
    if not names:
        return []
    cuobjdump = find_cuobjdump(nvcc)
    if cuobjdump is None:
        return ["cuobjdump, to look at the machine code, is neither beside nvcc nor on the PATH"]
    code, readable = dump(cuobjdump, cubin, names), demangle(names)
    return [f"{readable[name]}: {fault}" for name in names for fault in faults(code[name], arch)]


def print_table(title: str, archs: list[str], usages: list[Usage]) -> None:
    readable = demangle(sorted({u.name for u in usages}))
    width = max([len(n) for n in readable.values()] + [len(title)])
    print(f"\n{title:{width}}" + "".join(f"{a:>8}" for a in archs) + "   shared  stack  spills")
    for name, shown in sorted(readable.items(), key=lambda item: item[1]):
        by_arch = {u.arch: u for u in usages if u.name == name}
        registers = "".join(f"{by_arch[a].registers if a in by_arch else '-':>8}" for a in archs)
        worst = [max(getattr(u, what) for u in by_arch.values()) for what in ("shared", "stack", "spilled")]
        print(f"{shown:{width}}{registers}{worst[0]:9}{worst[1]:7}{worst[2]:8}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, help="default: csrc/cuda/*.cu")
    parser.add_argument("--archs", nargs="+", default=ARCHS, help=f"default: {' '.join(ARCHS)}")
    arguments = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("cuda-check needs nvcc: set CUDA_HOME", file=sys.stderr)
        return 2
    sources = arguments.sources or sorted(ROOT.glob("csrc/cuda/*.cu"))
    print(
        f"{nvcc}: registers per thread on {', '.join(arguments.archs)}; shared memory (static), stack, spills in bytes"
    )
    failures: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {s: [pool.submit(compile_source, nvcc, s, a) for a in arguments.archs] for s in sources}
        for source, futures in jobs.items():
            usages = []
            for arch, future in zip(arguments.archs, futures, strict=True):
                complaints, found = future.result()
                usages += found
                failures += [f"{source.name} on {arch}: {complaint}" for complaint in complaints]
            print_table(source.name, arguments.archs, usages)
            readable = demangle([u.name for u in usages])
            failures += [
                f"{readable[u.name]} on {u.arch}: {u.stack} bytes of stack, {u.spilled} bytes spilled"
                for u in usages
                if u.faulty
            ]
    for failure in failures:
        print(f"\nFAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
