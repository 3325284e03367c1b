"""Logits -> DAC's confidence -> the counts of a reliability diagram. The floor reads the logits once."""

import torch
from torch import Tensor

import pyfastcal as fc

from . import data
from .bins import agree_on_bins, bincount_idiom
from .harness import Case, Floor

SIZES = ((50_000, 1000), (256, 1000))
QUICK = ((500, 100),)


def work(size: tuple[int, int]) -> str:
    n, n_classes = size
    return f"logits {n:,} x {n_classes:,} -> DAC confidence -> 10 bins"


def case(size: tuple[int, int]) -> Case:
    logits, labels = data.clip_logits(*size)
    weight = data.class_weights(size[1])

    def ours() -> tuple[Tensor, ...]:
        confidence, prediction = fc.confidence(logits, class_weight=weight)
        return fc.bin_counts(confidence, prediction == labels, n_bins=10)

    return Case(ours, idiom, (logits, weight, labels), agree_on_bins, floors={"logits.sum()": Floor(logits.sum)})


def idiom(logits: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    factor = weight[logits.argmax(dim=1)]
    probabilities = torch.softmax(logits * factor[:, None], dim=1)
    confidence, prediction = probabilities.max(dim=1)
    return bincount_idiom(confidence, prediction == labels)
