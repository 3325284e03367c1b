"""Builds on several torches, each in an environment of its own, and runs the tests of the ops with every build on every
one of them: the proof that one binary serves them all.

    python -m scripts.checks.torch_versions [--folder build/torch_versions] [--cuda] [versions ...]

Default: the oldest torch that pyfastcal supports and the newest that pip finds. Some gigabytes are downloaded. The test
suite takes from here what it can do without whole environments: a torch's headers and libraries, kept in the user's
cache, a build against them, and what a built binary asks of its torch.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from scripts import ROOT
from scripts.cuda.check import find_nvcc

OLDEST = re.search(r'TORCH_TARGET = "(.*)"', (ROOT / "setup.py").read_text())[1] + ".0"
LIBRARIES = ("libc10.so", "libtorch_cpu.so", "libtorch_cuda.so")  # what the extension is linked to
ARCH = "sm_80"  # the CUDA half is built for one, the quickest to build: which one matters to no header
# what the tests of the ops need beside torch, of requirements-dev.txt
NEEDED = ("numpy", "pybind11", "ninja", "wheel", "safetensors", "typer", "rich", "pytest", "hypothesis", "statsmodels")


class UnavailableError(Exception):
    """Why a torch cannot be had."""


def pip(*arguments: object) -> str:
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--no-cache-dir", "--retries=1"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line]
        raise UnavailableError(errors[-1] if errors else done.stderr[-300:])
    return done.stdout


def newest_version() -> str:
    """That pip finds."""
    report = json.loads(pip("install", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", "torch"))
    return report["install"][0]["metadata"]["version"]


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyfastcal/torch"


def fetch(version: str) -> Path:
    """The folder of this torch, with nothing in it but include and the libraries; about 1 GB with CUDA."""
    kept = cache() / version
    if not kept.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache(), prefix="unfinished-") as folder:
            pip("download", "--no-deps", "--only-binary=:all:", "--dest", folder, f"torch=={version}")
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.startswith("torch/include/") or name in [f"torch/lib/{x}" for x in LIBRARIES]:
                        archive.extract(name, folder)
            try:
                (Path(folder) / "torch").rename(kept)
            except OSError:  # another process was faster
                if not kept.exists():
                    raise
    return kept


def fetch_newest() -> Path:
    """The one that pip finds, or was kept where pip finds none; earlier ones are deleted."""
    kept = [folder for folder in cache().glob("[0-9]*") if folder.name != OLDEST]
    try:
        newest = fetch(newest_version())
    except UnavailableError:
        if not kept:
            raise
        return kept[0]
    for folder in kept:
        if folder != newest:
            shutil.rmtree(folder, ignore_errors=True)
    return newest


def copy_sources(folder: Path) -> Path:
    leave = shutil.ignore_patterns(".*", "build", "dist", "out", "*.so", "*.egg-info", "__pycache__")
    return Path(shutil.copytree(ROOT, folder, ignore=leave))


def build(sources: Path, *, python: Path | str = sys.executable, cuda: bool = False, **settings: str) -> None:
    """Builds in a copy of the sources, in place; ``settings`` are setup.py's."""
    settings = dict(PYFASTCAL_CUDA=str(int(cuda)), PYFASTCAL_CUDA_ARCHS=ARCH) | settings
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYFASTCAL_")} | settings
    command = [str(python), "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(
        command, cwd=sources, env=environment | {"PYFASTCAL_BUILD": "require"}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the build failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def nm(library: Path, which: str) -> list[tuple[str, str]]:
    """Kind and name of a library's dynamic symbols; names with the version, where they have one."""
    command = ["nm", "-D", f"--{which}-only", str(library)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(line.split()[-2], line.split()[-1]) for line in lines]


def defined(*libraries: Path) -> set[str]:
    return {name.partition("@")[0] for library in libraries for _, name in nm(library, "defined")}


def asked_of_torch(library: Path) -> set[str]:
    """The symbols that a built half leaves to torch. Not among them: the system's, which have a version; the C++
    library's without one, since torch's libraries define a few of those too; Python's; and what may stay undefined."""
    gcc = ["g++", "-print-file-name=libstdc++.so.6"]
    cpp = defined(Path(subprocess.run(gcc, capture_output=True, text=True, check=True).stdout.strip()))
    names = {name for kind, name in nm(library, "undefined") if kind == "U" and "@" not in name}
    return {name for name in names - cpp if not re.match("_?Py", name)}


def make_environment(folder: Path, version: str) -> Path:
    """A Python with this torch and what the tests of the ops need."""
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    lines = [
        line for path in ("requirements.txt", "requirements-dev.txt") for line in (ROOT / path).read_text().split()
    ]
    pins = [line for line in lines if line.partition("==")[0] in NEEDED]
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", f"torch=={version}"]
    subprocess.run([*install, *pins, "setuptools>=77"], check=True)
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build/torch_versions", help="for environments and builds"
    )
    parser.add_argument("--cuda", action="store_true", help="build the CUDA half too, and load it")
    parser.add_argument("--tests", nargs="+", default=["tests/ops"])
    options = parser.parse_args()
    if options.cuda and find_nvcc() is None:
        parser.error("--cuda needs nvcc: set CUDA_HOME")
    folder = options.folder.resolve()
    versions = options.versions or [OLDEST, newest_version()]
    pythons = {version: make_environment(folder / f"python-{version}", version) for version in versions}
    for version, python in pythons.items():
        shutil.rmtree(folder / version, ignore_errors=True)
        build(copy_sources(folder / version), python=python, cuda=options.cuda)
    code = (
        "import pyfastcal as fc; i = fc.build_info(); "
        'print(f\'{fc.__file__}: kernels {i["kernels"]}; CUDA: {i["cuda_problem"] or "works"}\')'
    )
    failed = 0
    for built in versions:
        for version, python in pythons.items():
            print(f"\nbuilt on {built}, run on {version}", flush=True)
            subprocess.run([str(python), "-c", code], cwd=folder / built, check=True)
            tests = [str(python), "-m", "pytest", "-p", "no:cacheprovider", *options.tests]
            failed += subprocess.run([*tests, "-W", "ignore"], cwd=folder / built).returncode != 0
    print(f"\n{failed} of {len(versions) ** 2} runs failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
