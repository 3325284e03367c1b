"""How far an evaluation over shards has come, in memory.

Sums are integers: their order does not matter, to the bit.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..metrics.accumulator import Accumulator
from .ranks import Ranks


@dataclass
class Told:
    """What a method said of its shards: the words of the first of them, and how many there are."""

    shard: int
    text: str
    shards: int = 1

    def merge(self, other: "Told") -> "Told":
        first = min(self, other, key=lambda told: told.shard)
        return Told(first.shard, first.text, self.shards + other.shards)


@dataclass
class Progress:
    """Sums over the shards that are ``done`` (S,) bool: an accumulator per method, the images, and what the methods
    were used with, warned of or failed with."""

    done: Tensor
    sums: dict[str, Accumulator]
    images: int = 0
    settings: dict[str, dict[str, float]] = field(default_factory=dict)
    warned: dict[str, Told] = field(default_factory=dict)
    failed: dict[str, Told] = field(default_factory=dict)

    def merge(self, other: "Progress") -> "Progress":
        """Add the shards of ``other``, of which none may be among those here."""
        if bool((self.done & other.done).any()):
            raise ValueError("two parts have the same shards: two runs wrote to one folder")
        self.done |= other.done
        self.images += other.images
        self.settings |= other.settings
        for method, sums in other.sums.items():
            self.sums[method].merge(sums)
        for mine, theirs in ((self.warned, other.warned), (self.failed, other.failed)):
            for method, told in theirs.items():
                mine[method] = mine[method].merge(told) if method in mine else told
        return self


def together(new: Progress, bad: dict[int, str], ranks: Ranks) -> tuple[Progress, dict[int, str]]:
    """What all ranks have, on all of them."""
    states = ranks.sum(torch.cat([new.done.long(), *(sums.state for sums in new.sums.values())]))
    pieces = states.split([len(new.done), *(len(sums.state) for sums in new.sums.values())])
    for sums, state in zip(new.sums.values(), pieces[1:], strict=True):
        sums.state.copy_(state)
    total = Progress(pieces[0] > 0, new.sums)
    told = ranks.gather(({"images": new.images, "settings": new.settings}, new.warned, new.failed, bad))
    for rest, warned, failed, _ in told:
        total.merge(Progress(torch.zeros_like(total.done), {}, warned=warned, failed=failed, **rest))
    return total, dict(sorted(item for *_, more in told for item in more.items()))
