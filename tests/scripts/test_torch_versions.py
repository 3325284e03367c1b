"""One binary for every torch from the oldest on: built against the oldest torch and against the newest that pip finds
(headers and libraries only, kept in the user's cache), each build's symbols are looked up in both, and both builds run
on the torch that is installed. ``python -m scripts.checks.torch_versions`` also runs the build of the newest on the
oldest."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from scripts import ROOT
from scripts.checks import torch_versions as versions
from scripts.cuda.check import find_nvcc

TORCHES = ("oldest", "newest")
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not all(map(shutil.which, ("g++", "nm"))),
    reason="needs Linux, g++ and nm",
)


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, cwd=cwd, env=os.environ | environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def oldest() -> Path:
    try:
        return versions.fetch(versions.OLDEST)
    except versions.UnavailableError as error:
        pytest.skip(f"torch {versions.OLDEST} cannot be had: {error}")


@pytest.fixture(scope="module")
def newest() -> Path:
    """Where pip finds none, the installed one is the newest there is."""
    try:
        return versions.fetch_newest()
    except versions.UnavailableError:
        return Path(torch.__file__).parent


def toolkit_of_wheels(nvcc: str, home: Path) -> Path:
    """The CUDA toolkit in the layout of pip's wheels: its libraries in lib, without lib64 or targets."""
    real = Path(nvcc).parents[1]
    static = next(p for folder in ("lib64", "lib", "targets/*/lib") for p in real.glob(f"{folder}/libcudart_static.a"))
    home.mkdir()
    for name, target in (("lib", static.parent), *((n, real / n) for n in ("bin", "include", "nvvm"))):
        (home / name).symlink_to(target)
    return home


@pytest.fixture(scope="module")
def built_on_oldest(oldest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, built in place: both halves where there is nvcc."""
    sources = versions.copy_sources(tmp_path_factory.mktemp("oldest") / "sources")
    versions.build(sources, cuda=find_nvcc() is not None, PYFASTCAL_TORCH=str(oldest))
    return sources


@pytest.fixture(scope="module")
def built_on_newest(newest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, nvcc = tmp_path_factory.mktemp("newest"), find_nvcc()
    sources = versions.copy_sources(folder / "sources")
    settings = {"PYFASTCAL_TORCH": str(newest)}
    if nvcc:
        settings["CUDA_HOME"] = str(toolkit_of_wheels(nvcc, folder / "toolkit"))
    versions.build(sources, cuda=nvcc is not None, **settings)
    return sources


@pytest.mark.parametrize("there", TORCHES)
@pytest.mark.parametrize("built_on", TORCHES)
@pytest.mark.parametrize("half", ["_C", "_cuda"])
def test_a_torch_has_the_symbols(half: str, built_on: str, there: str, request: pytest.FixtureRequest):
    """All that a half asks of torch, in the libraries that it is linked to; and nothing but the stable ABI, which is C:
    a mangled name would be some at:: or c10::, which the next torch may have changed."""
    if half == "_cuda" and find_nvcc() is None:
        pytest.skip("needs nvcc")
    built, folder = (request.getfixturevalue(name) for name in (f"built_on_{built_on}", there))
    (library,) = built.glob(f"pyfastcal/{half}*.so")
    libraries = [folder / "lib" / name for name in versions.LIBRARIES[: None if half == "_cuda" else 2]]
    if not all(library.exists() for library in libraries):
        pytest.skip(f"the {there} torch that can be had is one without CUDA")
    asked = versions.asked_of_torch(library)
    assert {"torch_call_dispatcher", "torch_library_impl", "aoti_torch_library_init_impl"} <= asked
    assert {name for name in asked if not re.fullmatch(r"(aoti_)?torch_\w+", name)} == set()
    assert asked - versions.defined(*libraries) == set()


def test_symbols_that_a_torch_lacks_are_noticed(tmp_path: Path):
    """The control: a C++ name of torch's and an invented one are asked of torch, those of C, C++ and Python are not."""
    source = """
        #include <cstdio>
        #include <stdexcept>
        #include <string>
        namespace at { int mangled(); }
        extern "C" int torch_no_such_function();
        extern "C" int Py_IsInitialized();
        extern "C" int probe(const char* path) {
          if (!fopen(path, "r")) throw std::runtime_error(std::string(path));
          return at::mangled() + torch_no_such_function() + Py_IsInitialized();
        }
    """
    (tmp_path / "probe.cpp").write_text(textwrap.dedent(source))
    run("g++", "-shared", "-fPIC", "probe.cpp", "-o", "probe.so", cwd=tmp_path)
    asked = versions.asked_of_torch(tmp_path / "probe.so")
    assert asked == {"_ZN2at7mangledEv", "torch_no_such_function"}
    installed = Path(torch.__file__).parent / "lib"
    assert asked - versions.defined(installed / "libtorch_cpu.so", installed / "libc10.so") == asked


def results(sources: Path) -> dict[str, tuple[torch.Tensor, ...]]:
    """What a build's ops make of small inputs, on the installed torch."""
    code = """
        import sys, torch, pyfastcal as fc
        from scripts.gpu.ops import cases
        assert fc.build_info()["kernels"], fc.build_info()["problem"]
        print(fc.ops.extension.C.__file__)
        found = {name: call("cpu") for name, call, _ in cases()}
        # those of the CPU alone
        kernels, random = torch.ops.pyfastcal, torch.Generator().manual_seed(1)
        image, text = (torch.randn(n, 40, generator=random) for n in (9, 130))
        logits, weight = 10 * image @ text.T, torch.linspace(0.5, 1, 130)
        found["checked_confidence"] = kernels.checked_confidence(logits, weight, None)
        found["checked_knn"] = kernels.checked_knn(image, text, 5, False, True)
        found["checked_similarity_confidence"] = kernels.checked_similarity_confidence(
            image, text, 20.0, None, weight, None, True
        )
        found["scale_logits"] = (kernels.scale_logits(logits, weight, None),)
        constants = [torch.tensor(x, dtype=torch.float64) for x in (1.1, 15.0, 0.9, 1.0)]
        found["divide_logits"] = (kernels.divide_logits(logits, constants[0]),)
        two = image, text, image, text + 0.01
        found["predict_by_contrast"] = kernels.predict_by_contrast(*two, 20.0, None, False, True, *constants)
        found["scale_by_contrast"] = (kernels.scale_by_contrast(logits, logits + 1, 100.0, *constants),)
        state, edges = torch.zeros(1 + 4 * 10, dtype=torch.int64), torch.linspace(0, 1, 11)
        right = torch.arange(9) % 2 == 0
        confidence = torch.rand(9, generator=random)
        kernels.add_rows(state, confidence, right, None, None, edges, None, False, False, False, True)
        found["add_rows"] = (state,)
        torch.save(found, sys.argv[1])
    """
    file = sources.parent / "results.pt"
    imported = run(sys.executable, "-c", textwrap.dedent(code), file, cwd=sources, PYTHONPATH=str(sources)).strip()
    assert Path(imported).parent == sources / "pyfastcal"
    return torch.load(file)


def test_both_builds_give_the_same_bits(built_on_oldest: Path, built_on_newest: Path):
    ours, theirs = results(built_on_oldest), results(built_on_newest)
    schemas = (built_on_oldest / "csrc/library.cpp").read_text()
    ops = set(re.findall(r'm\.def\(\s*"(\w+)\(', schemas))
    assert ops == {re.match(r"\w+", name)[0].replace("bins", "bin_counts") for name in ours}  # none was left out
    for name, tensors in ours.items():
        for a, b in zip(tensors, theirs[name], strict=True):
            assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}")


