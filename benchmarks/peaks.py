"""What the processor does at best (peaks.cpp), measured in the run that the kernels are measured in, and what share of
it a work reaches: a ratio to torch's product flatters where that is slow."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("peaks.cpp")
# of a rate, by what it is called there
NAMES = {"fp32": "fp32 peak", "bf16": "bf16 peak", "amx": "AMX peak", "cache": "cache", "memory": "memory"}
IN_CACHE = 1 << 20  # bytes a thread: what is so small stays in its second cache from call to call


@dataclass(frozen=True)
class Cost:
    """The fewest FLOPs of a product, and the fewest bytes, that any implementation of a work needs."""

    flops: float = 0.0
    n_bytes: float = 0.0

    def shares(self, seconds: float) -> dict[str, float]:
        """Of each peak that there is: 1 is all that the processor can do. A product of fp32 may be above 1 of the fp32
        peak where it is filtered in bf16."""
        place = "cache" if self.n_bytes <= IN_CACHE * torch.get_num_threads() else "memory"
        amounts = {"fp32": self.flops, "bf16": self.flops, "amx": self.flops, place: self.n_bytes}
        return {NAMES[name]: amounts[name] / rate / seconds for name, rate in rates().items() if amounts.get(name)}


@functools.cache
def rates() -> dict[str, float]:
    """FLOP/s (``fp32``, ``bf16``, ``amx``) and bytes/s (``cache``, ``memory``) of all torch's threads together. Empty,
    and said so, where they cannot be measured: without a compiler, say."""
    compiler = (os.environ.get("CXX") or "c++").split()[0]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "peaks")
        flags = ["-O3", "-march=native", "-std=c++20", "-pthread"]
        try:
            if shutil.which(compiler) is None:
                raise OSError(f"{compiler} was not found")
            subprocess.run([compiler, *flags, str(SOURCE), "-o", str(program)], check=True, capture_output=True)
            run = [str(program), str(torch.get_num_threads())]
            output = subprocess.run(run, check=True, capture_output=True, text=True, timeout=120).stdout
        except (OSError, subprocess.SubprocessError) as error:
            print(f"the processor's peaks are not measured: {error}", file=sys.stderr)
            return {}
    return {name: float(rate) for name, rate in (line.split() for line in output.splitlines())}
