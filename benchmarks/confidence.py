"""Logits -> DAC's confidence -> the counts of a reliability diagram. The floor reads the logits once.

A small batch on a GPU is only taken to the confidence.
"""

import torch
from torch import Tensor
from torch.testing import assert_close

import pyfastcal as fc

from . import data, floors
from .bins import agree_on_bins, bincount_idiom
from .harness import Case, Floor
from .peaks import Cost

SIZES = ((50_000, 1000), (256, 1000), (1000, 20_000), (20, 1_000_000))
QUICK = ((500, 100),)
GPU_SIZES = ((1_000_000, 1000, "fp32"), (1_000_000, 1000, "bf16"), (256, 1000, "fp32"))
GPU_QUICK = ((500, 100, "bf16"), (64, 100, "fp32"))


def is_small_batch(size: tuple) -> bool:
    return size[0] <= 256 and isinstance(size[-1], str)


def work(size: tuple) -> str:
    n, n_classes, *dtype = size
    end = "" if is_small_batch(size) else " -> 10 bins"
    return f"logits {n:,} x {' '.join([f'{n_classes:,}', *dtype])} -> DAC confidence{end}"


def case(size: tuple, device: str = "cpu") -> Case:
    n, n_classes, *dtype = size
    logits, labels = data.clip_logits(n, n_classes, device=device)
    if dtype:
        logits = logits.to(data.DTYPES[dtype[0]])
    weight = data.class_weights(n_classes, device=device)
    if is_small_batch(size):
        return Case(
            lambda: fc.confidence(logits, class_weight=weight),
            confidence_idiom,
            (logits, weight),
            lambda ours, theirs: assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-5),
            device=device,
            graph=True,
        )

    def ours() -> tuple[Tensor, ...]:
        confidence, prediction = fc.confidence(logits, class_weight=weight)
        return fc.bin_counts(confidence, prediction == labels, n_bins=10)

    cost = Cost(n_bytes=logits.nbytes)
    floor = {"copy": floors.copy(logits.nbytes, device)} if dtype else {"logits.sum()": Floor(logits.sum)}
    return Case(ours, idiom, (logits, weight, labels), agree_on_bins, floors=floor, cost=cost, device=device)


def confidence_idiom(logits: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    factor = weight[logits.argmax(dim=1)]
    return tuple(torch.softmax(logits * factor[:, None], dim=1).max(dim=1))


def idiom(logits: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    confidence, prediction = confidence_idiom(logits, weight)
    return bincount_idiom(confidence, prediction == labels)
