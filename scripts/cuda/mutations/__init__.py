"""Seeded bugs, one list per kernel, each a small change of a source, written as ``diff`` shows one:

    tests: test_bins

    == bins.cuh ==

    too few parts
    survives: they are crowded: a search
    - n_bins <= 16 ? 16 :
    + n_bins <= 20 ? 16 :

    no barrier between clearing and finding crowded parts
      parts.crowded = 0;
    -     __syncthreads();

``tests``: the test programs that should notice; below a mutation's name, those of this one. ``==``: the file that the
following change, from csrc/cuda. ``survives``: why no test can notice it, where that is so. After two spaces stands
what stays. The old text need not be whole lines, but it occurs exactly once in its file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str  # from csrc/cuda
    old: str  # occurs exactly once in it
    new: str
    tests: tuple[str, ...]
    survives: str = ""  # why no test can notice it, where that is so


def kernels() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def read(kernel: str) -> Iterator[Mutation]:
    """The mutations of a list, in its order."""
    first, *blocks = (FOLDER / f"{kernel}.txt").read_text().strip().split("\n\n")
    file, of_all = "", first.removeprefix("tests: ")
    for block in blocks:
        name, *lines = block.split("\n")
        if name.startswith("== "):
            file = name.strip("= ")
            continue
        said = dict(line.split(": ", 1) for line in lines if line.startswith(("survives: ", "tests: ")))
        code = lines[len(said) :]
        if not code or any(line[:2] not in ("- ", "+ ", "  ") for line in code):
            raise ValueError(f"{kernel}.txt: {name!r} must have lines that begin with '- ', '+ ' or two spaces")
        old, new = ("\n".join(line[2:] for line in code if line[0] in (mark, " ")) for mark in "-+")
        yield Mutation(name, file, old, new, tuple(said.get("tests", of_all).split()), said.get("survives", ""))
