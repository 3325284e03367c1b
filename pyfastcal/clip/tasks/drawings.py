"""Eleven tasks of pictures that people drew, with the names that people gave them: emoji and icons of many sets.

A class has drawings by three to six hands that the CLIPs "drawings" never saw of it. Each image is one of them on a
canvas, in a domain (``TARGET``) shifted from what the CLIPs were pre-trained on. ``sheets/`` holds the drawings;
its NOTICE.md says whose they are and under which licences. docs/drawings.md lists the classes."""

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...arguments import checks
from ...installation.extras import require
from .canvas import CANVAS_SIZE, Domain, paint
from .images import Split, normalize
from .task import Task

NAMES = (
    "animals",
    "plants-weather",
    "food-drink",
    "transport",
    "buildings-places",
    "house-objects",
    "tools-office",
    "sports-games",
    "clothing",
    "faces-hands",
    "flags",
)
TEMPLATE = "a drawing of a {}."
FOLDER = Path(__file__).with_name("sheets")
SIDE = 64  # of a drawing, pixels
COLUMNS = 32  # of a sheet

TARGET = Domain(
    angle=0.5,
    scale=(0.65, 1.15),
    shift=0.2,
    stretch=0.2,
    white=0.1,
    texture=0.7,
    unevenness=0.6,
    cells=10,
    hue=0.15,
    light=0.4,
    gray=0.25,
    lines=0.12,
    blur=0.4,
    noise=0.08,
    occlusion=0.1,
)


class Drawings(NamedTuple):
    """The drawings of a task: ``classes``, names in alphabetical order; ``images`` (N, 4, 64, 64) uint8, RGBA;
    ``labels`` (N,), positions in ``classes``; ``hands`` (N,), who drew them; ``sets`` and ``icons``, what they are in
    the registry; ``coloured`` (N,) bool."""

    classes: list[str]
    images: Tensor
    labels: Tensor
    hands: list[str]
    sets: list[str]
    icons: list[str]
    coloured: Tensor


@functools.lru_cache(maxsize=len(NAMES))
def drawings_of(name: str, folder: Path = FOLDER) -> Drawings:
    """Read a task's sheet. ImportError that says what to install where Pillow is missing."""
    image = require("PIL.Image", "demo")
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    classes, sets = index["tasks"][name], index["sets"]
    listed = [(label, *one) for label, entry in enumerate(classes) for one in entry["drawings"]]
    with image.open(folder / f"{name}.webp") as file:
        sheet = torch.from_numpy(np.array(file.convert("RGBA")))
    labels, of_sets, icons = zip(*listed, strict=True)
    return Drawings(
        classes=[entry["name"] for entry in classes],
        images=cells_of(sheet, COLUMNS)[: len(listed)],
        labels=torch.tensor(labels),
        hands=[sets[s]["hand"] for s in of_sets],
        sets=list(of_sets),
        icons=list(icons),
        coloured=torch.tensor([sets[s]["coloured"] for s in of_sets]),
    )


def cells_of(sheet: Tensor, columns: int) -> Tensor:
    """The drawings (N, 4, 64, 64) of a sheet (rows 64, columns 64, 4), row by row."""
    return sheet.view(-1, SIDE, columns, SIDE, 4).permute(0, 2, 4, 1, 3).reshape(-1, 4, SIDE, SIDE)


def make(
    name: str,
    seed: int = 0,
    shots: int = 16,
    *,
    test_images: int = 20,
    image_size: int = CANVAS_SIZE,
    domain: Domain = TARGET,
) -> Task:
    """The first half of the classes, in alphabetical order, is base, as in the papers, with every seed; the seed says
    which hands of a base class are for training (half of them, rounded down: the papers' shots are as many pictures),
    which for validation (one), which for the test (the rest), and how each image is painted. All hands of a new class
    are for its test.

    ``shots`` images of each base class for training, as many for validation, ``test_images`` of every class for the
    tests: hands and their drawings take turns. ``image_size``: side of the images, of the CLIP that is to see them;
    the pictures are the same. ``domain``: how they are painted."""
    checks.integer("seed", seed, 0)
    checks.integer("shots", shots, 1)
    checks.integer("test_images", test_images, 1)
    checks.integer("image_size", image_size, 8, 1024)
    drawings = drawings_of(name)
    half = (len(drawings.classes) + 1) // 2
    order = torch.Generator().manual_seed(seed)
    parts = [_by_hands(drawings, label, order) for label in range(len(drawings.classes))]

    def split(which: str, chosen: Sequence[list[list[int]]], per_class: int) -> Split:
        rows = torch.tensor([_turn(hands, i) for hands in chosen for i in range(per_class)])
        key = int.from_bytes(hashlib.sha256(f"{name}/{seed}/{which}".encode()).digest()[:7], "big")
        canvas = paint(
            drawings.images[rows], drawings.coloured[rows], domain, torch.Generator().manual_seed(key), size=image_size
        )
        return Split(normalize(canvas.images), torch.arange(len(chosen)).repeat_interleave(per_class))

    base = [_shares(hands) for hands in parts[:half]]
    return Task(
        name=name,
        template=TEMPLATE,
        base_classes=drawings.classes[:half],
        new_classes=drawings.classes[half:],
        train=split("train", [share[0] for share in base], shots),
        validation=split("validation", [share[1] for share in base], shots),
        base_test=split("base test", [share[2] for share in base], test_images),
        new_test=split("new test", parts[half:], test_images),
    )


def _by_hands(drawings: Drawings, label: int, generator: torch.Generator) -> list[list[int]]:
    """The rows of a class, a list for each hand, hands in random order."""
    rows = torch.nonzero(drawings.labels == label)[:, 0].tolist()
    hands = sorted({drawings.hands[row] for row in rows})
    shuffled = [hands[i] for i in torch.randperm(len(hands), generator=generator).tolist()]
    return [[row for row in rows if drawings.hands[row] == hand] for hand in shuffled]


def _shares(hands: list[list[int]]) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    half = len(hands) // 2
    return hands[:half], hands[half : half + 1], hands[half + 1 :]


def _turn(hands: list[list[int]], i: int) -> int:
    """The i-th drawing: hand after hand, each with its drawings in turn."""
    own = hands[i % len(hands)]
    return own[i // len(hands) % len(own)]
