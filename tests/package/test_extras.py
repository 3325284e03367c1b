"""The extras: which packages they bring, that they leave an installed torch alone, and that what they bring works."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from pyfastcal.installation import extras
from scripts.checks.torch_versions import copy_sources

from .builds import ROOT, Environment, build

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("extras") / "source")


def missing_extras(folder: Path) -> Environment:
    """An environment with torch, but nothing of what the extra ``demo`` brings."""
    return Environment(folder, without=("open_clip", "torchvision", "timm", "matplotlib", "scikit_learn", "sklearn"))


def test_the_table_of_extras_is_pyprojects():
    declared = re.search(r"\[project.optional-dependencies\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.S)[
        1
    ]
    listed = dict(line.split(" = ") for line in declared.splitlines() if not line.startswith("#"))
    names = {extra: set(re.findall(r'"([\w-]+)', packages)) for extra, packages in listed.items()}
    parts = re.search(r"\[(.*)\]", names and json.loads(listed["demo"])[0])[1].split(",")
    names["demo"] = set().union(*(names[part] for part in parts))
    assert {extra: set(packages) for extra, packages in extras.EXTRAS.items()} == names


def test_readmes_command_leaves_torch_as_it_is(source, tmp_path):
    """What pip would do, asked of pip and the package index."""
    environment = missing_extras(tmp_path / "env")
    (command,) = re.findall(r"^pip install '\.\[demo\]' (.*\$\(.*\).*?)(?: +#.*)?$", README, re.M)
    pin = environment.run(re.search(r"""python -c ['"](.*?)['"]\)""", command)[1]).strip()
    argument = re.sub(r"\$\(.*\)", pin, command).strip('"')
    assert argument == f"torch=={torch.__version__}"
    report = tmp_path / "report.json"
    done = environment.pip_install(
        "--dry-run", "-q", "--report", report, f"{source}[demo]", argument, PYFASTCAL_BUILD="skip"
    )
    if done.returncode and re.search(r"connection|timed out|resolve host|Temporary failure", done.stderr, re.I):
        pytest.skip("no package index")
    assert done.returncode == 0, done.stderr[-3000:]
    found = {entry["metadata"]["name"] for entry in json.loads(report.read_text())["install"]}
    assert {"pyfastcal", "open_clip_torch", "torchvision", "matplotlib", "scikit-learn"} <= found
    assert not [name for name in found if name == "torch" or name.startswith(("nvidia", "triton"))]


@pytest.mark.parametrize("how", ["folder", "editable", "wheel", "index", "tree"])
def test_the_command_is_the_one_for_how_pyfastcal_was_installed(source, tmp_path, how):
    environment = missing_extras(tmp_path / "env")
    wheel = build("wheel", source, tmp_path / "wheel", PYFASTCAL_BUILD="skip")
    if how == "tree":  # the sources on the path, never installed
        (environment.site / "tree.pth").write_text(f"{source}\n")
    else:
        arguments = {
            "folder": [source],
            "editable": ["-e", source],
            "wheel": [wheel],
            "index": ["--find-links", wheel.parent, "pyfastcal"],
        }[how]
        environment.install(*arguments, PYFASTCAL_BUILD="skip")
    what = {
        "folder": shlex.quote(f"{source}[demo]"),
        "wheel": f"'pyfastcal[demo] @ {wheel.as_uri()}'",
        "index": "'pyfastcal[demo]'",
    }.get(how, "-e " + shlex.quote(f"{source}[demo]"))
    done = environment.attempt("import sys; sys.argv[1:] = ['demo']; from pyfastcal.cli import main; main()")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    missing = "pyfastcal needs open_clip_torch, torchvision, matplotlib, scikit-learn for this: pip install"
    assert f"{missing} {what} torch=={torch.__version__}" in said


def readme_snippet() -> str:
    """README's open_clip snippet as it is written, but for the weights, which would be downloaded."""
    snippet = re.search(r"\*\*With open_clip:\*\*\n\n```python\n(.*?)```", README, re.S)[1]
    assert "import open_clip\n" in snippet
    given = "import torch\nnames, images = ['cat', 'dog'], torch.zeros(2, 3, 224, 224)\n"
    before, use, after = snippet.replace(', pretrained="openai"', "").partition("confidence, prediction = ")
    fit = (
        "import pyfastcal as fc\ntuned = zeroshot + 0.01\ndac = fc.DistanceAwareCalibration(k=1).fit(tuned, zeroshot)\n"
    )
    return f"{given}{before}{fit}{use}{after}print(confidence.shape, prediction.shape)\n"


def test_readmes_snippet_runs_in_the_environment_that_make_demo_makes(tmp_path):
    """Where torch is a CPU build and torchvision the registry's, ``make demo`` mends what makes its import fail; where
    they fit, it leaves the environment alone."""
    environment = Environment(tmp_path / "env", without=("_torchvision_without_cuda",))
    (environment.site / "tree.pth").write_text(f"{ROOT}\n")
    fits = environment.attempt("import torchvision").returncode == 0
    assert (environment.attempt("import open_clip").returncode == 0) == fits
    makefile = (ROOT / "Makefile").read_text()
    (script,) = re.findall(r"^\t\$\(BIN\)/python (pyfastcal/\S+)$", makefile, re.M)
    for _ in range(2):  # it may run again
        environment.run("import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')", str(ROOT / script))
        written = list(environment.site.glob("_torchvision_without_cuda.*"))
        assert len(written) == (0 if fits else 2)
    environment.run("import open_clip, timm")
    assert environment.run(readme_snippet()).split() == ["torch.Size([2])", "torch.Size([2])"]
    if not fits:  # what needs the compiled part says so
        nms = "import torch, torchvision; torchvision.ops.nms(torch.rand(3, 4), torch.rand(3), 0.5)"
        assert "Couldn't load custom C++ ops" in environment.attempt(nms).stderr


def test_pyfastcal_first_is_enough_in_any_environment(tmp_path):
    environment = Environment(tmp_path / "env", without=("_torchvision_without_cuda",))
    (environment.site / "tree.pth").write_text(f"{ROOT}\n")
    environment.run("import pyfastcal, open_clip, timm, torchmetrics; open_clip.get_tokenizer('ViT-B-32')")
    # other errors of torchvision's import stay what they are
    broken = environment.site / "torchvision"
    broken.unlink()
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('something else')\n")
    done = environment.attempt("import pyfastcal, open_clip")
    assert done.returncode and done.stderr.strip().endswith("RuntimeError: something else")
