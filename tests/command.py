"""The command line as tests call it, in this process or in one of its own, and feature files to call it with."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize
from typer.testing import CliRunner

from pyfastcal.cli import app
from pyfastcal.io import FeatureSet, load_features, save_features


def invoke(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "120"})
    assert result.exit_code == code, result.output
    return result


def error_of(*arguments: object, code: int = 1) -> str:
    """The one line on stderr; nothing on stdout."""
    result = invoke(*arguments, code=code)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
    return result.stderr


def process(*arguments: object, variables: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess:
    """``python -m pyfastcal`` for real; what it prints as bytes."""
    command = [sys.executable, "-m", "pyfastcal", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | (variables or {})
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 120} | options
    return subprocess.run(command, env=environment, **options)


def feature_files(folder: Path, **changed: Any) -> tuple[Path, Path]:
    """A new and a base feature file."""
    g = torch.Generator().manual_seed(0)
    zeroshot = normalize(torch.randn(1, 16, generator=g) + torch.randn(12, 16, generator=g), dim=-1)
    tuned = normalize(zeroshot + 0.1 * torch.randn(12, 16, generator=g), dim=-1)
    paths = []
    for name, first in (("new", 6), ("base", 0)):
        labels = torch.randint(0, 6, (150,), generator=g)
        images = zeroshot[first + labels] + 0.2 * torch.randn(150, 16, generator=g)
        rows = slice(first, first + 6)
        features = FeatureSet(images, tuned[rows], labels, 30.0, zeroshot[rows], **changed)
        paths.append(save_features(folder / f"{name}.safetensors", features))
    return paths[0], paths[1]


def shards_of(file: Path, folder: Path) -> Path:
    """The images of a feature file in three shards, the classes in the first one alone."""
    features = load_features(file)
    folder.mkdir()
    for i, rows in enumerate((slice(0, 70), slice(70, 71), slice(71, None))):
        part = {"image_features": features.image_features[rows], "labels": features.labels[rows]}
        if not i:
            part |= {key: getattr(features, key) for key in ("text_features", "zeroshot_text_features")}
            part["logit_scale"] = torch.tensor(features.logit_scale)
        save_file(part, folder / f"part{i}.safetensors")
    return folder
