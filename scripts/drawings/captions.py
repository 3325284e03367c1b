"""Captions of drawings: names, other names, keywords, in templates, with words of style and colour."""

import random
from collections import Counter
from collections.abc import Sequence

from scripts.clip.captions import FILLERS, prefixed

from .concepts import Concept

PREFIXES = (
    "a drawing of a",
    "a drawing of the",
    "an icon of a",
    "a picture of a",
    "a picture of the",
    "a photo of a",
    "a photo of the",
    "an image of a",
    "a sketch of a",
    "an emoji of a",
    "a symbol of a",
    "a small drawing of the",
    "a",
    "the",
    "",
)
MEDIA = ("drawing", "icon", "picture", "image", "emoji")
LINES = ("a line drawing of a", "a sketch of a", "an outline of a", "the outlines of a")
COLOURS = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.95, 0.50, 0.10),
    "yellow": (0.95, 0.87, 0.20),
    "green": (0.15, 0.60, 0.20),
    "cyan": (0.15, 0.78, 0.80),
    "blue": (0.15, 0.25, 0.80),
    "purple": (0.50, 0.15, 0.65),
    "pink": (0.97, 0.55, 0.72),
    "brown": (0.45, 0.28, 0.12),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "gray": (0.5, 0.5, 0.5),
}
LEAST_USES = 2  # of a keyword, in all concepts together


class Captions:
    """Says what a drawing shows. ``concepts``: all there are."""

    def __init__(self, concepts: Sequence[Concept]) -> None:
        uses = Counter(keyword for concept in concepts for keyword in concept.keywords)
        self.names = [concept.name for concept in concepts]
        self.keywords = [[k for k in c.keywords if uses[k] >= LEAST_USES and k not in c.name] for c in concepts]
        self.others = [sorted(o for o in c.others if o != c.name and len(o.split()) <= 6) for c in concepts]

    def caption(
        self, rng: random.Random, concept: int, filler: int, style: str, ink: str, background: str, lines: bool
    ) -> str:
        """``style``: that of the set; ``ink``, ``background``: names of ``COLOURS`` to be said, or empty."""
        name, keywords, kind = self.names[concept], self.keywords[concept], rng.random()
        if kind < 0.12 and self.others[concept]:
            name = rng.choice(self.others[concept])
        elif kind < 0.30 and keywords:
            name = ", ".join([name, *rng.sample(keywords, min(len(keywords), rng.randint(1, 3)))])
        elif kind < 0.36 and len(keywords) >= 2:
            name = ", ".join(rng.sample(keywords, min(len(keywords), 3)))
        prefix = rng.choice(PREFIXES)
        if lines and rng.random() < 0.5:
            prefix = rng.choice(LINES)
        elif ink:
            prefix = f"a {ink} {rng.choice(MEDIA)} of a"
        elif rng.random() < 0.15:
            prefix = f"a {style} {rng.choice(MEDIA)} of a"
        if background:
            name = f"{name} on a {background} background"
        return prefixed(rng, filler, prefix, name)

    def corpus(self) -> list[str]:
        """Texts that the vocabulary is learned from, names more often than keywords."""
        words = [*FILLERS, *PREFIXES, *LINES, *COLOURS, *MEDIA, "background . ,"]
        names = [n for n in self.names for _ in range(3)]
        return [*words * 20, *names, *(o for os in self.others for o in os), *(k for ks in self.keywords for k in ks)]
