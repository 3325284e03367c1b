"""The study of Hopper's instructions builds, its kernels are what they were when they were measured, and it runs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.hopper import __main__ as study
from scripts.cuda.check import find_nvcc, losses
from tests.devices import needs_gpu

needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc")
on_hopper = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)

# Two registers (8 bytes) that two_weights_pair stores and loads again, once in two tiles: it was measured with them.
KNOWN_SPILLS = {"two_weights_pair": 16}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The program, and what ptxas says of each configuration's kernel."""
    out = tmp_path_factory.mktemp("hopper")
    return out / "study", study.build(find_nvcc(), out)


@needs_nvcc
def test_no_spills_and_no_serialised_products(built):
    _, reports = built
    assert len(reports) == 9
    for name, report in reports.items():
        assert losses(report) == []
        assert study.usage(report).registers == 168  # of 384 threads: all that a multiprocessor has
        assert study.usage(report).spilled <= KNOWN_SPILLS.get(name, 0), name


@needs_nvcc
@pytest.mark.skipif(not shutil.which("cuobjdump"), reason="needs cuobjdump")
def test_every_kernel_multiplies_with_wgmma_and_copies_tensors(built):
    program, reports = built
    for name in reports:
        command = ["cuobjdump", "-sass", str(program.parent / f"{name}.o")]
        code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        width = 256 if "product" in name and "two_sets" not in name else 128
        assert set(re.findall(r"HGMMA\.(\S+)", code)) == {f"64x{width}x16.F32.BF16"}, name
        assert "UTMALDG.2D" in code, name
        assert ("UTMALDG.2D.MULTICAST" in code) == ("single" not in name), name


@needs_nvcc
def test_says_in_a_line_that_there_is_no_gpu(built):
    program, _ = built
    done = subprocess.run([program], capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "the Hopper study needs a GPU of compute capability 9.0: found none\n"


def test_says_in_a_line_that_there_is_no_compiler(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert study.main([]) == 2
    assert capsys.readouterr().err == "the Hopper study needs nvcc: set CUDA_HOME\n"


@needs_gpu
@needs_nvcc
@pytest.mark.skipif(not on_hopper, reason="needs a GPU of compute capability 9.0")
def test_every_configuration_is_right(built):
    program, reports = built
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    lines = {words[0]: words[1] for words in map(str.split, done.stdout.splitlines()) if words and words[0] in reports}
    assert lines == dict.fromkeys(reports, "OK"), done.stdout + done.stderr
    assert done.returncode == 0
