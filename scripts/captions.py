"""Filler that captions of both pre-training worlds share.

Prompt learners put up to 16 learned tokens before the class name. A text tower that only ever saw short
captions has never trained the positions where the name then lands, so half of the batches carry captions
with a filler before the prefix, up to 18 words in all."""

import random

FILLERS = (
    "here is",
    "this is",
    "we can see",
    "look at",
    "one more example of",
    "what looks like",
    "there is",
    "it shows",
    "i think it is",
    "the file contains",
    "yet another sample with",
    "for the record ,",
    "as you can see ,",
    "taken today ,",
)
MAX_PREFIX_WORDS = 18


def filler(rng: random.Random, phrases: int) -> list[str]:
    """The words of ``phrases`` random phrases."""
    return [word for _ in range(phrases) for word in rng.choice(FILLERS).split()]


def prefixed(rng: random.Random, phrases: int, prefix: str, name: str) -> str:
    """``"<filler> <prefix> <name>."``, the filler cut so that at most 18 words stand before the name."""
    words = prefix.split()
    return " ".join([*filler(rng, phrases)[: MAX_PREFIX_WORDS - len(words)], *words, name]) + "."


def words_of(texts: object) -> set[str]:
    """The vocabulary of some texts, as the tokenizer splits them."""
    from pyfastcal.clip.tokenizer import WordTokenizer

    return {word for text in texts for word in WordTokenizer.split(text)}  # type: ignore[attr-defined]
