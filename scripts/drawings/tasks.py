"""The eleven tasks: which concepts are their classes, and which drawings pre-training never sees.

Chosen from names and numbers of drawings alone, before any model was trained on them."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .concepts import Concept
from .sets import SETS

LEAST_HANDS = 6  # that a class must have been drawn by: half of them are held out
MOST_WORDS = 5
MOST_CLASSES = 120  # where more qualify, those drawn by most hands


class TaskClasses(NamedTuple):
    """``categories``: emojibase's sub-groups; ``besides``: concepts without a code point; ``without``: names that say
    the same as another class's, or that no drawing could tell."""

    categories: tuple[str, ...]
    besides: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


_FILE = Path(__file__).with_name("tasks.json")
TASKS = {
    name: TaskClasses(**{key: tuple(names) for key, names in parts.items()})
    for name, parts in json.loads(_FILE.read_text()).items()
}


def classes_of(task: str, concepts: Iterable[Concept]) -> list[Concept]:
    """The classes of a task in alphabetical order; the first half of them are base, as in the papers."""
    wanted = TASKS[task]
    hands = {drawing_set.name: drawing_set.hand for drawing_set in SETS}
    chosen = [
        concept
        for concept in concepts
        if (concept.category in wanted.categories or (not concept.category and concept.name in wanted.besides))
        and concept.name not in wanted.without
        and len(concept.name.split()) <= MOST_WORDS
        and len({hands[name] for name in concept.icons}) >= LEAST_HANDS
    ]
    order = shuffled([concept.name for concept in chosen], task)
    chosen.sort(key=lambda c: (-len({hands[name] for name in c.icons}), order.index(c.name)))
    return sorted(chosen[:MOST_CLASSES], key=lambda concept: concept.name)


def shuffled(names: Iterable[str], salt: str) -> list[str]:
    """``names`` in an order that hangs on them and on ``salt`` alone."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}/{name}".encode()).digest())


def held_out(concept: Concept, hands: Iterable[str]) -> list[str]:
    """The hands whose drawings of a class are for the task: half of them, at most six."""
    order = shuffled(set(hands), concept.name)
    return order[: min(len(order) // 2, 6)]
