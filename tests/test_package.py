"""The package as it is installed: wheels with and without a compiler, the CMake build, the public face."""

import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import pyfastcal as fc
from pyfastcal import _extension

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
    leave = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "out", "*.so", "*.egg-info", "__pycache__", ".*_cache"
    )
    return Path(shutil.copytree(ROOT, tmp_path / "source", ignore=leave))


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
    site = wheel(source, PYFASTCAL_BUILD="require")
    assert list(site.glob("pyfastcal/_C.*"))
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


def test_build_info():
    info = fc.build_info()
    assert info["pyfastcal"] == fc.__version__ and info["threads"] >= 1
    if info["kernels"]:
        assert info["cpu_capability"] in info["cpu_capabilities"] and info["problem"] is None


@pytest.mark.skipif(_extension.C is None, reason="built without the compiled kernels")
def test_capability_can_be_forced(tmp_path):
    code = "import pyfastcal as fc; print(fc.build_info()['cpu_capability'])"
    for name in _extension.C.cpu_capabilities():
        assert run(sys.executable, "-c", code, env=os.environ | {"PYFASTCAL_CPU_CAPABILITY": name}).strip() == name
    with pytest.raises(ValueError, match="^name must be one of"):
        _extension.C.set_cpu_capability("mmx")
