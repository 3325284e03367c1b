"""The public face: each room says in ``__all__`` what it offers, in its source, where tools read that run nothing."""

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest

import pyfastcal

ROOMS = (
    *("", "calibration", "cli", "clip", "clip.prompts", "clip.small", "clip.tasks", "evaluate", "experiment", "io"),
    *("metrics", "ops", "reference", "report", "shards", "stream"),
)
ROOT = Path(pyfastcal.__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.py"))]


def names_in_source(room: str) -> tuple[list[str], set[str]]:
    """``__all__`` as the source has it, and what the source binds."""
    path = Path(importlib.import_module(f"pyfastcal.{room}".rstrip(".")).__file__)
    offered, bound = [], {file.stem for file in path.parent.glob("*.py")} if path.stem == "__init__" else set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found = {target.id for target in targets if isinstance(target, ast.Name)}
            bound |= found
            if "__all__" in found:
                offered = ast.literal_eval(node.value)
    return offered, bound


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_offered_can_be_read(room):
    offered, bound = names_in_source(room)
    module = importlib.import_module(f"pyfastcal.{room}".rstrip("."))
    assert offered and len(set(offered)) == len(offered) and offered == module.__all__
    assert set(offered) <= bound
    for name in offered:
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            source = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body[0]
            assert ast.get_docstring(source), f"{room}.{name} has no docstring in its source"


def test_what_documents_import_is_offered():
    """The import paths that README, docs and examples name."""
    imported = set()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for room, names in re.findall(r"^from pyfastcal(?:\.([\w.]+))? import ([\w, ]+)", text, re.MULTILINE):
            imported |= {(room, name.strip().partition(" as ")[0]) for name in names.split(",")}
    assert len(imported) > 10
    for room, name in sorted(imported):
        module = importlib.import_module(f"pyfastcal.{room}".rstrip("."))
        assert name in module.__all__ or (not room and name in dir(module)), f"{room}: {name}"


@pytest.mark.parametrize(
    "path",
    [
        *("io.load_features", "io.save_features", "io.load_classes", "shards.find_shards", "stream.evaluate_shards"),
        *("evaluate.evaluate", "evaluate.evaluate_split", "demo.run", "experiment.run", "report.write_report"),
        *("clip.wrap", "clip.encode_images", "clip.prompts.load_published", "clip.small.files_of", "cli.main"),
        *("metrics.expected_calibration_error", "reference.knn", "ops.contrast_distance", "CalibrationMetrics"),
    ],
)
def test_paths_of_earlier_documents_stay(path):
    found = pyfastcal
    for name in path.split("."):
        found = getattr(found, name) if hasattr(found, name) else importlib.import_module(f"{found.__name__}.{name}")
    assert callable(found)
