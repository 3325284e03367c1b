"""What the compiler makes of the CUDA kernels, where speed hangs on it and no estimate tells: found on a GPU."""

import re
import subprocess
from pathlib import Path

import pytest

from scripts import ROOT
from scripts.cuda.check import compiler, find_nvcc, torch_include
from scripts.cuda.machine_code import dump, find_cuobjdump, opcodes

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
    where the product asks for tiles, and took longer than the products. The same for both products."""
    ptx = compiled("ptx", source, tmp_path).read_text()
    products = {"mma.sync": 0, "wgmma.mma_async": 0}
    for kernel in ptx.split(".entry ")[1:]:
        lines = kernel.splitlines()
        for product in products:
            mma = [i for i, line in enumerate(lines) if product in line]
            if not mma:
                continue
            products[product] += 1
            inner = lines[mma[0] : mma[-1]]
            assert not [line for line in inner if re.search(r"\b(div|rem)\.[su]\d", line)], lines[0]
    assert min(products.values()) >= 2, products  # of fp16 and bf16


# A kernel, what it is compiled from, and an instruction that only its epilogue has: in how many of the gaps between two
# products it should stand at least, and how often at most in one.
EPILOGUES = [
    (
        "similarity_confidence::predict_by_warpgroups<__nv_bfloat16, false, 2>",
        "similarity_confidence/by_warpgroups.cuh",
        "similarity_confidence::GroupArguments<__nv_bfloat16>",
        ("MUFU.EX2", 8, 44),
    ),
    (
        "knn::scan_by_warpgroups<__nv_bfloat16>",
        "knn/by_warpgroups.cuh",
        "knn::Search, const __grid_constant__ knn::GroupMaps",
        ("FMNMX", 8, 16),
    ),
]


@pytest.mark.skipif(find_cuobjdump(find_nvcc()) is None, reason="needs cuobjdump")
@pytest.mark.parametrize(("kernel", "header", "parameters", "expected"), EPILOGUES)
def test_epilogues_stand_between_the_products(kernel, header, parameters, expected, tmp_path: Path):
    """The assembler may move them all behind the last product of a tile, and nothing be multiplied meanwhile."""
    source, cubin = tmp_path / "one.cu", tmp_path / "one.cubin"
    source.write_text(f"""
        #include "cuda/product/{header}"
        using namespace pyfastcal::cuda;
        template __global__ void {kernel}(const __grid_constant__ {parameters});
        """)
    command = [*compiler(find_nvcc(), "sm_90a"), f"-I{ROOT}/csrc", "-cubin", "-o", str(cubin), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (code,) = [c for name, c in dump(find_cuobjdump(find_nvcc()), cubin).items() if "by_warpgroups" in name]
    gaps, instruction = [0], expected[0]
    for opcode in opcodes(code):
        gaps[-1] += opcode.startswith(instruction)
        if opcode.startswith("HGMMA"):
            gaps.append(0)
    between = gaps[1:-1]
    assert sum(gap > 0 for gap in between) >= expected[1], between
    assert max(between) <= expected[2], between


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
