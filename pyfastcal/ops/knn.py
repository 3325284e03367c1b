"""The nearest rows of a bank: by the kernel, the definition, or the ranks of a process group together."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import reference
from ..arguments import checks
from . import gradients
from .entry import are_plain, check_result, entry, has_kernel
from .extension import cpu_op, fake

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_MOST_CUDA_NEIGHBOURS = 128  # of the CUDA kernel; for more the definition runs, on the GPU and in fp64


def _at_once(
    queries: Tensor,
    bank: Tensor,
    k: int,
    *,
    exclude_self: bool = False,
    normalize: bool = True,
    group: "ProcessGroup | None" = None,
) -> tuple[Tensor, Tensor] | None:
    op = cpu_op("checked_knn")
    if op is None or group is not None or type(k) is not int or not are_plain(queries, bank):
        return None
    if torch.float64 in (queries.dtype, bank.dtype):
        return None
    return op(queries, bank, k, exclude_self, normalize)


@entry(reference.knn, row=("queries",), at_once=_at_once)
def knn(
    queries: Tensor,
    bank: Tensor,
    k: int,
    *,
    exclude_self: bool = False,
    normalize: bool = True,
    group: "ProcessGroup | None" = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest rows of ``bank`` to every row of ``queries``, by Euclidean distance.

    Definition: ``reference.knn``.

    The kernels measure in float64 what may be among the nearest, and round once.

    Args:
        queries: (Q, D) floating point, or one (D,).
        bank: (M, D) floating point, on the same device.
        k: 1 to M (to M - 1 with ``exclude_self``).
        exclude_self: leave out bank row i for query i; ``queries`` and ``bank`` must have the same number of rows.
        normalize: divide every vector by its L2 norm first, or by 1e-12 where that is shorter, as
            ``torch.nn.functional.normalize`` does. Without it distances must stay within the result's dtype.
        group: every rank of this process group calls with the same queries, and ``bank`` is its part of the bank, which
            may be empty. The parts follow each other in the order of the ranks, indices count through all of them, and
            every rank gets what one call with the whole bank would give, to the bit.

    Returns:
        distances (Q, k) ascending, float32 (float64 if an input is); indices (Q, k) int64. Of one query (k,) each.

    Raises:
        ValueError: wrong rank, dtype, device or number of columns; an empty bank; k out of range; NaN or infinity.
    """
    gradients.warn_of_none("knn", queries, bank)
    if group is not None:
        from .sharded_knn import sharded_knn  # here: torch.distributed is no part of some builds of torch

        return sharded_knn(knn, queries, bank, k, exclude_self, normalize, group)
    checks.comparable(queries=queries, bank=bank)
    checks.same_device("bank", bank, "queries", queries)
    if exclude_self:
        checks.same_rows("bank", bank, "queries with exclude_self=True", queries)
    why = f"bank has {bank.shape[0]} rows" + (", one of them the query itself" if exclude_self else "")
    k = checks.integer("k", k, 1, bank.shape[0] - int(exclude_self), why)
    queries, bank = queries.detach(), bank.detach()
    if kernel := has_kernel(queries, bank):
        kernel = not queries.is_cuda or k <= _MOST_CUDA_NEIGHBOURS
    else:
        checks.all_finite(queries=queries, bank=bank)
    if kernel:
        distances, indices = torch.ops.pyfastcal.knn(queries, bank, k, exclude_self, normalize)
    else:
        exact = queries.double(), bank.double()
        distances, indices = reference.knn(*exact, k, exclude_self=exclude_self, normalize=normalize)
        distances = distances if torch.float64 in (queries.dtype, bank.dtype) else distances.float()
    check_result(distances, queries=queries, bank=bank)
    return distances, indices


def fake_knn(queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (*queries.shape[:-1], k)
    return queries.new_empty(shape, dtype=torch.float32), queries.new_empty(shape, dtype=torch.int64)


@fake("knn")
def _(queries, bank, k, exclude_self, normalize):
    return fake_knn(queries, k)


@fake("checked_knn")
def _(queries, bank, k, exclude_self, normalize):
    return fake_knn(queries, k)
