"""``python -m scripts.drawings``: fetch the sets, render the drawings, write what pre-training reads."""

import argparse
from pathlib import Path

from . import packages, vocabulary
from .captions import Captions
from .concepts import concepts_of
from .data import save
from .render import Drawings
from .sets import SETS

BUILD = Path("build/drawings")
MOST_WORDS_OF_ONE = 4  # names of more words that a single hand gives are left out


def make(folder: Path, out: Path) -> str:
    """Write what pre-training reads of the packages in ``folder`` into ``out``; how much it is."""
    hand = {s.name: s.hand for s in SETS}
    concepts = [
        concept
        for concept in concepts_of(folder)
        if len(concept.name.split()) <= MOST_WORDS_OF_ONE or len({hand[name] for name in concept.icons}) > 1
    ]
    drawings = Drawings(folder, concepts, SETS)
    save(out, drawings, concepts)
    vocabulary.write(out / "vocabulary.txt.gz", vocabulary.learn(Captions(concepts).corpus()))
    return f"{len(drawings.images)} drawings of {len(concepts)} concepts by {len(set(hand.values()))} hands"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, default=BUILD / "packages", help="where the packages are or come")
    parser.add_argument("--out", type=Path, default=BUILD, help="where to write")
    args = parser.parse_args()
    packages.fetch(args.packages)
    print(f"{make(args.packages, args.out)}: {args.out}")


if __name__ == "__main__":
    main()
