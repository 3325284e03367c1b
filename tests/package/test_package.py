"""The package: its public face, what it says of its build, the CMake build. ``package/`` builds and installs it."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import pyfastcal as fc
from pyfastcal.ops import extension
from pyfastcal.report.environment import cuda_kernels
from scripts.cuda.check import ARCHS

ROOT = Path(__file__).parents[2]
PUBLIC = {
    *("knn", "proximity", "textual_deviation", "contrast_weight", "confidence", "similarity_confidence", "bin_counts"),
    *("build_info", "DistanceAwareCalibration", "ContrastAwareCalibration", "metrics", "reference"),
    *("TemperatureScaling", "DensityRatioCalibration", "HistogramBinning", "IsotonicRegression", "chain"),
    *("MultiIsotonicRegression", "BinMeanShift"),
}


def run(*command: object, **options) -> str:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("nm") is None, reason="needs cmake and nm")
def test_cmake_builds_the_same_module_and_variants_do_not_mix(tmp_path):
    build = tmp_path / "build"
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    run(
        "cmake",
        "-S",
        ROOT,
        "-B",
        build,
        *generator,
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DPYFASTCAL_OUTPUT={build}/out",
    )
    run("cmake", "--build", build, "--parallel", "2")
    assert len(list((build / "out").glob("_C*.so"))) == 1
    code = "import torch, sys; sys.path.insert(0, 'out'); import _C; print(','.join(_C.cpu_capabilities()))"
    assert run(sys.executable, "-c", code, cwd=build).strip() == ",".join(extension.C.cpu_capabilities())
    # A function that the linker may merge across variants could carry AVX-512 into a processor without it.
    for path in build.glob("**/variant_*.cpp.o"):
        variant = path.name.removeprefix("variant_").removesuffix(".cpp.o")
        weak = [line[19:] for line in run("nm", path).splitlines() if line[17:19] == "W "]
        own = re.compile(rf"(?<!\d){len(variant)}{variant}")  # as its namespace is mangled
        assert weak and [name for name in weak if not own.search(name)] == []


def test_public_names():
    for name in PUBLIC:
        assert getattr(fc, name).__doc__, name
    assert set(fc.__all__) >= PUBLIC
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fc.nothing  # noqa: B018


def test_import_is_light():
    """Optional packages are not touched until something needs them."""
    code = """
        import sys, pyfastcal
        heavy = {"open_clip", "torchvision", "matplotlib", "sklearn", "torchmetrics", "typer", "rich"}
        print(sorted(heavy & set(sys.modules)))
    """
    assert run(sys.executable, "-c", textwrap.dedent(code)).strip() == "[]"


def test_build_info():
    info = fc.build_info()
    assert info["pyfastcal"] == fc.__version__ and info["threads"] >= 1
    if info["kernels"]:
        assert info["cpu_capability"] in info["cpu_capabilities"] and info["problem"] is None
    assert info["cuda_kernels"] == (info["cuda_problem"] is None)
    assert bool(info["cuda_archs"]) == (info["cuda_toolkit"] is not None)
    assert info["torch_cuda"] == torch.version.cuda
    if not torch.cuda.is_available():
        assert not info["cuda_kernels"] and info["gpus"] == []


@pytest.mark.parametrize(
    ("arch", "runs", "not_on"),
    [
        ("sm_80", [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0), (10, 0)]),
        ("sm_86", [(8, 6), (8, 9)], [(8, 0)]),
        ("sm_90a", [(9, 0)], [(8, 9), (10, 0)]),
        ("sm_100", [(10, 0), (10, 3)], [(9, 0), (11, 0), (12, 0)]),
        ("sm_100a", [(10, 0)], [(10, 3), (9, 0), (12, 0)]),
        ("sm_100f", [(10, 0), (10, 3)], [(11, 0), (12, 0)]),
        ("sm_120", [(12, 0), (12, 1)], [(10, 0), (13, 0)]),
        ("compute_100", [(10, 0), (10, 3), (11, 0), (12, 1), (13, 0)], [(8, 9), (9, 0)]),
        ("compute_100a", [(10, 0)], [(10, 3), (11, 0)]),
        ("compute_100f", [(10, 0), (10, 3)], [(11, 0), (12, 0)]),
    ],
)
def test_which_gpus_an_architecture_is_for(arch, runs, not_on):
    assert all(extension.runs_on(arch, capability) for capability in runs)
    assert not any(extension.runs_on(arch, capability) for capability in not_on)


def test_default_architectures_are_the_same_everywhere():
    """In both builds, in README's table and, but for PTX, in ``make cuda-check``."""
    named = re.compile(r"\b(?:sm|compute)_\d+[af]?\b")
    setup, cmake, readme = ((ROOT / name).read_text() for name in ("setup.py", "CMakeLists.txt", "README.md"))
    archs = named.findall(re.search(r'"PYFASTCAL_CUDA_ARCHS", "(.*?)"', setup)[1])
    assert archs and archs == named.findall(re.search(r'set\(PYFASTCAL_CUDA_ARCHS "(.*?)"', cmake)[1])
    table = readme[readme.index("| GPU | compiled for |") :]
    assert archs == named.findall(table[: table.index("\n\n")])
    assert [arch for arch in archs if arch.startswith("sm_")] == ARCHS
    assert archs == named.findall(re.search(r'default "(.*?)"', setup)[1])


