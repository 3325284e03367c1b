"""Nearest neighbours in a bank of which every rank of a process group holds a part: ``knn(..., group=...)``."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from ..arguments import checks

Knn = Callable[..., tuple[Tensor, Tensor]]
_CHUNK = 1 << 18  # candidates merged at a time
_NONE = torch.iinfo(torch.int64).max  # index of no row


def sharded_knn(
    knn: Knn, queries: Tensor, bank: Tensor, k: int, exclude_self: bool, normalize: bool, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor]:
    """What ``knn`` of ``queries`` and all parts of the bank, in the order of the ranks, would return, to the bit.

    Every rank finds the neighbours in its own part; what is exchanged is k distances and indices per query and rank.
    Distances are rounded to the precision of the result after they were ordered, so where two are equal the lists do
    not say which was nearer: of those queries the vectors of the candidates are exchanged too, and ordered by ``knn``.
    """
    starts, dtype = _agree(queries, bank, k, exclude_self, group)
    if dtype == torch.float64:
        queries, bank = queries.double(), bank.double()
    own = int(exclude_self)  # one neighbour more than asked for, and the query itself left out afterwards
    found = min(k + own, len(bank))
    distances = queries.new_full((len(queries), k + own), torch.inf, dtype=dtype)
    indices = torch.full_like(distances, _NONE, dtype=torch.int64)
    error = None
    if found:
        try:
            distances[:, :found], indices[:, :found] = knn(queries, bank, found, normalize=normalize)
        except ValueError as refused:  # NaN or infinity, which the other ranks must hear of
            error, distances[:] = str(refused), torch.nan  # not the error itself: its traceback holds this frame
    rank = dist.get_rank(group)
    indices[:, :found] += starts[rank]
    merged = []
    for first in range(0, len(queries), step := max(1, _CHUNK // (len(starts) * (k + own)))):
        rows = slice(first, first + step)
        near, where = (_gathered(x[rows], group) for x in (distances, indices))
        if bool(near.isnan().any()):
            if error is not None:
                raise ValueError(error)
            bad = int(near.view(len(near), len(starts), -1).isnan().any(2).any(0).nonzero()[0, 0])
            raise ValueError(f"bank must be finite on every rank, got NaN or infinite values on rank {bad}")
        selves = torch.arange(first, first + len(near), device=near.device) if own else None
        near, where = _by_distance(*_by_index(near, where), selves)
        head = near[:, : k + 1]
        unsure = ((head[:, 1:] == head[:, :-1]) & head[:, 1:].isfinite()).any(1).nonzero()[:, 0]
        if len(unsure):
            choices = torch.unique(where[unsure][near[unsure] <= near[unsure, k - 1 : k]])
            part = _rows_of_all(bank, choices, starts[rank], dtype, group)
            again = knn(queries[rows][unsure].to(dtype), part, min(k + own, len(part)), normalize=normalize)
            again = _by_distance(again[0], choices[again[1]], selves[unsure] if own else None)
            near[unsure, :k], where[unsure, :k] = again[0][:, :k], again[1][:, :k]
        merged.append((near[:, :k], where[:, :k]))
    if not merged:
        return distances[:, :k], indices[:, :k]
    near, where = (torch.cat(parts) for parts in zip(*merged, strict=True))
    return near, where


def _agree(
    queries: Tensor, bank: Tensor, k: int, exclude_self: bool, group: dist.ProcessGroup
) -> tuple[list[int], torch.dtype]:
    """Where each rank's part of the bank starts, and the widest dtype; ValueError on all ranks alike unless they were
    called with one k, queries of one shape, and banks that have k rows together."""
    error, about, dtypes = None, [-1] * 7, list(checks.FLOATING)
    try:
        checks.matrix("queries", queries)
        checks.matrix("bank", bank, columns=queries.shape[1], like="queries")
        checks.same_device("bank", bank, "queries", queries)
        checks.integer("k", k, 1)
        dtype = torch.promote_types(torch.promote_types(queries.dtype, bank.dtype), torch.float32)
        about = [*bank.shape, *queries.shape, k, int(exclude_self), dtypes.index(dtype)]
    except ValueError as refused:  # the other ranks wait to hear of it
        error = str(refused)
    device = queries.device if isinstance(queries, Tensor) else "cpu"
    ranks = _gathered(torch.tensor([about], device=device), group).view(-1, len(about)).tolist()
    if error is not None:
        raise ValueError(error)
    if [-1] * 7 in ranks:
        raise ValueError(
            f"queries and bank must be right on every rank, got wrong ones on rank {ranks.index([-1] * 7)}"
        )
    for name, column in (("queries", 2), ("queries", 3), ("bank", 1), ("k", 4), ("exclude_self", 5)):
        for rank, theirs in enumerate(ranks):
            if theirs[column] != ranks[0][column]:
                what = {2: "rows", 3: "columns", 1: "columns"}.get(column, "as its value")
                raise ValueError(
                    f"{name} must be the same on every rank, got {ranks[0][column]} {what} on rank 0 and "
                    f"{theirs[column]} on rank {rank}"
                )
    sizes = [theirs[0] for theirs in ranks]
    rows = sum(sizes)
    if exclude_self and len(queries) != rows:
        raise ValueError(
            f"bank must have the {len(queries)} rows of queries over all ranks with exclude_self=True, got {rows}"
        )
    why = f"bank has {rows} rows over all ranks" + (", one of them the query itself" if exclude_self else "")
    checks.integer("k", k, 1, rows - int(exclude_self), why)
    starts = [sum(sizes[:rank]) for rank in range(len(sizes))]
    widest = max((dtypes[theirs[6]] for theirs in ranks), key=lambda dtype: dtype.itemsize)
    return starts, widest


def _gathered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """``x`` (N, M) of all ranks side by side, (N, ranks * M)."""
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x.contiguous(), group=group)
    return torch.cat(parts, 1)


def _by_index(distances: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    indices, order = indices.sort(dim=1)
    return distances.gather(1, order), indices


def _by_distance(distances: Tensor, indices: Tensor, selves: Tensor | None) -> tuple[Tensor, Tensor]:
    """In ascending order, equal ones left as they are; the index in ``selves`` (N,) last."""
    if selves is not None:
        mine = indices == selves[:, None]
        distances, indices = distances.masked_fill(mine, torch.inf), indices.masked_fill(mine, _NONE)
    distances, order = distances.sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


def _rows_of_all(bank: Tensor, indices: Tensor, start: int, dtype: torch.dtype, group: dist.ProcessGroup) -> Tensor:
    """Rows ``indices`` (ascending) of the whole bank, each from the rank that has it."""
    rows = torch.zeros(len(indices), bank.shape[1], dtype=dtype, device=bank.device)
    mine = (indices >= start) & (indices < start + len(bank))
    rows[mine] = bank[indices[mine] - start].to(dtype)
    dist.all_reduce(rows, group=group)
    return rows
