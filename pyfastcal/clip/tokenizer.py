"""Word-level tokenizer of the bundled small CLIPs, called as open_clip's tokenizers are."""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_WORDS = re.compile(r"[a-z0-9]+|[.,]")


class WordTokenizer:
    """One token per word or punctuation mark, case ignored.

    Ids: 0 pads, 1 starts, the words follow in the order of ``words``, the highest id ends: open_clip
    pools the text tower's output at the arg max of the ids, so the end token must be the highest."""

    def __init__(self, words: Sequence[str], context_length: int) -> None:
        if len(set(words)) != len(words):
            raise ValueError(f"words must not repeat, got {len(words) - len(set(words))} repetitions")
        self.words = tuple(words)
        self.context_length = context_length
        self._ids = {word: i for i, word in enumerate(self.words, start=2)}
        self.sot_token_id, self.eot_token_id = 1, len(self.words) + 2

    @property
    def vocab_size(self) -> int:
        """Number of token ids, the three special ones included."""
        return len(self.words) + 3

    @staticmethod
    def split(text: str) -> list[str]:
        """The words and punctuation marks of ``text``, in lower case."""
        return _WORDS.findall(text.lower())

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` without start and end; ValueError for a word that the vocabulary lacks."""
        unknown = sorted({word for word in self.split(text) if word not in self._ids})
        if unknown:
            words, size = ", ".join(map(repr, unknown)), len(self.words)
            raise ValueError(f"texts: {text!r} has {words}, which the vocabulary of {size} words lacks")
        return [self._ids[word] for word in self.split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The words of ``ids``; padding, start and end are left out."""
        return " ".join(self.words[int(i) - 2] for i in ids if 2 <= int(i) < self.eot_token_id)

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Token ids (N, context_length), int64. ValueError for unknown words and for texts that are too long
        (open_clip's own tokenizers cut them without a word)."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        length = self.context_length if context_length is None else context_length
        ids = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            tokens = [self.sot_token_id, *self.encode(text), self.eot_token_id]
            if len(tokens) > length:
                raise ValueError(f"texts: {text!r} has {len(tokens)} tokens, the model takes at most {length}")
            row[: len(tokens)] = torch.tensor(tokens)
        return ids