def test_the_build_on_the_oldest_torch_passes_the_tests_of_the_ops(built_on_oldest: Path):
    """All of them, with few examples, on the torch that is installed."""
    options = ("-vv", "-m", "not gpu", "-p", "no:cacheprovider", "--hypothesis-profile=quick")
    command = (sys.executable, "-m", "pytest", *options, "tests/ops")
    out = run(*command, cwd=built_on_oldest, PYTHONPATH=str(built_on_oldest), PYTEST_ADDOPTS="")
    assert "cpu-scalar] PASSED" in out  # and not the reference path


@pytest.mark.skipif(not all(map(shutil.which, ("cmake", "ninja"))), reason="needs cmake and ninja")
def test_cmake_compiles_on_the_oldest_torch(oldest: Path, tmp_path: Path):
    """The module, where pybind11 meets torch's headers, the library of ops, and a kernel of the CUDA half."""
    options = [f"-DPYFASTCAL_TORCH={oldest}", f"-DPython_EXECUTABLE={sys.executable}", f"-DPYFASTCAL_OUTPUT={tmp_path}"]
    objects = ["_C.dir/csrc/module.cpp.o", "_C.dir/csrc/library.cpp.o"]
    if nvcc := find_nvcc():
        options += ["-DPYFASTCAL_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DPYFASTCAL_CUDA_ARCHS={versions.ARCH}"]
        objects.append("_cuda.dir/csrc/cuda/density.cu.o")
    run("cmake", "-S", ROOT, "-B", tmp_path, "-G", "Ninja", *options, cwd=tmp_path)
    run("cmake", "--build", tmp_path, "--target", *(f"CMakeFiles/{name}" for name in objects), cwd=tmp_path)
