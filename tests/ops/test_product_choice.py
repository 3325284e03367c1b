"""``PYFASTCAL_CUDA_PRODUCT``: what it may say, what is said where it says something else, and how it shows."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import pyfastcal as fc
from pyfastcal.ops import extension
from pyfastcal.report.environment import cuda_product
from scripts import ROOT
from scripts.cuda.check import torch_include

from ..command import invoke

GIVEN = {None: "auto", "": "auto", "auto": "auto", "mma": "mma", "wgmma": "wgmma"}
WRONG = ["wgmma2", "MMA", " mma", "auto,mma", "\x1b[1m"]


def words(given: str) -> str:
    return f"PYFASTCAL_CUDA_PRODUCT must be one of auto, mma, wgmma, got {given!r}"


def give(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    if given is None:
        monkeypatch.delenv("PYFASTCAL_CUDA_PRODUCT", raising=False)
    else:
        monkeypatch.setenv("PYFASTCAL_CUDA_PRODUCT", given)


@pytest.mark.parametrize("given", GIVEN)
def test_what_is_asked_for(given, monkeypatch):
    give(monkeypatch, given)
    assert extension.wanted_product() == GIVEN[given]


def test_is_looked_at_whenever_tensors_are_on_a_gpu(monkeypatch):
    """And only then: on the CPU nothing depends on it."""
    monkeypatch.setattr(extension, "_cuda_runs", lambda index: True)
    gpu = torch.device("cuda", 0)
    for given in WRONG:
        give(monkeypatch, "mma")
        assert extension.has_kernel(gpu)
        give(monkeypatch, given)
        with pytest.raises(ValueError) as error:
            extension.has_kernel(gpu)
        assert str(error.value) == words(given)
        assert fc.confidence(torch.eye(3))[0].shape == (3,)


@pytest.fixture
def with_cuda_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "cuda_library", lambda: Path("_cuda.so"))


def shown() -> str | None:
    """The line of ``pyfastcal info``."""
    lines = [line for line in invoke("info").stdout.splitlines() if line.startswith("  GPU product ")]
    assert len(lines) <= 1
    return lines[0].removeprefix("  GPU product ").strip() if lines else None


@pytest.mark.parametrize("given", GIVEN)
def test_shows_in_info(given, monkeypatch, with_cuda_half):
    give(monkeypatch, given)
    assert fc.build_info()["cuda_product"] == GIVEN[given]
    assert fc.build_info()["cuda_product_problem"] is None
    said = shown()
    assert said.startswith(GIVEN[given]) and "PYFASTCAL_CUDA_PRODUCT" in said
    assert json.loads(invoke("info", "--json").stdout)["runs on"]["GPU product"] == said


@pytest.mark.parametrize("given", WRONG)
def test_what_it_may_not_say_shows_in_info(given, monkeypatch, with_cuda_half):
    give(monkeypatch, given)
    assert fc.build_info()["cuda_product"] is None
    assert shown() == fc.build_info()["cuda_product_problem"] == words(given)


@pytest.mark.parametrize("given", ["mma", "wgmma2"])
def test_is_not_spoken_of_without_a_cuda_half(given, monkeypatch):
    monkeypatch.setattr(extension, "cuda_library", lambda: None)
    give(monkeypatch, given)
    assert cuda_product(fc.build_info()) is None and fc.build_info()["cuda_product"] is None
    assert shown() is None


@pytest.mark.skipif(not shutil.which("g++") or torch_include() is None, reason="needs g++ and torch's headers")
def test_the_kernels_side_reads_it_the_same(tmp_path):
    """At each call: for whoever calls ``torch.ops.pyfastcal`` past the entries."""
    source, program = tmp_path / "choice.cpp", tmp_path / "choice"
    source.write_text("""
        #include <cstdio>
        #include "cuda/wanted_product.h"
        int main(int count, char** values) {
          const char* names[] = {"auto", "mma", "wgmma"};
          for (int i = 0; i < count; ++i) {
            if (i) setenv("PYFASTCAL_CUDA_PRODUCT", values[i], 1);
            try {
              std::printf("%s\\n", names[int(pyfastcal::cuda::wanted_product())]);
            } catch (const std::runtime_error& error) {
              std::printf("%s\\n", error.what());
            }
          }
        }""")
    options = [f"-I{ROOT}/csrc", "-isystem", str(torch_include()), "-o", str(program)]
    subprocess.run(["g++", "-std=c++20", "-Wall", "-Wextra", "-Werror", str(source), *options], check=True)
    unset = {key: value for key, value in os.environ.items() if key != "PYFASTCAL_CUDA_PRODUCT"}
    values = [given for given in GIVEN if given is not None]
    done = subprocess.run([program, *values, *WRONG], env=unset, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[: 1 + len(values)] == ["auto", *(GIVEN[given] for given in values)]
    wrong = lines[1 + len(values) :]
    assert len(wrong) == len(WRONG)
    for given, said in zip(WRONG, wrong, strict=True):
        assert said.endswith(f", PYFASTCAL_CUDA_PRODUCT must be one of auto, mma, wgmma, got '{given}'")
