"""The sub-words of the drawings' CLIP: byte pairs as CLIP's own tokenizer reads them."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

MERGES = 3072


def learn(texts: Iterable[str], merges: int = MERGES) -> list[str]:
    """Byte-pair merges (Sennrich et al. 2016, arXiv 1508.07909) of the words of ``texts``, learned by the library
    ``tokenizers``: lines ``"left right"``, most frequent first."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", invert=True)
    alphabet = sorted({character for text in texts for character in text if not character.isspace()})
    size = 2 * len(alphabet) + merges
    trainer = trainers.BpeTrainer(
        vocab_size=size, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = json.loads(tokenizer.to_str())["model"]["merges"]
    return [" ".join(pair) if isinstance(pair, list) else pair for pair in found][:merges]


def write(path: Path, merges: list[str]) -> None:
    """The file that ``open_clip.SimpleTokenizer(bpe_path=...)`` reads: a line that it skips, then the merges. The
    same merges give the same bytes."""
    text = "\n".join(["#version: pyfastcal drawings", *merges])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
