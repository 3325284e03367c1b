"""Installations without kernels: they run, say so and why, and how to get them."""

import json
import shlex
import sys
import sysconfig
from pathlib import Path

import pytest

from scripts.checks.torch_versions import copy_sources

from .builds import Environment, attempt, build, unpack

FIRST_OPS = """
    import json, sys, warnings, torch, pyfastcal as fc
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = torch.compile(lambda x: fc.confidence(x)[0], fullgraph=True, backend="eager")
        for _ in range(2):
            compiled(torch.tensor([[1.0, 2.0, 0.5]]))
            fc.confidence(torch.tensor([[1.0, 2.0, 0.5]]))
            fc.bin_counts(torch.tensor([0.25]), torch.tensor([True]), 4)
    said = [str(w.message) for w in caught if "reference path" in str(w.message)]
    print(json.dumps([said, fc.build_info()]))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A clean copy of the source tree."""
    return copy_sources(tmp_path / "source")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "env")


def broken(source: Path) -> dict[str, str]:
    (source / "csrc/library.cpp").write_text('#include "nowhere.h"\n')
    return {}


def no_pybind11(source: Path) -> dict[str, str]:
    missing = source.parent / "missing"
    missing.mkdir()
    (missing / "pybind11.py").write_text("raise ModuleNotFoundError(\"No module named 'pybind11'\", name='pybind11')\n")
    return {"PYTHONPATH": str(missing)}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda source: {"CC": "false", "CXX": "false"}, "building it failed: false: exit code 1"),
        (lambda source: {"CC": "nowhere", "CXX": "nowhere"}, "No such file or directory: 'nowhere'"),
        (broken, "csrc/library.cpp:1:10: fatal error: nowhere.h: No such file or directory"),
        (no_pybind11, "building it failed: No module named 'pybind11'"),
        (lambda source: {"PYFASTCAL_BUILD": "skip"}, "PYFASTCAL_BUILD was skip"),
    ],
    ids=["compiler fails", "no compiler", "sources fail", "no pybind11", "skip"],
)
def test_the_reason_is_installed_and_said_once(source, environment, spoil, reason):
    settings = {"PYFASTCAL_CUDA": "0"} | spoil(source)
    environment.install(source, **settings)
    assert not list(environment.site.glob("pyfastcal/_C.*"))
    said, info = json.loads(environment.run(FIRST_OPS))
    require = "" if "skip" in reason else "PYFASTCAL_BUILD=require "
    mend = f"To build them: {require}pip install --force-reinstall --no-deps {source}"
    (warning,) = said
    assert reason in warning and warning.endswith(mend)
    assert not info["kernels"] and reason in info["problem"] and info["problem"].endswith(mend)
    shown = environment.run("import sys; sys.argv[1:] = ['info']; from pyfastcal.cli import main; main()")
    assert reason in shown and mend in shown
    if "skip" not in reason and "nowhere.h" not in reason:  # (which would take its time)
        # what it says to do stops at the reason instead of hiding it
        done = environment.pip_install(
            "--no-index", *shlex.split(mend.partition("pip install ")[2]), **settings | {"PYFASTCAL_BUILD": "require"}
        )
        assert done.returncode != 0 and reason.split(": ")[-1] in done.stderr + done.stdout


def test_a_wheel_without_kernels_is_pure(source):
    """And takes nothing along of an earlier build."""
    earlier = source / f"build/lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}/pyfastcal"
    earlier.mkdir(parents=True)
    for name in ("_C", "_cuda"):
        (earlier / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}").touch()
    wheel = build("wheel", source, source.parent / "wheel", CC="false", CXX="false", PYFASTCAL_CUDA="0")
    assert wheel.name.endswith("-py3-none-any.whl")
    site = unpack(wheel)
    assert "Root-Is-Purelib: true" in next(site.glob("*.dist-info/WHEEL")).read_text()
    assert [path.name for path in site.rglob("*") if path.suffix in (".so", ".pyd")] == []


