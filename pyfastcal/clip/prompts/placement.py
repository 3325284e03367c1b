"""Where the context stands in a prompt, and which words it starts from."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..features import as_words, check_classnames
from ..towers import Towers
from .start import normal


class Prompts(NamedTuple):
    """The prompts of C classes, room for the context left behind the start token."""

    classnames: list[str]
    embeddings: Tensor  # (C, L, width) token embeddings, zeros where the context goes
    ends: Tensor  # (C,) int64, where each prompt ends
    fixed: Tensor | None = None  # (C, D) features before tuning, for the losses that hold on to them
    shared: int = 1  # tokens at the beginning that are the same for all classes: start, context, words before the name


class Placement(nn.Module):
    """The half of a :class:`PromptLearner <pyfastcal.clip.prompts.PromptLearner>` that makes token embeddings of class
    names and a context."""

    towers: Towers
    tokenizer: Callable[..., Tensor]
    n_context: int
    context_init: str

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> nn.Parameter:
        """The context (n_context, width) before tuning: what :meth:`init_ids` says of it, with zeros
        before them where they are fewer than n_context; without words N(0, 0.02)."""
        if not self.context_init:
            return nn.Parameter(normal(self.n_context, self.towers.width, generator=generator))
        words = self.towers.embed(self.init_ids()[0]).float().cpu()
        return nn.Parameter(F.pad(words, (0, 0, self.n_context - len(words), 0)))

    def init_ids(self) -> tuple[Tensor, Tensor]:
        """Token ids of ``context_init``: those that the context starts from, and those that stand between it and
        the name, as they are. The first are as many as there are words between spaces, at most n_context, as
        the published trainers count them: of "a type of pet, a photo of a" 8, while the comma is a token of its
        own, so that the last "a" is left to stand before the name."""
        ids = self.tokenizer([self.context_init]).to(self.towers.device)
        ids = ids[0, 1 : int(self.towers.end_positions(ids))]
        learned = min(self.n_context, len(self.context_init.split()))
        return ids[:learned], ids[learned:]

    def prompts(self, classnames: Sequence[str]) -> Prompts:
        """``[start] [room for the context] name . [end]`` for every class, underscores in names read as spaces;
        what :meth:`init_ids` leaves of ``context_init`` stands before the name.

        ValueError for no names, and for a name that does not fit behind the context.
        """
        names = check_classnames(classnames)
        return self.place([f"{as_words(name)}." for name in names])._replace(classnames=names)

    @torch.no_grad()
    def place(self, texts: list[str]) -> Prompts:
        """:meth:`prompts` of texts as they are."""
        ids = self.tokenizer(texts).to(self.towers.device)
        ends, length = self.towers.end_positions(ids), self.towers.context_length
        words = self.init_ids()[1].expand(len(texts), -1)
        shift, longest = self.n_context + words.shape[1], int(ends.argmax())
        end = int(ends[longest])
        # A tokenizer that cuts long texts fills the whole row, and then this finds it too long.
        if end + shift >= length:
            raise ValueError(
                f"classnames: {texts[longest].removesuffix('.')!r} has {end - 1} tokens or more, too many "
                f"for the model's {length} with start, end and {shift} context tokens"
            )
        embeddings = self.towers.embed(torch.cat([ids[:, :1], words, ids[:, 1 : end + 1]], dim=1))
        room = embeddings.new_zeros(len(texts), self.n_context, embeddings.shape[2])
        return Prompts(
            texts, torch.cat([embeddings[:, :1], room, embeddings[:, 1:]], dim=1), ends + shift, shared=1 + shift
        )

    def insert(self, prompts: Prompts, context: Tensor) -> Tensor:
        """Token embeddings (C, L, width) of the prompts with ``context``, (n_context, width) or one per class
        (C, n_context, width), in its room."""
        start, rest = prompts.embeddings[:, :1], prompts.embeddings[:, 1 + self.n_context :]
        return torch.cat([start, context.to(start.dtype).expand(len(start), -1, -1), rest], dim=1)


def before_name(template: str) -> str:
    """The words of a template before the class name."""
    return template.partition("{}")[0].strip()
