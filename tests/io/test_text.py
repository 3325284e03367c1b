"""Text from files and shells is shown and never obeyed: no markup, no control characters, on any terminal, page or
figure, in any encoding."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyfastcal.evaluate import evaluate_split
from pyfastcal.io import load_features
from pyfastcal.io.text import counted, printable
from pyfastcal.report import Report, Run, write_picture
from pyfastcal.report.terminal import Terminal
from tests.command import error_of, feature_files, invoke, process

NAMES = ["$a_b$", r"\frac{", "nul\0", "esc\x1b[31m", "half\ud800", '#010101" id="x" <b>&']
SHOWN = ["$a_b$", r"\frac{", r"nul\x00", r"esc\x1b[31m", r"half\ud800", '#010101" id="x" <b>&']
ODD = ("[red]a", "[bold", "x\x1b]0;title\x07y", "tab\t")


def controls(text: str) -> list[str]:
    return re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_printable() -> None:
    assert [printable(name) for name in NAMES] == SHOWN
    assert printable("Käse · 猫 👩‍🔬 −1") == "Käse · 猫 👩‍🔬 −1"
    assert printable("a\nb\x9b\u202e\ufffe\x7f") == r"a\nb\x9b\u202e\ufffe\x7f"
    assert [counted(n, "task") for n in (0, 1, 2, 1000)] == ["0 tasks", "1 task", "2 tasks", "1,000 tasks"]
    assert [counted(n, "class") for n in (1, 2)] == ["1 class", "2 classes"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("terminal", [False, True])
def test_names_of_files_are_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, terminal) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    new, base = feature_files(tmp_path)
    odd, page = new.rename(tmp_path / f"{name}.safetensors"), tmp_path / "page.html"
    done = invoke("evaluate", odd, "--base", base, "--methods", "conf,dac", "--report", page)
    assert ("\x1b[" in done.stderr) == terminal
    split = printable(odd.stem)
    out, err = (re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text) for text in (done.stdout, done.stderr))  # the terminal's own
    assert f"{split}, % (one run)" in out and f"DAC on {split}: " in out and f"{split}: calibrate" in err
    assert not controls(out) and "title\x07" not in err
    assert split in page.read_text()


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    """The library that reads feature files cannot open them."""
    new, _ = feature_files(tmp_path)
    line = error_of("evaluate", new.rename(tmp_path / os.fsdecode(b"half\xff.safetensors")))
    assert r"half\udcff.safetensors: not a complete safetensors file" in line


def test_paths_are_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits of the same stem are called by their paths."""
    monkeypatch.chdir(tmp_path)
    new, base = feature_files(tmp_path)
    for folder in ("d[", "e["):
        Path(folder).mkdir()
        save_file(load_file(new), f"{folder}/x].safetensors")
    paths = "d[/x].safetensors", "e[/x].safetensors"
    done = invoke("evaluate", *paths, "--base", base, "--methods", "conf")
    assert all(f"{path}, % (one run)" in done.stdout for path in paths)
    done = invoke("evaluate", *paths, "--shards", "--base", base, "--methods", "conf")
    assert "d[/x].safetensors and 1 more, % (one run)" in done.stdout


def test_names_of_classes_are_drawn_as_they_are(tmp_path: Path) -> None:
    new, base = feature_files(tmp_path, classnames=NAMES)
    page = tmp_path / "page.html"
    invoke("evaluate", new, "--base", base, "--methods", "conf,dac", "--report", page)
    html = page.read_text(encoding="utf-8")
    assert not controls(html)
    drawings = [ET.fromstring(x) for x in re.findall(r"<svg.*?</svg>", html, flags=re.S)]
    gamma = next(drawing for drawing in drawings if "gamma" in drawing.attrib["aria-label"])
    assert {text for text in gamma.itertext() if text.strip()} >= set(SHOWN)


def test_a_title_in_a_picture(tmp_path: Path) -> None:
    new, base = map(load_features, feature_files(tmp_path, classnames=NAMES))
    run = Run("", (evaluate_split(new, base, ("conf",), split=r"$\frac{\0"),))
    written = write_picture(tmp_path / "p.png", Report("$x_{\0\x1b", [run]))
    assert written.read_bytes().startswith(b"\x89PNG")


def test_keys_and_columns_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    save_file({"\x1b]0;title\x07": torch.ones(1), "[/x]": torch.ones(1)}, tmp_path / "f.safetensors")
    line = error_of("evaluate", tmp_path / "f.safetensors")
    assert not controls(line) and r"\x1b]0;title\x07" in line and "[/x]" in line


def test_notes_of_shards_that_were_skipped(tmp_path: Path) -> None:
    new, base = feature_files(tmp_path)
    folder = tmp_path / "shards\x1b[31m[bold]"
    folder.mkdir()
    save_file(load_file(new), folder / "a.safetensors")
    save_file({"[/b]\x1b": torch.ones(1)}, folder / "b.safetensors")
    page = tmp_path / "page.html"
    done = invoke("evaluate", folder, "--base", base, "--methods", "conf", "--skip-bad", "--report", page)
    assert not controls(done.stdout) and r"keys in the file: [/b]\x1b)" in " ".join(done.stdout.split())
    assert not controls(page.read_text())


def test_tables_on_a_terminal(capsys: pytest.CaptureFixture) -> None:
    terminal = Terminal(100)
    terminal.table("[/title]", ["", "[/head]"], [("[/row]\x1b", ["[/cell] ± 1"])], wrap=True)
    terminal.say("[/said]\0")
    words = capsys.readouterr().out.split()
    assert [word for word in words if "[" in word] == [
        "[/title]", "[/head]", r"[/row]\x1b", "[/cell]±1", r"[/said]\x00"
    ]  # fmt: skip


# Encodings and readers of stdout.


def test_errors_in_any_encoding(tmp_path: Path) -> None:
    done = process("evaluate", tmp_path / "ü→", variables={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1 and done.stderr.endswith(b"\\xfc->: no such file\n")


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0"},
    ],
)
def test_any_encoding(tmp_path: Path, variables: dict[str, str]) -> None:
    new, base = feature_files(tmp_path, classnames=["猫"] * 6)
    odd = new.rename(tmp_path / "猫.safetensors")
    out = tmp_path / "o.json"
    done = process("evaluate", odd, "--base", base, "--methods", "conf,dac", "--json", out, variables=variables)
    assert done.returncode == 0, done.stderr
    assert re.search(rb"DAC on .*: ECE [\d.]+ (->|\xe2\x86\x92) [\d.]+ %", done.stdout), done.stdout
    assert b"Traceback" not in done.stderr and json.loads(out.read_text())["title"] == "Calibration"


@pytest.mark.parametrize("arguments", [("info",), ("evaluate", "new.safetensors")])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_who_leaves_hears_nothing(tmp_path: Path, arguments: tuple[str, ...], buffered: bool) -> None:
    """``pyfastcal info | head``: the pipe is closed before anything is written."""
    feature_files(tmp_path)
    words = [str(tmp_path / word) if word.endswith(".safetensors") else word for word in arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1", "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    with subprocess.Popen([sys.executable, "-m", "pyfastcal", *words], **options) as running:
        running.stdout.close()
        stderr = running.stderr.read().decode()
        running.wait(timeout=120)
    assert [line for line in stderr.splitlines() if "calibrate and measure" not in line] == []
    assert running.returncode in (0, 1)


def test_without_stdout() -> None:
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m pyfastcal info >&-"], stderr=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout(unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        done = process("info", stdout=full, variables={"PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 1 and done.stderr == b"pyfastcal: stdout: No space left on device\n"