def test_why_the_cuda_half_failed_is_kept_too(source):
    torch, cuda = source.parent / "torch", source.parent / "cuda"
    for file in (torch / "lib/libtorch_cuda.so", cuda / "include/cuda_runtime.h", cuda / "bin/nvcc"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (cuda / "bin/nvcc").write_text("#!/bin/sh\necho 'nvcc fatal   : Unsupported gpu architecture' >&2\nexit 1\n")
    (cuda / "bin/nvcc").chmod(0o755)
    settings = {"PYFASTCAL_TORCH": str(torch), "CUDA_HOME": str(cuda), "CC": "false", "CXX": "false"}
    wheel = build("wheel", source, source.parent / "wheel", **settings)
    assert wheel.name.endswith("-py3-none-any.whl")
    record = json.loads((unpack(wheel) / "pyfastcal/_build.json").read_text())
    assert record["cuda"] == "building it failed: nvcc: nvcc fatal   : Unsupported gpu architecture".replace("   ", " ")


def test_a_cuda_half_that_was_built_before_needs_no_nvcc(source):
    """And no compiler: here not even the CPU half has one."""
    name = f"pyfastcal/_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    library = source.parent / "built.so"
    settings = {"CUDA_HOME": "/nowhere", "PYFASTCAL_CUDA": "1", "PYFASTCAL_CUDA_LIBRARY": str(library)}
    settings |= {"CC": "false", "CXX": "false"}
    command = (sys.executable, "setup.py", "build_ext", "--inplace")
    done = attempt(*command, cwd=source, env=settings)
    assert done.returncode != 0 and f"No such file or directory: {str(library)!r}" in done.stderr
    library.write_bytes(b"a library")
    attempt(*command, cwd=source, env=settings)
    assert (source / name).read_bytes() == b"a library"
    assert json.loads((source / "pyfastcal/_build.json").read_text())["cuda"] == ""


def test_an_editable_installation(source, environment):
    """Fails where kernels are required; else keeps no kernels of earlier sources, and says why there are none."""
    kernels = source / f"pyfastcal/_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    kernels.touch()
    settings = {"CC": "false", "CXX": "false", "PYFASTCAL_CUDA": "0"}
    done = environment.pip_install("--no-deps", "--no-index", "-e", source, **settings | {"PYFASTCAL_BUILD": "require"})
    assert done.returncode != 0
    environment.install("-e", source, **settings)
    assert not kernels.exists()
    said, _ = json.loads(environment.run(FIRST_OPS))
    assert len(said) == 1 and "false: exit code 1" in said[0] and said[0].endswith(f"--no-deps -e {source}")


def test_kernels_that_do_not_load_are_told_from_kernels_that_are_not_there(source, environment):
    (environment.site / "tree.pth").write_text(f"{source}\n")
    read = "import pyfastcal as fc; print(fc.build_info()['problem'])"
    assert environment.run(read).startswith(f"none were built in {source / 'pyfastcal'}. To build them:")
    (source / "pyfastcal/_C.cpython-27-x86_64-linux-gnu.so").touch()
    assert environment.run(read).startswith("they were built for another Python than this")
    (source / "pyfastcal/_C.so").write_text("nonsense")
    assert "they cannot be loaded: " in environment.run(read)


def test_definitions_run_and_bad_input_is_refused(source, environment):
    environment.install(source, PYFASTCAL_BUILD="skip")
    environment.run("""
        import torch, pyfastcal as fc
        assert not fc.build_info()["cuda_kernels"]
        assert fc.build_info()["cuda_problem"] == "pyfastcal was built without kernels"
        assert fc.knn(torch.eye(3), torch.eye(3), 1)[1].flatten().tolist() == [0, 1, 2]
        assert fc.bin_counts(torch.tensor([0.25]), torch.tensor([True]), 4)[0].tolist() == [[0, 1, 0, 0]]
        try:
            fc.confidence(torch.full((1, 3), float("nan")))
        except ValueError as error:
            assert str(error).startswith("logits")
        else:
            raise AssertionError
    """)


def test_settings_that_mean_nothing_are_refused(source):
    for name in ("PYFASTCAL_BUILD", "PYFASTCAL_CUDA"):
        done = attempt(sys.executable, "setup.py", "--version", cwd=source, env={name: "requires"})
        assert done.returncode != 0 and f"{name} must be one of auto, " in done.stderr and "'requires'" in done.stderr


def test_cuda_that_is_demanded_and_not_there_is_an_error(source):
    done = attempt(
        sys.executable, "setup.py", "build_ext", cwd=source, env={"PYFASTCAL_CUDA": "1", "CUDA_HOME": "/nowhere"}
    )
    assert done.returncode != 0 and "no nvcc was found; CUDA_HOME says where it is" in done.stderr
