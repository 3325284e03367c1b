"""Files by their names: outputs replace nothing that they should not, and nothing but regular files is read."""

import json
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pyfastcal.io import load_features, save_features
from pyfastcal.io.paths import atomic_write, check_outputs, regular, write_text
from tests.command import error_of, feature_files, invoke, process, shards_of


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return feature_files(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--json new.safetensors", "--json must not overwrite the input"),
        ("--json ./shards/../new.safetensors", "--json must not overwrite the input"),
        ("--report link", "--report must not overwrite the input"),
        ("--json hard", "--json must not overwrite the input"),
        ("--json base.safetensors", "--json must not overwrite the input"),
        ("--json classes.safetensors --classes classes.safetensors", "--json must not overwrite the input"),
        ("shards --json shards/part1.safetensors", "--json must not overwrite the input"),
        ("--json out --report ./out", "--json must not overwrite the file of --report"),
        ("--json out --report dangling", "--json must not overwrite the file of --report"),
        ("--json merged.safetensors --checkpoint .", "--json must not overwrite the file of --checkpoint"),
        ("--json shards", "--json must be a file, got the folder"),
        ("--report new.safetensors/r.html", "--report must be in a folder"),
    ],
)
def test_outputs_that_would_overwrite(files, tmp_path: Path, monkeypatch, options: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    shards_of(files[0], tmp_path / "shards")
    (tmp_path / "link").symlink_to(files[0])
    (tmp_path / "dangling").symlink_to("out")
    os.link(files[0], tmp_path / "hard")
    save_file({"text_features": torch.eye(6, 16), "logit_scale": torch.tensor(1.0)}, "classes.safetensors")
    split = [] if options.startswith("shards") else ["new.safetensors"]
    before = contents(tmp_path)
    assert message in error_of("evaluate", *split, "--base", "base.safetensors", "--methods", "conf", *options.split())
    assert contents(tmp_path) == before


def test_the_demo_is_refused_before_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "animals.json"
    line = error_of("demo", "--out", tmp_path, "--picture", out)
    assert "animals.json of --out must not overwrite the file of --picture" in line
    assert not list(tmp_path.iterdir())
    out.touch()
    assert "animals.html of --out must be in a folder" in error_of("demo", "--out", out)


def test_results_do_not_go_into_the_images(tmp_path: Path) -> None:
    arguments = ["experiment", "--data", tmp_path, "--model", "pyfastcal/digits", "--out", tmp_path / "results"]
    assert "must not be in the folder of the images" in invoke(*arguments, code=2).stderr
    assert not list(tmp_path.iterdir())


def test_extract_overwrites_no_input(tmp_path: Path) -> None:
    names, image = tmp_path / "names.txt", tmp_path / "photos" / "cat" / "a.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"an image")
    names.write_text("cat")
    options = "--model", "pyfastcal/digits", "--classes", names
    for out in (names, image):
        assert "OUT must not overwrite the input" in error_of("extract", tmp_path / "photos", out, *options)
    assert names.read_text() == "cat" and image.read_bytes() == b"an image"


def test_what_is_no_regular_file_is_written_to(files, tmp_path: Path) -> None:
    """A FIFO and a link to a device stay what they are."""
    fifo, null = tmp_path / "fifo", tmp_path / "null"
    os.mkfifo(fifo)
    null.symlink_to(os.devnull)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()), daemon=True)
    reader.start()
    invoke("evaluate", files[0], "--methods", "conf", "--json", fifo, "--report", null)
    reader.join(20)
    assert json.loads(read[0])["runs"][0]["rows"][0]["method"] == "conf"
    assert stat.S_ISFIFO(fifo.stat().st_mode) and null.is_symlink() and stat.S_ISCHR(null.stat().st_mode)
    invoke("evaluate", files[0], "--methods", "conf", "--json", null, "--report", null)


@pytest.mark.parametrize("piped", [True, False])
def test_json_to_stdout(files, tmp_path: Path, piped: bool) -> None:
    """Where stdout is a file, too, which a file of that name would replace."""
    link, out = tmp_path / "link", tmp_path / "out.txt"
    link.symlink_to("/dev/stdout")
    with out.open("wb") as file:
        redirected = {} if piped else {"stdout": file}
        done = process("evaluate", files[0], "--methods", "conf", "--json", link, **redirected)
    assert done.returncode == 0 and link.is_symlink()
    printed = (done.stdout if piped else out.read_bytes()).decode()
    found, end = json.JSONDecoder().raw_decode(printed)
    assert found["title"] == "Calibration" and "Written:" in printed[end:]


