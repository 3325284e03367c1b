"""The CUDA half where there is no GPU: on the CPU model of CUDA, and through the compiler."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts import ROOT
from scripts.cuda import check, mutate


def cuda_home() -> Path | None:
    """The toolkit as the compiler is found, or only its headers."""
    nvcc = check.find_nvcc()
    candidates = [os.environ.get("CUDA_HOME"), nvcc and Path(nvcc).parent.parent, "/usr/local/cuda"]
    return next((Path(c) for c in candidates if c and (Path(c) / "include/cuda_fp16.h").exists()), None)


needs_model = pytest.mark.skipif(
    cuda_home() is None or platform.machine() != "x86_64" or not shutil.which("g++") or not shutil.which("make"),
    reason="the CPU model of CUDA needs CUDA's headers, g++ and make on x86-64",
)


@needs_model
@pytest.mark.parametrize("variant", mutate.VARIANTS)
def test_kernels_on_the_model(variant):
    # ARGS empty: a `make test ARGS=...` above hands its own on
    command = ["make", "-C", ROOT / "tests/cuda_model", variant, f"CUDA_HOME={cuda_home()}", "ARGS="]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout + done.stderr


def test_mutations_can_be_planted():
    all_mutations = mutate.load(None)
    assert len(all_mutations) >= 40
    for mutation in all_mutations:
        text = (ROOT / "csrc/cuda" / mutation.file).read_text()
        assert text.count(mutation.old) == 1, mutation.name
        assert mutation.new != mutation.old
        assert all((ROOT / f"tests/cuda_model/{test}.cpp").exists() for test in mutation.tests)


@needs_model
def test_mutation_script(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mutate", "--kernels", "gemm", "--only", "a row of the lower half", "--jobs", "1"])
    assert mutate.main() == 0
    assert "1 of 1 mutations noticed" in capsys.readouterr().out
