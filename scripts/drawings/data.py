"""The drawings to pre-train on, batch by batch."""

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyfastcal.clip.tasks.canvas import Domain, paint
from pyfastcal.clip.tasks.drawings import cells_of
from pyfastcal.clip.tasks.images import normalize
from pyfastcal.io.paths import atomic_write
from scripts.clip.captions import filler_length

from .captions import COLOURS, Captions
from .concepts import Concept
from .render import Drawings, alike
from .sets import SETS
from .tasks import TASKS, classes_of, held_out, shuffled

PRETRAINING = Domain(stretch=0.25, texture=0.4, hue=0.15, gray=0.2, lines=0.12, warp=0.1)
PLAIN_WEIGHT = 0.35  # of a drawing without colours, by that of one with
TOO_ALIKE = 0.95  # a drawing that resembles a held-out one of its concept so much is left out
VALIDATION_SHARE = 0.05  # of the drawings of concepts outside the tasks that have at least 4 hands
PER_SHEET, COLUMNS = 8192, 128
PRETRAIN, TASK, VALIDATION, UNUSED = range(4)


def roles(drawings: Drawings, concepts: list[Concept]) -> np.ndarray:
    """What each drawing is for (N,): to pre-train on, for a task, to validate on, or nothing."""
    hand = np.array([s.hand for s in SETS])[drawings.set_index]
    role = np.full(len(hand), PRETRAIN)
    in_task = {c.name for task in TASKS for c in classes_of(task, concepts)}
    for c, concept in enumerate(concepts):
        rows = np.flatnonzero(drawings.concept == c)
        hands = sorted(set(hand[rows]))
        if concept.name in in_task:
            ours = np.isin(hand[rows], held_out(concept, hands))
            role[rows[ours]] = TASK
            if concept.category != "country-flag":
                for row in rows[ours]:
                    others = rows[~ours]
                    role[others[alike(drawings.images[row], drawings.images[others]) > TOO_ALIKE]] = UNUSED
        elif len(hands) >= 4:
            for one in shuffled(hands, "validation " + concept.name)[:1]:
                if int.from_bytes(concept.name.encode()[-4:], "big") % 100 < 100 * VALIDATION_SHARE * len(hands):
                    role[rows[hand[rows] == one]] = VALIDATION
    return role


