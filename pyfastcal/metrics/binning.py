"""In which equal-width bin the rows of a stream fall that are added one by one."""

import functools

import torch
from torch import Tensor

from .. import reference
from .fine import CONFIDENCE


class Binning:
    """``reference.bin_index`` of confidences (N,) whose fine cells are known; with ``looked_up`` by a table of the fine
    cells, where none of them holds two edges."""

    def __init__(self, n_bins: int, closed: str, *, looked_up: bool) -> None:
        self.n_bins, self.closed = n_bins, closed
        self._looked_up = looked_up and n_bins < CONFIDENCE.size
        self._held: tuple[torch.device, Tensor, tuple[Tensor, Tensor] | None] | None = None  # see follow

    @functools.cached_property
    def edges(self) -> Tensor:
        """(n_bins + 1,), on the CPU."""
        return reference.uniform_edges(self.n_bins)

    def __call__(self, confidence: Tensor, fine: Tensor) -> Tensor:
        _, edges, lookup = self.follow(confidence.device)
        if lookup is None:
            return reference.bin_index(confidence, edges, self.closed)
        before, edge = (x.index_select(0, fine) for x in lookup)
        return before.add_(confidence >= edge if self.closed == "left" else confidence > edge)

    def follow(self, device: torch.device) -> tuple[torch.device, Tensor, tuple[Tensor, Tensor] | None]:
        """Keep what rows are compared with on ``device``, so that no update waits for a copy."""
        if self._held is None or self._held[0] != device:
            lookup = _lookup(self.edges) if self._looked_up else None
            there = None if lookup is None else (lookup[0].to(device), lookup[1].to(device))
            self._held = device, self.edges.to(device), there
        return self._held


def _lookup(edges: Tensor) -> tuple[Tensor, Tensor] | None:
    """For each fine cell how many interior edges lie in cells before it, and the one inside (2: none); None if some
    cell holds two."""
    inner = edges[1:-1].double()
    held = torch.bincount(CONFIDENCE(inner), minlength=CONFIDENCE.size)
    if int(held.max()) > 1:
        return None
    edge = torch.full((CONFIDENCE.size,), 2.0, dtype=torch.float64)
    edge[CONFIDENCE(inner)] = inner
    return held.cumsum(0) - held, edge
