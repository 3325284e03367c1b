"""The nearest neighbours of unit vectors. The floor is torch's product of queries and bank.

Ours normalises both again; the others take them as they are (on a GPU they normalise too), and FAISS's index is built
before the clock starts.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

import pyfastcal as fc

from . import data, floors, products
from .harness import Call, Case, Floor
from .peaks import Cost

SIZES = ((4000, 20_000, 512, 10), (4000, 20_000, 512, 64), (1000, 1000, 512, 5), (100, 200_000, 768, 10))
QUICK = ((50, 400, 32, 5),)
GPU_SIZES = (
    (50_000, 1_280_000, 512, 10, "bf16"),
    (50_000, 1_280_000, 512, 10, "fp32"),
    (4000, 20_000, 512, 10, "bf16"),
    (100, 200_000, 768, 10, "bf16"),
)
GPU_QUICK = ((50, 400, 456, 5, "bf16"), (50, 400, 32, 5, "fp32"))


def work(size: tuple) -> str:
    n_queries, n_bank, dim, k, *dtype = size
    return f"knn {n_queries:,} x {n_bank:,} x {' '.join([str(dim), *dtype])}, K={k}"


def case(size: tuple, device: str = "cpu") -> Case:
    full = against_idiom(size, device)
    if len(size) == 4:
        full.peers = {"FAISS flat": faiss_flat(*full.inputs)}
    return full


def against_idiom(size: tuple, device: str = "cpu") -> Case:
    """Without FAISS, whose index takes time and memory."""
    n_queries, n_bank, dim, k, *dtype = size
    rows = data.clip_features(n_queries + n_bank, 100, dim, device=device)[0]
    if dtype:
        return gpu_case(rows.to(data.DTYPES[dtype[0]]), n_queries, k, device)
    return of_rows(rows[:n_queries], rows[n_queries:], k)


def of_rows(queries: Tensor, bank: Tensor, k: int, atol: float = 1e-4) -> Case:
    """Unit rows in fp32, on a CPU; ``atol``: by how much the idiom's distances may be off."""
    return Case(
        lambda: fc.knn(queries, bank, k),
        idiom,
        (queries, bank, k),
        functools.partial(agree, atol=atol),
        floors={"torch GEMM": Floor(lambda: queries @ bank.T)},
        cost=Cost(2.0 * len(queries) * len(bank) * queries.shape[1], queries.nbytes + bank.nbytes),
    )


def gpu_case(rows: Tensor, n_queries: int, k: int, device: str) -> Case:
    queries, bank = rows[:n_queries], rows[n_queries:]
    peers: dict[str, Call | str] = {}
    if rows.dtype == torch.bfloat16:
        peers["bf16 GEMM + topk in chunks"] = lambda: gemm_and_topk(queries, bank, k)
    flops = 2.0 * len(queries) * len(bank) * rows.shape[1]

    def ours() -> tuple[Tensor, Tensor]:
        return fc.knn(queries, bank, k)

    return Case(
        ours,
        cdist_in_chunks,
        (queries, bank, k),
        agree_on_distances,
        peers,
        {"GEMM rate": floors.gemm(flops, device)},
        products.variants(ours, rows.shape[1], device),
        equal,
        device=device,
        compile=False,
    )


def idiom(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.cdist(queries, bank).topk(k, largest=False))


def in_chunks(f: Callable[[Tensor], tuple[Tensor, Tensor]], queries: Tensor, n_bank: int) -> tuple[Tensor, Tensor]:
    """``f`` of as many queries at a time as have 2^30 distances."""
    chunks = [f(chunk) for chunk in queries.split(max(1, 2**30 // n_bank))]
    return torch.cat([d for d, _ in chunks]), torch.cat([i for _, i in chunks])


def cdist_in_chunks(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    unit = normalize(bank.float(), dim=1)
    return in_chunks(lambda chunk: idiom(normalize(chunk.float(), dim=1), unit, k), queries, len(bank))


def gemm_and_topk(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The fastest plain torch way to neighbours, if not quite to their distances: products of bf16 rows."""
    queries, bank = normalize(queries, dim=1), normalize(bank, dim=1)

    def nearest(chunk: Tensor) -> tuple[Tensor, Tensor]:
        cosines, indices = (chunk @ bank.T).topk(k)
        return (2 - 2 * cosines.float()).clamp(min=0).sqrt(), indices

    return in_chunks(nearest, queries, len(bank))


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


def equal(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """Distances are measured in fp64, whatever the product left."""
    assert_close(ours, theirs, rtol=0, atol=0)


def agree_on_distances(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """Within what a cosine loses in bf16."""
    assert_close(ours[0], theirs[0], rtol=0, atol=2e-2)


def agree(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], atol: float) -> None:
    assert_close(ours[0], theirs[0], rtol=0, atol=atol)
    same = (ours[1] == theirs[1]).float().mean()  # neighbours within a rounding of each other may change places
    assert same > 0.99, f"{1 - same:.2%} of the indices differ"