def save(folder: Path, drawings: Drawings, concepts: list[Concept]) -> None:
    """Write ``drawings-N.webp``, sheets without loss, so that the data are small enough to be carried to another
    machine, ``drawings.safetensors``, what is known of each drawing, and ``concepts.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(0, len(drawings.images), PER_SHEET):
        sheet = as_sheet(drawings.images[i : i + PER_SHEET], COLUMNS)
        file = folder / f"drawings-{i // PER_SHEET}.webp"
        atomic_write(file, lambda path, s=sheet: Image.fromarray(s).save(path, "WEBP", lossless=True, method=3))
    tensors = {
        "concept": torch.from_numpy(drawings.concept),
        "set": torch.from_numpy(drawings.set_index),
        "role": torch.from_numpy(roles(drawings, concepts)),
    }
    atomic_write(folder / "drawings.safetensors", lambda path: save_file(tensors, path))
    about = [asdict(concept) | {"others": sorted(concept.others)} for concept in concepts]
    (folder / "concepts.json").write_text(json.dumps({"concepts": about, "icons": drawings.icon}, indent=0) + "\n")


def as_sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """Drawings (N, S, S, 4) side by side, ``columns`` in a row: (rows S, columns S, 4); the last row is filled up."""
    n, side = len(images), images.shape[1]
    cells = np.zeros((-(-n // columns) * columns, side, side, 4), np.uint8)
    cells[:n] = images
    return cells.reshape(-1, columns, side, side, 4).swapaxes(1, 2).reshape(-1, columns * side, 4)


def read_images(folder: Path, number: int) -> Tensor:
    """The ``number`` drawings (N, 4, 64, 64) uint8 of the sheets that :func:`save` wrote."""
    parts = []
    for i in range(-(-number // PER_SHEET)):
        with Image.open(folder / f"drawings-{i}.webp") as file:
            parts.append(cells_of(torch.from_numpy(np.array(file.convert("RGBA"))), COLUMNS))
    return torch.cat(parts)[:number]


class Batch(NamedTuple):
    """Normalised images (N, 3, 48, 48), their captions, their concepts (N,)."""

    images: Tensor
    captions: list[str]
    concept: Tensor


class Pretraining:
    """Batches of different concepts. Two fifths of a batch are of one group of concepts, such as the animals: what is
    hard to tell apart must meet."""

    def __init__(self, folder: Path, size: int = 48) -> None:
        tensors = load_file(folder / "drawings.safetensors")
        about = json.loads((folder / "concepts.json").read_text())
        self.concepts = [Concept(**{**c, "others": set(c["others"])}) for c in about["concepts"]]
        self.icons: list[str] = about["icons"]
        self.captions = Captions(self.concepts)
        self.set_index, self.concept, self.role, self.size = tensors["set"], tensors["concept"], tensors["role"], size
        self.images = read_images(folder, len(self.role))
        self.coloured = torch.tensor([s.coloured for s in SETS])[self.set_index]
        self._rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._weights()

    def _weights(self) -> None:
        group_of = {category: i for i, task in enumerate(TASKS.values()) for category in task.categories}
        hands, weight, group = np.array([s.hand for s in SETS])[self.set_index], [], []
        by_concept: dict[int, list[int]] = {}
        for row in torch.nonzero(self.role == PRETRAIN)[:, 0].tolist():
            by_concept.setdefault(int(self.concept[row]), []).append(row)
        natural = {s.hand for s in SETS if s.kind == "natural"}
        for c, concept in enumerate(self.concepts):
            rows = np.array(by_concept.get(c, ()), dtype=int)
            own = hands[rows]
            number = len(set(own))
            each = np.where(self.coloured[rows].numpy(), 1.0, PLAIN_WEIGHT)
            for one in set(own):
                each[own == one] /= (own == one).sum()
            if number:
                self._rows[c] = rows, each / each.sum()
            one_hand = number == 1 and set(own) <= natural
            w = min(1.0, number / 4) if concept.category else 0.25 * min(1.0, number / 6)
            if concept.category.startswith(("person", "family")) or concept.category == "country-flag":
                w *= 0.5
            weight.append(0.04 if one_hand and not concept.category else w)
            group.append(group_of.get(concept.category, len(TASKS)))
        self.weight, self.group = np.array(weight), np.array(group)

    def batch(self, size: int, step: int, seed: int = 0) -> Batch:
        """Batch number ``step``: the same whatever was drawn before, so that a resumed training goes on as if it had
        not stopped."""
        choose = np.random.default_rng((seed, step))
        rng, generator = random.Random(f"{seed} {step}"), torch.Generator().manual_seed(seed * 1_000_003 + step)
        sizes = np.bincount(self.group, weights=self.weight)[: len(TASKS)]
        inside = self.weight * (self.group == choose.choice(len(TASKS), p=sizes / sizes.sum()))
        some = choose.choice(
            len(inside), min(2 * size // 5, np.count_nonzero(inside)), replace=False, p=inside / inside.sum()
        )
        rest = self.weight.copy()
        rest[some] = 0
        chosen = np.concatenate([some, choose.choice(len(rest), size - len(some), replace=False, p=rest / rest.sum())])
        rows = torch.tensor([choose.choice(self._rows[c][0], p=self._rows[c][1]) for c in chosen])
        return self._paint(rows, rng, generator)

    def _paint(self, rows: Tensor, rng: random.Random, generator: torch.Generator) -> Batch:
        coloured, names = self.coloured[rows], list(COLOURS)
        said = [(rng.random() < 0.25 and not c, rng.random() < 0.1) for c in coloured.tolist()]
        pairs = [rng.sample(names, 2) for _ in said]
        inks = [pair[0] if ink else "" for pair, (ink, _) in zip(pairs, said, strict=True)]
        grounds = [pair[1] if ground else "" for pair, (_, ground) in zip(pairs, said, strict=True)]
        domain = PRETRAINING
        canvas = paint(
            self.images[rows],
            coloured,
            domain,
            generator,
            ink=_colours(inks),
            background=_colours(grounds),
            size=self.size,
        )
        filler = filler_length(rng) if rng.random() < 0.5 else 0  # so that a quarter of the batches has one
        captions = [
            self.captions.caption(
                rng, int(self.concept[row]), filler, SETS[int(self.set_index[row])].style, ink, ground, bool(lines)
            )
            for row, ink, ground, lines in zip(rows.tolist(), inks, grounds, canvas.lines, strict=True)
        ]
        return Batch(normalize(canvas.images), captions, self.concept[rows])


def _colours(names: list[str]) -> Tensor:
    nothing = (float("nan"),) * 3
    return torch.tensor([COLOURS.get(name, nothing) for name in names])