def test_links_stay_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "latest"
    link.symlink_to("real/file.txt")
    for text in ("one", "two"):
        assert write_text(link, text) == link
        assert link.is_symlink() and (tmp_path / "real" / "file.txt").read_text() == text
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["file.txt"]


def test_a_full_disk_names_the_file(files, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    for option in ("--json", "--report"):
        done = invoke("evaluate", files[0], "--methods", "conf", option, full, code=1)
        assert done.stdout == "" and done.stderr.splitlines()[-1] == f"pyfastcal: {full}: No space left on device"


def test_a_disk_that_fills_names_the_file(files, tmp_path: Path) -> None:
    """The writer of safetensors has errors of its own."""
    features, limits = load_features(files[0]), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_features(tmp_path / "out" / "f.safetensors", features)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "out" / "f.safetensors")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="is a folder"):
        atomic_write(tmp_path, lambda name: Path(name).write_text("x"))
    with pytest.raises(ValueError, match="--json must be a file, got the folder"):
        check_outputs({"--json": tmp_path})


def test_regular(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "ring").symlink_to("ring")
    (tmp_path / "dangling").symlink_to("none")
    (tmp_path / "file").touch()
    assert regular(tmp_path / "file") == str(tmp_path / "file")
    for name, message in {
        "fifo": "is a FIFO, not a regular file",
        "dangling": "no such file",
        "file/below": "no such file",
        "": "is a folder, not a file",
        "ring": "Too many levels",
        "nul\0": "embedded null",
    }.items():
        path = f"{tmp_path}/{name}"
        with pytest.raises(ValueError) as caught:
            regular(path)
        assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    with pytest.raises(ValueError, match="is a device"):
        regular("/dev/null")


CHILD = """
import json, sys
from typer.testing import CliRunner
from pyfastcal.cli import app
for line in sys.stdin:
    done = CliRunner().invoke(app, json.loads(line))
    print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
"""


def test_no_fifo_is_waited_for(files, tmp_path: Path) -> None:
    """In a process of its own: one that waits in a library's open cannot be interrupted."""
    from PIL import Image

    new, base = files
    shards, other = shards_of(new, tmp_path / "shards"), tmp_path / "other"
    (other / "img_emb").mkdir(parents=True)
    (other / "metadata").mkdir()
    (tmp_path / "kept").mkdir()
    photos = tmp_path / "photos" / "digit_one"
    photos.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(photos / "good.png")
    fifos = [tmp_path / "a.safetensors", tmp_path / "features_a.pt", tmp_path / "names.txt", photos / "bad.png"]
    fifos += [shards / "apart.safetensors", other / "img_emb" / "img_emb_0.npy", tmp_path / "kept/merged.safetensors"]
    for fifo in fifos:
        os.mkfifo(fifo)
    fifo = fifos[0]
    on = ["--base", base, "--methods", "conf"]
    out = ["--model", "pyfastcal/digits", "--template", "a photo of the {}."]
    extract = ["extract", tmp_path / "photos", tmp_path / "out", *out]
    calls = [
        ["evaluate", fifo],
        ["evaluate", new, "--base", fifo],
        ["evaluate", new, "--classes", fifo],
        ["evaluate", fifos[1], "--classes", new, *on],
        ["evaluate", other, "--classes", new, *on],
        ["evaluate", shards, "--classes", new, *on],
        ["evaluate", new, "--checkpoint", tmp_path / "kept", *on],
        [*extract, "--text-features", fifo],
        ["extract", tmp_path / "photos", tmp_path / "out", "--model", "ViT-B-32", "--pretrained", fifo],
        [*extract, "--text-features", fifos[1].rename(tmp_path / "model.pth.tar-5")],
        [*extract, "--classes", fifos[2]],
        ["experiment", "--out", tmp_path / "x", "--data", photos, "--model", "m", "--base-classes", fifos[2]],
        extract,
        [*extract, "--skip-bad"],
        ["evaluate", shards, *on, "--skip-bad"],  # the first one in the folder
    ]
    os.mkfifo(tmp_path / "features_a.pt")
    lines = "".join(json.dumps([str(word) for word in call]) + "\n" for call in calls)
    done = subprocess.run([sys.executable, "-c", CHILD], input=lines, capture_output=True, text=True, timeout=120)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(calls), done.stderr
    for call, (code, stdout, stderr) in zip(calls[:-2], results, strict=False):
        assert code == 1 and stdout == "" and "is a FIFO, not a regular file" in stderr.splitlines()[-1], call
    for call, (code, stdout, stderr) in zip(calls[-2:], results[-2:], strict=True):
        assert code == 0 and "is a FIFO" in stdout + stderr, (call, stderr)
    assert "Without 1 image that could not be read" in results[-2][2]
    assert "without 1 shard that could not be read" in results[-1][1]
