"""docs/tour.md and docs/architecture.md name what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOPS = ("pyfastcal", "csrc", "tests", "scripts", "benchmarks")
BUILD = ("setup.py", "CMakeLists.txt")
STEP = re.compile(r"^\| \[[^]]+\]\(\.\./([^)]+)\) \| `(.+?)` \|", re.MULTILINE)
STEPS = STEP.findall((DOCS / "tour.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "line"), STEPS, ids=[file for file, _ in STEPS])
def test_each_line_to_look_at_is_there_once(file: str, line: str) -> None:
    assert (ROOT / file).read_text(encoding="utf-8").count(line) == 1


def test_the_tour_goes_through_both_halves() -> None:
    files = [file for file, _ in STEPS]
    assert len(files) > 20
    for folder in ("pyfastcal/ops", "csrc/cpu", "csrc/cuda", "pyfastcal/metrics", "pyfastcal/report"):
        assert any(file.startswith(folder) for file in files), folder


@pytest.mark.parametrize("page", [*sorted(path.name for path in DOCS.glob("*.md")), "../README.md"])
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://)([^)#\s]+)(?:#[\w-]+)?\)", text)
    assert [link for link in links if not (DOCS / page).parent.joinpath(link).exists()] == []


def test_architecture_names_what_is_there() -> None:
    """Every path in backquotes; those that hold NAME or X stand for any."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./]+/[\w./]*|\w+\.(?:py|cpp|h|cu|cuh|txt))`", text))
    named = {path for path in named if not re.search(r"NAME|\bX\b", path)}
    files = {str(path.relative_to(ROOT)) for top in TOPS for path in (ROOT / top).rglob("*")} | {*TOPS, *BUILD}
    assert len(named) > 60
    # by its whole path, or by the end of one within its room
    ends = {path: f"/{path.rstrip('/')}" for path in named - {"pyfastcal/_build.json"}}  # (which a build makes)
    assert {path for path, end in ends.items() if not any(f"/{file}".endswith(end) for file in files)} == set()
