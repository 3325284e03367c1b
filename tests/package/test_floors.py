"""The floors of the package: a file imports from its own room and from rooms below, and no files import in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "pyfastcal"
FLOORS = (  # from the ground; rooms of one floor know nothing of each other
    {"arguments", "installation"},
    {"io", "reference"},
    {"ops"},
    {"calibration"},
    {"metrics"},
    {"evaluate"},
    {"report"},
    {"experiment"},
    {"cli"},
    {"__main__", "shards", "stream"},  # doors: the program, and the import paths that documents gave first
    {""},  # the package's face
)
BELOW = {room: set().union(*FLOORS[:floor]) for floor, rooms in enumerate(FLOORS) for room in rooms}
BELOW["clip"] = {"arguments", "installation", "io", "ops", "calibration", "metrics"}  # beside the rest:
for knows_clip in ("experiment", "cli", ""):
    BELOW[knows_clip].add("clip")
EXCEPTIONS: dict[tuple[str, str], str] = {}  # (file, what it imports): the reason


def graph_of(package: Path) -> dict[str, set[str]]:
    """By file the files of the package that it imports, in functions and for type checkers too."""
    files = {}
    for file in package.rglob("*.py"):
        files[".".join(file.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")] = file
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        room = name if file.stem == "__init__" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            imported = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                origin = resolve_name("." * node.level + (node.module or ""), room)
                imported = [f"{origin}.{one}" for one in imported]
            for other in imported:
                while other and other not in files:  # a name in a file is not one itself
                    other = other.rpartition(".")[0]
                graph[name] |= {other} - {name, ""}
    return graph


def room_of(file: str) -> str:
    return file.partition(".")[2].partition(".")[0]


def too_high(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    edges = [(file, other) for file, others in sorted(graph.items()) for other in sorted(others)]
    return [(a, b) for a, b in edges if room_of(a) != room_of(b) and room_of(b) not in BELOW[room_of(a)]]


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_file_imports_from_a_floor_above():
    graph = graph_of(PACKAGE)
    assert set(map(room_of, graph)) == BELOW.keys()
    found = set(too_high(graph))
    assert found - EXCEPTIONS.keys() == set()
    assert EXCEPTIONS.keys() - found == set(), "exceptions that nothing needs any more"


def test_no_files_import_each_other_in_a_circle():
    assert circle(graph_of(PACKAGE)) == []


def test_what_breaks_the_rules_is_found(tmp_path):
    house = {
        "__init__.py": "import os\nfrom . import io, ops",
        "arguments/checks.py": "def check():\n    from ..ops.knn import knn",
        "io/__init__.py": "from .paths import regular",
        "io/paths.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import text",
        "io/text.py": "import house.io.paths\nfrom house import reference",
        "ops/__init__.py": "from ..arguments import checks as c",
        "ops/knn.py": "from . import extension, knn",
        "reference.py": "",
        "evaluate.py": "from .clip import small",
        "clip.py": "",
    }
    for name, text in house.items():
        (tmp_path / "house" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "house" / name).write_text(text)
    graph = graph_of(tmp_path / "house")
    assert graph["house"] == {"house.io", "house.ops"} and graph["house.ops.knn"] == {"house.ops"}
    assert too_high(graph) == [
        ("house.arguments.checks", "house.ops.knn"),
        ("house.evaluate", "house.clip"),
        ("house.io.text", "house.reference"),
    ]
    assert set(circle({name: graph[name] for name in graph if ".io" in name})) == {"house.io.paths", "house.io.text"}
    across = {"house.arguments.checks", "house.ops.knn", "house.ops"}
    assert set(circle({name: graph[name] for name in across})) == across
