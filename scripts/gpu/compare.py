"""How an op's result on a GPU is compared with the CPU's."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.testing import assert_close

Result = tuple[Tensor, ...]
Compare = Callable[[Result, Result], None]
Case = tuple[str, Callable[[str], Result], Compare]  # name, the call on a device, how its result is compared


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(ours: Result, cpu: Result) -> None:
    """Confidences, z and the like: fp32 in another order, on the same 16-bit numbers."""
    assert_close(ours[0], cpu[0], rtol=1e-4, atol=1e-6)


def close_but_for_ties(ours: Result, cpu: Result) -> None:
    """Of many rows: two classes within a rounding of each other may change places, and with them the factor."""
    same = ours[1] == cpu[1]
    assert int((~same).sum()) <= len(same) // 5000, f"{int((~same).sum())} of {len(same)} predictions differ"
    close((ours[0][same],), (cpu[0][same],))


def close_cosines(ours: Result, cpu: Result) -> None:
    """Sums of products near 0, in another order: off by what such sums of unit vectors lose."""
    assert_close(ours[0], cpu[0], rtol=0, atol=2e-6)


def equal(ours: Result, cpu: Result) -> None:
    for a, b in zip(ours, cpu, strict=True):
        assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def nearest(ours: Result, cpu: Result) -> None:
    assert_close(ours[0], cpu[0], rtol=3e-7, atol=0, equal_nan=True)
    assert torch.equal(ours[1], cpu[1])
