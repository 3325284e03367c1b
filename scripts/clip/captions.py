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


def filler_length(rng: random.Random) -> int:
    """Number of filler words of a batch's captions: none half of the time, else 1 to 15. One number for
    the whole batch, so that the batches of short captions are cheap."""
    return rng.randint(1, 15) if rng.random() < 0.5 else 0


def prefixed(rng: random.Random, length: int, prefix: str, name: str) -> str:
    """``"<filler> <prefix> <name>."`` with ``length`` filler words, fewer where more than 18 words would
    stand before the name."""
    words = prefix.split()
    length = min(length, MAX_PREFIX_WORDS - len(words))
    filler: list[str] = []
    while len(filler) < length:
        filler += rng.choice(FILLERS).split()
    return " ".join([*filler[:length], *words, name]) + "."


def words_of(texts: object) -> set[str]:
    """The vocabulary of some texts, as the tokenizer splits them."""
    from pyfastcal.clip.tokenizer import WordTokenizer

    return {word for text in texts for word in WordTokenizer.split(text)}  # type: ignore[attr-defined]
