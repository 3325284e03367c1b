"""``knn`` of a bank in parts, on three real processes: the same bits as of the whole bank."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import pyfastcal as fc

RANKS = 3


def cases():
    """(name, queries, bank, sizes of the parts, k, options)"""
    g = torch.Generator().manual_seed(0)
    for i in range(40):
        d, m, q = (int(torch.randint(low, high, (), generator=g)) for low, high in ((1, 40), (6, 60), (1, 30)))
        bank, queries = torch.randn(m, d, generator=g), torch.randn(q, d, generator=g)
        kind = i % 5
        if kind == 1:  # few values: ties of all sorts, exact and up to rounding
            bank, queries = bank.sign(), queries.sign()
        if kind == 2:  # duplicates, in one part and across parts
            bank = bank[torch.randint(0, 5, (m,), generator=g)]
            queries = bank[torch.randint(0, m, (q,), generator=g)]
        if kind == 3:  # so close that float32 cannot tell them apart
            bank = bank[:1] + 1e-8 * bank
        first = int(torch.randint(0, m + 1, (), generator=g))
        second = int(torch.randint(0, m - first + 1, (), generator=g))
        own = kind == 4
        if own:
            queries = bank
        k = int(torch.randint(1, m + 1 - own, (), generator=g))
        dtype = [torch.float32, torch.float16, torch.bfloat16, torch.float64][i % 4]
        sizes = first, second, m - first - second
        options = {"exclude_self": own, "normalize": bool(i % 2)}
        yield f"{i}", queries.to(dtype), bank.to(dtype), sizes, min(k, 9), options
    bank = torch.randn(60, 8, generator=g)[torch.randint(0, 20, (60,), generator=g)]
    yield "duplicates of the query itself", bank, bank, (20, 20, 20), 5, {"exclude_self": True}
    yield "no queries", bank[:0], bank, (30, 0, 30), 3, {}


def check_all(rank: int) -> None:
    """What each rank runs."""
    torch.set_num_threads(1)
    for name, queries, bank, sizes, k, options in cases():
        part = bank.split(sizes)[rank]
        whole = fc.knn(queries, bank, k, **options)
        found = fc.knn(queries, part, k, group=dist.group.WORLD, **options)
        for one, other in zip(found, whole, strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other), (name, sizes, k, options)
    (_, queries, bank, _, k, _), *_ = cases()
    near = fc.proximity(queries, bank.split(-(-len(bank) // RANKS))[rank], 1, group=dist.group.WORLD)
    assert torch.equal(near, fc.proximity(queries, bank, 1))
    one_wide = bank.split(-(-len(bank) // RANKS))[rank].to(torch.float64 if rank == 1 else torch.float32)
    found = fc.knn(queries, one_wide, 2, group=dist.group.WORLD)
    assert all(torch.equal(*x) for x in zip(found, fc.knn(queries.double(), bank.double(), 2), strict=True))
    one = fc.knn(queries.numpy(), bank.numpy() if rank == 2 else bank[:0].numpy(), 1, group=dist.group.WORLD)
    assert (one[1] == fc.knn(queries, bank, 1)[1].numpy()).all()
    refused(rank)


def refused(rank: int) -> None:
    """An error is one on every rank: none waits for the others."""
    x = torch.ones(4, 3)
    bad = x.clone()
    bad[0, 0] = torch.nan
    wrong = {
        "queries and bank must be right on every rank, got wrong ones on rank 1": (x, x[:, :2], 1),
        "bank must be finite on every rank, got NaN or infinite values on rank 1": (x, bad, 1),
        "k must be the same on every rank, got 1 as its value on rank 0 and 2 on rank 1": (x, x, 2),
        "queries must be the same on every rank, got 4 rows on rank 0 and 2 on rank 1": (x[:2], x, 1),
        "k must be an integer of at least 1 and at most 12": (x, x, 13),
        "bank must have the 4 rows of queries over all ranks with exclude_self=True, got 12": (x, x, 1),
    }
    for message, (queries, bank, k) in wrong.items():
        options = {"exclude_self": "exclude_self" in message}
        if rank != 1 and k != 13:
            queries, bank, k = x, x, 1
        try:
            fc.knn(queries, bank, k, group=dist.group.WORLD, **options)
        except ValueError as error:
            said = str(error)
        own = rank == 1 and message.startswith(("queries and", "bank must be finite"))
        expected = "bank must have 3 columns" if own and "right" in message else "bank must be finite, got 1 NaN"
        assert said.startswith(expected if own else message), (rank, said)


SCRIPT = """
import gc
import sys
import weakref
import torch.distributed as dist
from tests.ops.test_sharded_knn import RANKS, check_all
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=RANKS)
gc.disable()  # nothing may hold the group in a cycle: it has to end when it is destroyed, not with the interpreter
check_all(rank)
group = weakref.ref(dist.group.WORLD)
dist.destroy_process_group()
assert group() is None
"""


def test_the_same_bits_as_of_the_whole_bank(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")], **pipes) for rank in range(RANKS)]
    said = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * RANKS, "\n".join(said)


def test_the_cases_have_ties_that_only_exact_distances_tell_apart() -> None:
    """Else the test above would not notice lists that are merged by their rounded distances."""
    told_apart = 0
    for _, queries, bank, _, k, options in cases():
        if len(queries) and not options.get("exclude_self"):
            distances, indices = fc.knn(queries, bank, k, **options)
            tied = distances[:, 1:] == distances[:, :-1]
            told_apart += int((tied & (indices[:, 1:] < indices[:, :-1])).sum())
    assert told_apart > 20


def test_without_a_group_nothing_changes() -> None:
    with pytest.raises(ValueError, match="bank must not be empty"):
        fc.knn(torch.ones(1, 2), torch.ones(0, 2), 1, group=None)
