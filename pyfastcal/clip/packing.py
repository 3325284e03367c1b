"""Short texts side by side, as many in a row as it has room for: no work on padding."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

LONGEST_ROW = 64  # tokens: in longer rows less room is left over, but each token is compared with more others


class Packed(NamedTuple):
    """Where the tokens of C texts stand in R rows of S places, each text in one row. Places left over repeat the first
    token of the first text; no other place sees them."""

    text: Tensor  # (R S,) int64: whose token stands there
    token: Tensor  # (R S,) int64: which of its tokens
    ends: Tensor  # (C,) int64: the place of each text's last token
    seen: Tensor  # (R, S, S) bool: the places of its row that a place sees, those of its text up to itself


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept must serve gradients, too
def pack(lengths: tuple[int, ...], device: torch.device) -> Packed:
    """Texts of so many tokens each, at least 1, in rows of the size that leaves least room over."""
    longest = max(lengths)
    sizes = range(longest, max(longest, LONGEST_ROW) + 1, max(1, longest // 4))
    # a comparison of two tokens costs about 1/256 of what else is done for one
    size, rows = min(((s, _fill(lengths, s)) for s in sizes), key=lambda x: len(x[1]) * x[0] * (256 + x[0]))
    text, token = (torch.zeros(len(rows), size, dtype=torch.int64) for _ in range(2))
    owner = torch.full((len(rows), size), -1)
    ends = torch.zeros(len(lengths), dtype=torch.int64)
    for r, row in enumerate(rows):
        at = 0
        for i in row:
            text[r, at : at + lengths[i]] = owner[r, at : at + lengths[i]] = i
            token[r, at : at + lengths[i]] = torch.arange(lengths[i])
            at += lengths[i]
            ends[i] = r * size + at - 1
    seen = (owner[:, :, None] == owner[:, None]).tril()
    return Packed(*(x.to(device) for x in (text.flatten(), token.flatten(), ends, seen)))


def _fill(lengths: tuple[int, ...], size: int) -> list[list[int]]:
    """Rows of texts that fit into ``size``: the longest first, each where least room remains."""
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(size + 1)]  # by the room they have left
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = next((room for room in range(lengths[i], size + 1) if open_rows[room]), None)
        if room is None:
            rows.append([])
            at, room = len(rows) - 1, size
        else:
            at = open_rows[room].pop()
        rows[at].append(i)
        open_rows[room - lengths[i]].append(at)
    return rows
