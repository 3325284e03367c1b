"""Peak memory of one call beyond its inputs, measured in a process of its own.

``python -m benchmarks.memory similarity_confidence 50000,512,1000 ours`` prints megabytes (10^6 bytes).
"""

import ctypes
import importlib
import resource
import subprocess
import sys
from pathlib import Path

from .harness import Row

ROOT = Path(__file__).resolve().parent.parent


def rows(op: str, work: str, size: tuple[int, ...]) -> list[Row]:
    out = []
    for name, contender in (("ours", "ours"), ("torch eager", "idiom")):
        row = Row(op, work, f"peak memory, {name}", "memory", rounds=1)
        command = [sys.executable, "-m", __name__, op, ",".join(map(str, size)), contender]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if result.returncode:
            row.note = (result.stderr.strip().splitlines() or ["failed"])[-1]
        else:
            row.figure = float(result.stdout)
        out.append(row)
    return out


def peak(op: str, size: tuple[int, ...], contender: str) -> float:
    module = importlib.import_module(f"benchmarks.{op}")

    def prepare(size: tuple[int, ...]):
        case = module.case(size)
        return case.ours if contender == "ours" else lambda: case.idiom(*case.inputs)

    prepare(module.QUICK[0])()  # loads what the first call loads, starts the threads
    call = prepare(size)
    _trim()
    before, high = _resident_and_peak(reset=True)
    result = call()
    after = _resident_and_peak()[1]
    del result
    return (after - max(before, high)) / 1e6


def _trim() -> None:
    """Gives freed memory back to the system: a call that could reuse it would look smaller than it is."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # not glibc
        return


def _resident_and_peak(reset: bool = False) -> tuple[float, float]:
    """Bytes resident now, and at most since ``reset``. Where Linux's /proc does not offer that: the peak since the
    process began, for both, which is right as long as preparing took less than inputs and call together."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return tuple(float(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return most, most


if __name__ == "__main__":
    print(peak(sys.argv[1], tuple(map(int, sys.argv[2].split(","))), sys.argv[3]))
