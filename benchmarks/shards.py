"""A split in shards on the disk -> all metrics of the uncalibrated confidence. The floor is the two passes of
``similarity_confidence`` over the features that the metrics are made of, with the features in memory: what is above it
is reading, checking and counting."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

import pyfastcal as fc
from pyfastcal.evaluate import evaluate_shards
from pyfastcal.io import ClassSet, Shard, find_shards

from . import data
from .harness import Case, Floor
from .peaks import Cost

SIZES = ((8, 8192, 512, 1000),)
QUICK = ((3, 100, 64, 20),)
GPU_SIZES = GPU_QUICK = ()


def work(size: tuple[int, int, int, int]) -> str:
    shards, n, dim, n_classes = size
    return f"{shards} shards of {n:,} x {dim} float16, {n_classes:,} classes -> all metrics"


def case(size: tuple[int, int, int, int], device: str = "cpu") -> Case:
    count, n, dim, n_classes = size
    image, text, labels = data.clip_features(n * count, n_classes, dim)
    image = image.half()
    kept = tempfile.TemporaryDirectory(prefix="pyfastcal-shards")
    for i, (images, right) in enumerate(zip(image.split(n), labels.split(n), strict=True)):
        save_file({"image_features": images.clone(), "labels": right.clone()}, Path(kept.name, f"{i:03}.safetensors"))
    shards, classes = find_shards([kept.name]), ClassSet(text, data.LOGIT_SCALE)

    cost = Cost(4.0 * n * count * dim * n_classes, image.nbytes)

    def ours(folder: tempfile.TemporaryDirectory = kept) -> list[float]:  # which is deleted with this function
        (row,) = evaluate_shards(shards, classes, methods=["conf"]).rows
        return [row["accuracy"], row["ece"], row["nll"], row["brier"]]

    def passes() -> None:
        for images in image.split(n):
            for factor in (1, 2):
                fc.similarity_confidence(images, text, factor * data.LOGIT_SCALE)

    return Case(ours, idiom, (shards, text), agree, floors={"two passes": Floor(passes)}, cost=cost)


def idiom(shards: list[Shard], text: Tensor) -> list[float]:
    """The loop that one writes: probabilities of a shard, what they score, and all confidences in a list."""
    confidences, correct, totals = [], [], torch.zeros(2, dtype=torch.float64)
    text = normalize(text, dim=1)
    for shard in shards:
        found = load_file(shard.name)
        labels = found["labels"]
        probs = (data.LOGIT_SCALE * normalize(found["image_features"].float(), dim=1) @ text.T).softmax(dim=1)
        confidence, prediction = probs.max(dim=1)
        confidences.append(confidence)
        correct.append(prediction == labels)
        true = probs.gather(1, labels[:, None])[:, 0]
        totals += torch.stack([-true.log().sum(), (probs.square().sum(1) - 2 * true + 1).sum()])
    confidence, right = torch.cat(confidences), torch.cat(correct).double()
    cell = (confidence * 10).long().clamp(max=9)
    gaps = torch.bincount(cell, confidence.double() - right, minlength=10)
    return [float(right.mean()), float(gaps.abs().sum() / len(right)), *(totals / len(right)).tolist()]


def agree(ours: list[float], theirs: list[float]) -> None:
    assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-3, atol=1e-3)
