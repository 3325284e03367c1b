"""The nearest neighbours of unit vectors. The floor is torch's product of queries and bank.

Ours normalises both again; the others take them as they are, and FAISS's index is built before the clock starts.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.testing import assert_close

import pyfastcal as fc

from . import data
from .harness import Case, Floor

SIZES = ((4000, 20_000, 512, 10), (4000, 20_000, 512, 64), (1000, 1000, 512, 5), (100, 200_000, 768, 10))
QUICK = ((50, 400, 32, 5),)


def work(size: tuple[int, int, int, int]) -> str:
    n_queries, n_bank, dim, k = size
    return f"knn {n_queries:,} x {n_bank:,} x {dim}, K={k}"


def case(size: tuple[int, int, int, int]) -> Case:
    n_queries, n_bank, dim, k = size
    rows = data.clip_features(n_queries + n_bank, 100, dim)[0]
    queries, bank = rows[:n_queries], rows[n_queries:]
    return Case(
        lambda: fc.knn(queries, bank, k),
        idiom,
        (queries, bank, k),
        agree,
        {"FAISS flat": faiss_flat(queries, bank, k)},
        {"torch GEMM": Floor(lambda: queries @ bank.T)},
    )


def idiom(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.cdist(queries, bank).topk(k, largest=False))


def faiss_flat(queries: Tensor, bank: Tensor, k: int) -> Callable[[], tuple[Tensor, Tensor]] | str:
    try:
        import faiss
    except ImportError:
        return "faiss is not installed"
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.numpy())

    def search() -> tuple[Tensor, Tensor]:
        squares, indices = index.search(queries.numpy(), k)
        return torch.from_numpy(squares).clamp_(min=0).sqrt_(), torch.from_numpy(indices)

    return search


def agree(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    assert_close(ours[0], theirs[0], rtol=0, atol=1e-4)
    same = (ours[1] == theirs[1]).float().mean()  # neighbours within a rounding of each other may change places
    assert same > 0.99, f"{1 - same:.2%} of the indices differ"
