"""The package as it is installed: wheels with and without a compiler, the CMake build, the public face."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch

import pyfastcal as fc
from pyfastcal import _extension
from pyfastcal.report.environment import cuda_kernels
from scripts import cuda_check
from scripts.cuda_check import find_nvcc
from scripts.torch_versions import copy_sources

ROOT = Path(__file__).parent.parent
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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A clean copy of the source tree."""
    return copy_sources(tmp_path / "source")


def wheel(source: Path, **environment: str) -> Path:
    """Builds a wheel and unpacks it; returns the folder to import it from."""
    out = source.parent / "wheel"
    command = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "-q",
        "-w",
        out,
        source,
    )
    run(*command, env=os.environ | environment, cwd=source)
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(out / "site")
    return out / "site"


def python(site: Path, code: str) -> str:
    """Runs code with the unpacked wheel first on the path; this source tree, which -P leaves out, is not to be found
    by way of an editable installation either."""
    hide = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f)]\n"
    code = hide + textwrap.dedent(code)
    return run(sys.executable, "-P", "-c", code, env=os.environ | {"PYTHONPATH": str(site)}, cwd=site.parent)


def test_wheel(source):
    """With both halves where there is nvcc, for one architecture: ``make cuda-check`` compiles for all."""
    cuda = {"PYFASTCAL_CUDA": "1", "PYFASTCAL_CUDA_ARCHS": "sm_90a"} if find_nvcc() else {"PYFASTCAL_CUDA": "0"}
    site = wheel(source, PYFASTCAL_BUILD="require", **cuda)
    assert list(site.glob("pyfastcal/_C.*"))
    libraries = list(site.glob("pyfastcal/_cuda.*"))
    assert len(libraries) == (cuda["PYFASTCAL_CUDA"] == "1")
    for library in libraries if shutil.which("readelf") else []:
        dynamic = run("readelf", "-d", library)
        assert "[libtorch_cuda.so]" in dynamic and "libcudart" not in dynamic and "PATH" not in dynamic
    info = json.loads(python(site, "import json, pyfastcal as fc; print(json.dumps(fc.build_info()))"))
    assert info["cuda_archs"] == (["sm_90a"] if libraries else [])
    if not libraries:
        assert info["cuda_problem"] == "pyfastcal was built without CUDA kernels: PYFASTCAL_CUDA was 0"
    elif torch.version.cuda is None:
        assert info["cuda_problem"] == f"torch {torch.__version__} is one without CUDA"
    assert (site / "pyfastcal/py.typed").exists()
    assert {p.name for p in (site / "pyfastcal").rglob("*.safetensors")} == {
        p.name for p in (ROOT / "pyfastcal").rglob("*.safetensors")
    }
    assert python(site, "import pyfastcal as fc; print(fc.__file__, fc.build_info()['kernels'])").split() == [
        str(site / "pyfastcal/__init__.py"),
        "True",
    ]


def test_without_a_compiler_the_reference_path_runs(source):
    site = wheel(source, CC="false", CXX="false")
    assert not list(site.glob("pyfastcal/_C.*"))
    code = """
        import torch, pyfastcal as fc
        info = fc.build_info()
        assert not info["kernels"] and "_C" in info["problem"]
        assert not info["cuda_kernels"] and info["cuda_problem"] == "pyfastcal was built without kernels"
        logits = torch.tensor([[1.0, 2.0, 0.5]])
        assert fc.confidence(logits)[1].tolist() == [1]
        assert fc.knn(torch.eye(3), torch.eye(3), 1)[1].flatten().tolist() == [0, 1, 2]
        assert fc.bin_counts(torch.tensor([0.25]), torch.tensor([True]), 4)[0].tolist() == [[0, 1, 0, 0]]
        try:
            fc.confidence(logits * float("nan"))
        except ValueError as error:
            assert str(error).startswith("logits")
        else:
            raise AssertionError
    """
    python(site, code)
    assert "reference" in python(
        site, "import runpy; sys.argv[1:] = ['info']; runpy.run_module('pyfastcal', run_name='__main__')"
    )


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
    assert run(sys.executable, "-c", code, cwd=build).strip() == ",".join(_extension.C.cpu_capabilities())
    # A function that the linker may merge across variants could carry AVX-512 into a processor without it.
    for path in build.glob("**/variant_*.cpp.o"):
        variant = path.name.removeprefix("variant_").removesuffix(".cpp.o")
        weak = [line for line in run("nm", "-C", path).splitlines() if line[17:19] == "W "]
        assert weak and [line for line in weak if f"pyfastcal::{variant}::" not in line] == []


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


def test_cuda_that_is_demanded_and_not_there_is_an_error(source):
    environment = os.environ | {"PYFASTCAL_CUDA": "1", "CUDA_HOME": "/nowhere"}
    command = [sys.executable, "setup.py", "build_ext"]
    failed = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert failed.returncode != 0 and "no nvcc was found; CUDA_HOME says where it is" in failed.stderr


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
    assert all(_extension.runs_on(arch, capability) for capability in runs)
    assert not any(_extension.runs_on(arch, capability) for capability in not_on)


def test_default_architectures_are_the_same_everywhere():
    """In both builds, in README's table and, but for PTX, in ``make cuda-check``."""
    named = re.compile(r"\b(?:sm|compute)_\d+[af]?\b")
    setup, cmake, readme = ((ROOT / name).read_text() for name in ("setup.py", "CMakeLists.txt", "README.md"))
    archs = named.findall(re.search(r'"PYFASTCAL_CUDA_ARCHS", "(.*?)"', setup)[1])
    assert archs and archs == named.findall(re.search(r'set\(PYFASTCAL_CUDA_ARCHS "(.*?)"', cmake)[1])
    table = readme[readme.index("| GPU | compiled for |") :]
    assert archs == named.findall(table[: table.index("\n\n")])
    assert [arch for arch in archs if arch.startswith("sm_")] == cuda_check.ARCHS
    assert archs == named.findall(re.search(r'default "(.*?)"', setup)[1])


def test_what_is_said_of_a_gpu(monkeypatch):
    """A GPU that the kernels were built for, one that they were not, and none."""
    monkeypatch.setattr(_extension, "_cuda_unusable", None)
    monkeypatch.setattr(_extension, "cuda_archs", lambda: ["sm_80", "sm_90a"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ("Old", "New")[index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: ((7, 5), (9, 0))[index])
    problem, runs = _extension.cuda_problem.__wrapped__, _extension._cuda_runs.__wrapped__
    monkeypatch.setattr(_extension, "cuda_problem", problem)
    said = "Old (sm_75) is none of those that the kernels were built for: sm_80, sm_90a"
    assert problem() is None and problem(1) is None and problem(0) == said
    assert runs(1)
    with pytest.warns(UserWarning, match="reference path.*Old"):
        assert not runs(0)
    assert cuda_kernels(fc.build_info()) == "compiled CUDA kernels (Old (sm_75), New (sm_90))"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert cuda_kernels(fc.build_info()) == f"the reference path, in plain torch: slower, same results ({said})"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda_kernels(fc.build_info()) == "not in use: torch finds no GPU"


@pytest.mark.skipif(_extension.C is None, reason="built without the compiled kernels")
def test_capability_can_be_forced(tmp_path):
    code = "import pyfastcal as fc; print(fc.build_info()['cpu_capability'])"
    for name in _extension.C.cpu_capabilities():
        assert run(sys.executable, "-c", code, env=os.environ | {"PYFASTCAL_CPU_CAPABILITY": name}).strip() == name
    with pytest.raises(ValueError, match="^name must be one of"):
        _extension.C.set_cpu_capability("mmx")
