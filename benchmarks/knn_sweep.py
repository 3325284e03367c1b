"""knn against its torch idiom from one neighbour to the whole bank, in every cell of a sweep over queries, bank,
columns and K: where K is large nothing can be rejected, where all is small a call's own costs show."""

from torch import Tensor
from torch.testing import assert_close

from . import knn
from .harness import Case, Row

QUERIES = (1, 10, 100, 1000)
BANKS = ((1000, 64), (1000, 512), (20_000, 64), (20_000, 512))
SHARES = (0.0, 0.01, 0.05, 0.1, 1 / 6, 1 / 3, 0.5, 1.0)  # of the bank that K is; 0: one neighbour
MOST = 2 * 10**9  # multiply-adds of a cell: larger ones are in knn's own benchmark

SIZES = tuple(
    (q, m, d, max(1, int(m * share))) for m, d in BANKS for q in QUERIES if q * m * d < MOST for share in SHARES
)
QUICK = ((1, 40, 16, 1), (5, 40, 16, 40))
GPU_SIZES: tuple[tuple, ...] = ()
GPU_QUICK: tuple[tuple, ...] = ()


def work(size: tuple) -> str:
    return f"sweep of {knn.work(size)}"


def case(size: tuple, device: str = "cpu") -> Case:
    found = knn.against_idiom(size, device)
    found.agree, found.compile = (lambda ours, theirs: agree(ours, theirs, size[1])), False
    return found


def agree(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], n_bank: int) -> None:
    """The distances to what an fp32 product loses; the same neighbours, whose order is that product's own."""
    assert_close(ours[0], theirs[0], rtol=0, atol=2e-3)
    chosen = [indices.new_zeros(len(indices), n_bank).scatter_(1, indices, 1) for _, indices in (ours, theirs)]
    same = (chosen[0] * chosen[1]).sum() / chosen[1].sum()
    assert same > 0.99, f"{1 - same:.2%} of the neighbours differ"


def grids(rows: list[Row]) -> str:
    """Of each bank the time of the idiom over ours, by queries and K: Markdown."""
    figures = {row.work: row.figure for row in rows if row.contender == "torch eager"}
    blocks = []
    for m, d in BANKS:
        ks = [max(1, int(m * share)) for share in SHARES]
        lines = [f"| bank {m:,} x {d}, K = | {' | '.join(f'{k:,}' for k in ks)} |", "| --- " * (len(ks) + 1) + "|"]
        for q in QUERIES:
            found = [figures.get(work((q, m, d, k))) for k in ks]
            if any(found):
                lines.append(f"| {q:,} queries | {' | '.join('' if x is None else f'{x:.2f}x' for x in found)} |")
        if len(lines) > 2:
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
