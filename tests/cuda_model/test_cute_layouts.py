"""What our kernels take Hopper's layouts to be, judged by CuTe, NVIDIA's own library of them.

The kernels are plain PTX and do without it: so they run on the CPU model of CUDA, which has these layouts from the same
manual. A mistake in reading that would go unnoticed there.
"""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from scripts import ROOT
from scripts.cuda.check import find_nvcc

FOLDER = ROOT / "tests/cuda_model/cute"
# Found, not imported: that would ask for its own dependencies. The linker puts the program's own search for functions
# of the driver in the place of the runtime's.
CUTLASS = importlib.util.find_spec("cutlass_library")
WRAPPED = ",".join(f"--wrap=cudaGetDriverEntryPoint{suffix}" for suffix in ("", "ByVersion"))

pytestmark = [
    pytest.mark.skipif(CUTLASS is None, reason="needs nvidia-cutlass"),
    pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc"),
]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    """By what was compared: of how many places, and how many of them differ."""
    program = tmp_path_factory.mktemp("cute") / "layouts"
    cute = Path(CUTLASS.submodule_search_locations[0]) / "source/include"
    command = [find_nvcc(), "-std=c++20", "-arch=sm_90a", f"-I{ROOT}/tests", f"-I{ROOT}/csrc", "-isystem", cute]
    command += ["-Xlinker", WRAPPED, "-o", program, FOLDER / "main.cu", FOLDER / "ours.cpp"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^(.+): (\d+) compared, (\d+) differ$", shown, re.MULTILINE)
    return {what: (int(places), int(differing)) for what, places, differing in lines}


@pytest.mark.parametrize(
    ("what", "places"),
    [
        ("accumulators", 64 * 128),
        ("accumulators of fp16", 64 * 128),
        ("a chunk", 128 * 64),
        ("a chunk of 64 rows of fp16", 64 * 64),
        ("descriptors", 12),
        ("descriptors of fp16", 12),
        ("tensor maps", 3),
        ("tensor maps of 64 rows of fp16", 3),
    ],
)
def test_is_cutes(compared: dict[str, tuple[int, int]], what: str, places: int):
    assert compared[what] == (places, 0)


@pytest.mark.parametrize(
    "what",
    [
        "accumulators: half and e swapped",
        "chunk: nothing permuted",
        "descriptors: 32 columns a step",
        "descriptors: 512 bytes for 8 rows",
        "tensor maps: of fp16",
        "tensor maps: half a box",
    ],
)
def test_a_mistake_is_noticed(compared: dict[str, tuple[int, int]], what: str):
    assert compared[f"wrong {what}"][1] > 0
