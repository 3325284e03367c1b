"""The command line as a whole: usage, help, entry points, and what it says without the optional packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pyfastcal.cli import app
from pyfastcal.installation.commands import with_extra
from tests.command import invoke


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "none"), "--debug"])
    assert result.exit_code == 1 and isinstance(result.exception, ValueError)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate"], "Missing argument"),
        (["evaluate", "x", "--methods", "conf,magic"], "got 'magic'"),
        (["evaluate", "x", "--methods", ","], "at least one"),
        (["evaluate", "x", "--n-bins", "0"], "greater than or equal to 1"),
        (["demo", "--task", "cats"], "digits, shapes"),
        (["demo", "--seeds", "0"], "greater than or equal to 1"),
        (["extract", "x", "y"], "--model"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], words: str) -> None:
    assert words in invoke(*arguments, code=2).stderr


@pytest.mark.parametrize("name", ["demo", "evaluate", "extract", "info"])
def test_help(name: str) -> None:
    text = invoke(name, "--help").stdout
    assert "Usage: pyfastcal" in text or "Usage: root" in text
    assert name == "info" or f"pyfastcal {name} " in text.split("Options")[0]  # examples


def python(*arguments: object, hide: str = "") -> subprocess.CompletedProcess:
    """A process of its own, in which the packages ``hide`` cannot be imported."""
    code = (
        "import sys\n"
        f"for name in {hide.split()!r}: sys.modules[name] = None\n"
        f"sys.argv = ['pyfastcal', *{[str(a) for a in arguments]!r}]\n"
        "from pyfastcal.cli import main\nmain()"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


def test_without_the_optional_packages(files: tuple[Path, Path], tmp_path: Path) -> None:
    hidden = "matplotlib open_clip torchvision sklearn PIL torchmetrics"
    done = python("evaluate", files[0], "--base", files[1], hide=hidden)
    assert done.returncode == 0 and "DAC" in done.stdout, done.stderr
    assert "new: calibrate and measure: 4 in" in done.stderr  # plain progress, no control characters
    assert "\x1b" not in done.stderr + done.stdout
    done = python("evaluate", files[0], "--report", tmp_path / "r.html", hide=hidden)
    assert done.returncode == 1 and done.stdout == "" and not (tmp_path / "r.html").exists()
    assert f"needs matplotlib for this: {with_extra('report')}" in done.stderr.replace("\n", "")


def test_module_entry_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "pyfastcal", "--version"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("pyfastcal ") and done.stderr == ""
