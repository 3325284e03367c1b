"""The source distribution: it holds everything, and gives kernels where it is installed."""

import json
import re
import shutil
import tarfile
from importlib import metadata
from pathlib import Path

import pytest
import torch

from scripts.checks.torch_versions import copy_sources
from scripts.cuda.check import find_nvcc

from .builds import ROOT, Environment, build, run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("sdist") / "source")


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    return build("sdist", source, source.parent / "dist")


@pytest.fixture(scope="module")
def installed(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """With both halves where there is nvcc, for one architecture: ``make cuda-check`` compiles for all."""
    cuda = {"PYFASTCAL_CUDA": "1", "PYFASTCAL_CUDA_ARCHS": "sm_80"} if find_nvcc() else {"PYFASTCAL_CUDA": "0"}
    environment = Environment(tmp_path_factory.mktemp("installed") / "env")
    environment.install(sdist, PYFASTCAL_BUILD="require", **cuda)
    return environment


def test_everything_is_in_it(source: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    sources = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()}
    copied = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()} & sources
    assert copied > {"csrc/common/tensors.h", "docs/architecture.md", "tests/package/test_sdist.py", "CMakeLists.txt"}
    assert copied - {"pyfastcal/_build.json"} - names == set()
    assert not [name for name in names if name.endswith((".so", ".pyc", "_build.json"))]


def test_it_installs_with_kernels(installed: Environment) -> None:
    code = """
        import json, torch, pyfastcal as fc
        assert torch.ops.pyfastcal.confidence(torch.tensor([[1.0, 2.0, 0.5]]), None, None)[1].tolist() == [1]
        assert fc.confidence(torch.tensor([[1.0, 2.0, 0.5]]))[1].tolist() == [1]
        print(json.dumps([fc.__file__, fc.build_info()]))
    """
    file, info = json.loads(installed.run(code))
    package = installed.site / "pyfastcal"
    assert file == str(package / "__init__.py") and info["kernels"] and info["problem"] is None
    assert list(package.glob("_C.*"))
    system = {"linux-vdso.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6"}
    system |= {"libstdc++.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
    if shutil.which("readelf"):  # what manylinux allows, and torch, which is never packed
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", next(package.glob("_C.*")))))
        assert {"libtorch_cpu.so", "libc10.so"} <= needed <= system | {"libtorch_cpu.so", "libc10.so"}
    libraries = list(package.glob("_cuda.*"))
    assert len(libraries) == (find_nvcc() is not None) == info["cuda_installed"]
    for library in libraries if shutil.which("readelf") else []:
        dynamic = run("readelf", "-d", library)
        assert "[libtorch_cuda.so]" in dynamic and "libcudart" not in dynamic and "PATH" not in dynamic
    assert info["cuda_archs"] == (["sm_80"] if libraries else [])
    if not libraries:
        assert info["cuda_problem"] == "pyfastcal was built without CUDA kernels: PYFASTCAL_CUDA was 0"
    elif torch.version.cuda is None:
        assert not info["cuda_kernels"] and info["cuda_problem"] == f"torch {torch.__version__} is one without CUDA"


def test_info_tells_an_installed_cuda_half_from_one_in_use(installed: Environment) -> None:
    shown = installed.run("import sys; sys.argv[1:] = ['info']; from pyfastcal.cli import main; main()")
    lines = [line.split(maxsplit=1)[1] for line in shown.splitlines() if line.split()[:1] == ["GPU"]]
    (gpu,) = [line for line in lines if not line.startswith("product ")]
    if find_nvcc() is None:
        assert gpu.startswith("not in use: pyfastcal was built without CUDA kernels")
    elif not torch.cuda.is_available():
        assert gpu.startswith("installed, not in use: torch")
    assert len(lines) == 1 + (find_nvcc() is not None)  # by which instructions it multiplies, where it is installed


def test_data_and_metadata_are_installed(installed: Environment) -> None:
    package = installed.site / "pyfastcal"
    assert (package / "py.typed").exists()
    weights = {path.name for path in (ROOT / "pyfastcal").rglob("*.safetensors")}
    assert {path.name for path in package.rglob("*.safetensors")} == weights
    (folder,) = installed.site.glob("pyfastcal-*.dist-info")
    assert "Root-Is-Purelib: false" in (folder / "WHEEL").read_text()
    found = metadata.PathDistribution(folder).metadata
    addresses = dict(line.split(", ", 1) for line in found.get_all("Project-URL"))
    assert {"Source", "Documentation", "Changelog", "Issues"} <= addresses.keys()
    versions = [line.split()[-1] for line in found.get_all("Classifier") if "Python :: 3." in line]
    assert f">={versions[0]}" == found["Requires-Python"] and len(versions) >= 5


def test_missing_parts_are_named_at_once_with_the_command(installed: Environment, sdist: Path) -> None:
    code = """
        import sys
        for name in ("open_clip", "matplotlib", "sklearn"): sys.modules[name] = None
        sys.argv[1:] = ["demo"]
        from pyfastcal.cli import main; main()
    """
    done = installed.attempt(code)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    command = f"pip install 'pyfastcal[demo] @ {sdist.as_uri()}' torch=={torch.__version__}"
    said = " ".join(done.stderr.split())
    assert f"pyfastcal needs open_clip_torch, matplotlib, scikit-learn for this: {command}" in said