def test_what_is_said_of_a_gpu(monkeypatch):
    """A GPU that the kernels were built for, one that they were not, and none."""
    monkeypatch.setattr(extension, "_cuda_unusable", None)
    monkeypatch.setattr(extension, "cuda_archs", lambda: ["sm_80", "sm_90a"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ("Old", "New")[index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: ((7, 5), (9, 0))[index])
    problem, runs = extension.cuda_problem.__wrapped__, extension._cuda_runs.__wrapped__
    monkeypatch.setattr(extension, "cuda_problem", problem)
    said = "Old (sm_75) is none of those that the kernels were built for: sm_80, sm_90a"
    assert problem() is None and problem(1) is None and problem(0) == said
    assert runs(1)
    with pytest.warns(UserWarning, match="reference path.*Old"):
        assert not runs(0)
    assert cuda_kernels(fc.build_info()) == "compiled CUDA kernels (Old (sm_75), New (sm_90))"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert cuda_kernels(fc.build_info()) == f"the reference path, in plain torch: slower, same results ({said})"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda_kernels(fc.build_info() | {"cuda_installed": True}) == "installed, not in use: torch finds no GPU"


def test_what_is_said_of_a_cuda_half_whose_build_failed(monkeypatch):
    monkeypatch.setattr(extension, "C", SimpleNamespace(cuda_archs="", no_cuda="building it failed"))
    monkeypatch.setattr(extension, "_record", lambda: {"cpu": "", "cuda": "building it failed: nvcc: no such thing"})
    said = "pyfastcal was built without CUDA kernels: building it failed: nvcc: no such thing"
    assert extension._load_cuda() == said


@pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")
def test_capability_can_be_forced(tmp_path):
    code = "import pyfastcal as fc; print(fc.build_info()['cpu_capability'])"
    for name in extension.C.cpu_capabilities():
        assert run(sys.executable, "-c", code, env=os.environ | {"PYFASTCAL_CPU_CAPABILITY": name}).strip() == name
    with pytest.raises(ValueError, match="^name must be one of"):
        extension.C.set_cpu_capability("mmx")


@pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")
def test_a_capability_that_there_is_none_of_is_named():
    code = "import torch, pyfastcal as fc; fc.confidence(torch.eye(3))"
    for command in (["-c", code], ["-m", "pyfastcal", "info"]):
        done = subprocess.run(
            [sys.executable, *command],
            env=os.environ | {"PYFASTCAL_CPU_CAPABILITY": "avx3"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert re.search("PYFASTCAL_CPU_CAPABILITY must be one of .*, got 'avx3'$", done.stderr.strip())
