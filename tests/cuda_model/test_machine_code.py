"""What the compiler makes of the CUDA kernels, where speed hangs on it and no estimate tells: found on a GPU."""

import re
import subprocess
from pathlib import Path

import pytest

from scripts import ROOT
from scripts.cuda.check import compiler, find_nvcc, torch_include
from scripts.cuda.machine_code import dump, find_cuobjdump

pytestmark = pytest.mark.skipif(find_nvcc() is None or torch_include() is None, reason="needs nvcc and torch's headers")


def compiled(kind: str, source: str, folder: Path) -> Path:
    """``kind``: ptx or cubin."""
    out = folder / f"{source}.{kind}"
    command = [*compiler(find_nvcc(), "sm_90a"), f"-{kind}", "-o", str(out), str(ROOT / f"csrc/cuda/{source}.cu")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("source", ["similarity_confidence", "similarity", "contrast", "knn"])
def test_the_product_does_not_divide(source: str, tmp_path: Path):
    """A division of integers is some forty instructions. Those that find a block's tiles stood in the inner loop once,
    where the product asks for tiles, and took longer than the products."""
    ptx = compiled("ptx", source, tmp_path).read_text()
    kernels = re.findall(r"\.entry (\w+)\((.*?)\n}\n", ptx, re.DOTALL)
    products = 0
    for name, body in kernels:
        lines = body.splitlines()
        mma = [i for i, line in enumerate(lines) if "mma.sync" in line]
        if not mma:
            continue
        products += 1
        inner = lines[mma[0] : mma[-1]]
        assert not [line for line in inner if re.search(r"\b(div|rem)\.[su]\d", line)], name
    assert products >= 2  # of fp16 and bf16


@pytest.mark.skipif(find_cuobjdump(find_nvcc()) is None, reason="needs cuobjdump")
@pytest.mark.parametrize("source", ["confidence", "nll"])
def test_the_loads_of_a_row_are_under_way_together(source: str, tmp_path: Path):
    """A branch after a load is one before the next: the row waits for memory as often as it has vectors."""
    cubin = compiled("cubin", source, tmp_path)
    rows = 0
    for name, code in dump(find_cuobjdump(find_nvcc()), cubin).items():
        lines = code.splitlines()
        loads = [i for i, line in enumerate(lines) if "LDG.E.128" in line]
        if "short_rows" not in name or not loads:
            continue
        rows += 1
        assert not [line for line in lines[loads[0] : loads[-1]] if re.search(r"\bBRA\b", line)], name
    assert rows >= 6  # of each type, for few classes and for many
