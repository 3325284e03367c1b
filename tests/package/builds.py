"""Builds of the package from copies of its sources, and environments to install them in."""

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
BASE = Path(torch.__file__).parents[1]  # the site-packages with all that the package needs
# neither the settings of a build nor another path
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("PYFASTCAL_") and key != "PYTHONPATH"}
CLEAN["TERM"] = "dumb"


def attempt(*command: object, **options) -> subprocess.CompletedProcess[str]:
    options["env"] = CLEAN | options.pop("env", {})
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)


def run(*command: object, **options) -> str:
    done = attempt(*command, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def build(kind: str, source: Path, out: Path, **environment: str) -> Path:
    """Build a ``"wheel"`` or ``"sdist"`` as every front end does, and return it."""
    out.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    return out / run(sys.executable, "-c", code, cwd=source, env=environment).splitlines()[-1]


def unpack(wheel: Path) -> Path:
    """The folder to import a wheel from."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheel.parent / "site")
    return wheel.parent / "site"


class Environment:
    """A new virtual environment that sees the packages of the one that runs the tests (but no pyfastcal of its), or
    links to those alone that ``without`` does not name."""

    def __init__(self, folder: Path, without: tuple[str, ...] = ()) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.python = folder / "bin/python"
        (self.site,) = folder.glob("lib/python*/site-packages")
        if not without:
            # a line of a .pth file, so that the .pth files of BASE, an editable installation among them, are not read
            (self.site / "base.pth").write_text(f"{BASE}\n")
            return
        for path in BASE.iterdir():
            left_out = ("pyfastcal", "__editable__", *without)
            if not path.name.startswith(left_out) and path.suffix != ".pth":
                (self.site / path.name).symlink_to(path)

    def pip_install(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pip", "--python", self.python, "install", "--no-build-isolation"]
        return attempt(*command, *arguments, env=environment)

    def install(self, *arguments: object, **environment: str) -> None:
        done = self.pip_install("--no-deps", "--no-index", "--ignore-installed", *arguments, **environment)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def attempt(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return attempt(
            self.python, "-P" if sys.version_info >= (3, 11) else "-E", "-c", textwrap.dedent(code), *arguments
        )

    def run(self, code: str, *arguments: str) -> str:
        done = self.attempt(code, *arguments)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout
