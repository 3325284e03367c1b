"""Confidences -> counts, correct and confidence sums of 10 bins. The floor reads 5 bytes a sample."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.testing import assert_close

import pyfastcal as fc

from . import data, floors
from .harness import Case, Floor
from .peaks import Cost

SIZES = ((10_000_000,),)
QUICK = ((10_000,),)
GPU_SIZES = ((1_000_000_000, "fp32"), (256, "fp32"))
GPU_QUICK = ((10_000, "fp32"), (200, "fp32"))
N_BINS = 10


def work(size: tuple) -> str:
    n, *dtype = size
    return f"bins, {n:,} confidences{' on the GPU' if dtype else ''}"


def case(size: tuple, device: str = "cpu") -> Case:
    n, *dtype = size
    g = data.generator(device=device)
    confidence = torch.rand(n, generator=g, device=device)
    correct = torch.rand(n, generator=g, device=device) < confidence**1.2  # over-confident
    if dtype:
        return Case(
            lambda: fc.bin_counts(confidence, correct, n_bins=N_BINS),
            bincount_idiom if n > 256 else one_hot_idiom,
            (confidence, correct),
            agree_on_bins,
            floors={"copy": floors.copy(5 * n, device)} if n > 256 else {},
            device=device,
            compile=False,
            graph=n <= 256,
        )
    memory = torch.ones(50_000_000)  # 200 MB: too much for any cache
    peers: dict[str, Callable | str] = {}
    error = torchmetrics_error()
    if isinstance(error, str):
        peers["torchmetrics"] = error
    else:
        target = correct.long()
        peers["torchmetrics"] = lambda: error(confidence, target, n_bins=N_BINS)
        peers["torchmetrics, unchecked"] = lambda: error(confidence, target, n_bins=N_BINS, validate_args=False)
    return Case(
        lambda: fc.bin_counts(confidence, correct, n_bins=N_BINS),
        bincount_idiom,
        (confidence, correct),
        agree_on_bins,
        peers,
        {"read": Floor(memory.sum, share=5 * n / memory.nbytes)},
        cost=Cost(n_bytes=5 * n),
    )


def bincount_idiom(confidence: Tensor, correct: Tensor) -> tuple[Tensor, ...]:
    cell = (confidence * N_BINS).long().clamp(max=N_BINS - 1)
    counts = torch.bincount(cell, minlength=N_BINS)
    right = torch.bincount(cell, correct.float(), minlength=N_BINS)
    return counts, right, torch.bincount(cell, confidence, minlength=N_BINS)


def one_hot_idiom(confidence: Tensor, correct: Tensor) -> tuple[Tensor, ...]:
    """The same without bincount, which waits for the GPU."""
    cell = (confidence * N_BINS).long().clamp(max=N_BINS - 1)
    hot = (cell[:, None] == torch.arange(N_BINS, device=cell.device)).float()
    return hot.sum(0), correct.float() @ hot, confidence @ hot


def agree_on_bins(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...] | Tensor) -> None:
    """The same ECE and the same bins, but for what lies within a rounding of an edge and for the error of the others'
    fp32 sums, 0.15 % in a bin of a million."""
    assert_close(expected_error(ours), expected_error(theirs), rtol=0, atol=1e-3)
    if not isinstance(theirs, Tensor):
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a.double().flatten(), b.double().flatten(), rtol=5e-3, atol=2)


def expected_error(result: tuple[Tensor, ...] | Tensor) -> Tensor:
    if isinstance(result, Tensor):
        return result.double()
    counts, right, sums = (x.double().flatten() for x in result)
    return (right - sums).abs().sum() / counts.sum()


def torchmetrics_error() -> Callable[..., Tensor] | str:
    try:
        from torchmetrics.functional.classification import binary_calibration_error
    except (ImportError, RuntimeError):
        return "torchmetrics is not installed"
    return binary_calibration_error
