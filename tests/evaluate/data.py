"""Splits of tuned features, and shards of them."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from pyfastcal.evaluate import methods
from pyfastcal.io import FeatureSet, Shard, find_shards

METHODS = tuple(methods.METHODS)
SIZES = (1, 400, 37, 255, 256, 151)  # of the shards of a split


def pair(n: int = 400, c: int = 8, d: int = 32) -> tuple[FeatureSet, FeatureSet]:
    """A new and a base split of a model whose text features moved away from their zero-shot places."""
    g = torch.Generator().manual_seed(1)
    zeroshot = normalize(torch.randn(1, d, generator=g) + torch.randn(2 * c, d, generator=g), dim=-1)
    tuned = normalize(zeroshot + 0.08 * torch.randn(2 * c, d, generator=g), dim=-1)
    splits = []
    for first in (c, 0):
        labels = torch.randint(0, c, (n,), generator=g)
        images = zeroshot[first + labels] + 0.17 * torch.randn(n, d, generator=g)
        rows = slice(first, first + c)
        splits.append(FeatureSet(images, tuned[rows], labels, 30.0, zeroshot[rows]))
    return splits[0], splits[1]


def write(folder: Path, features: FeatureSet, sizes: tuple[int, ...] = SIZES) -> list[Shard]:
    """``features`` in shards of these sizes, without the classes."""
    folder.mkdir(exist_ok=True)
    for index, (images, labels) in enumerate(
        zip(features.image_features.split(sizes), features.labels.split(sizes), strict=True)
    ):
        tensors = {"image_features": images.contiguous(), "labels": labels.contiguous()}
        save_file(tensors, folder / f"{index:03}.safetensors")
    return find_shards([folder])


def spoil(shard: Shard, row: int = -1) -> None:
    """Makes a row of images NaN."""
    tensors = load_file(shard.name)
    tensors["image_features"][row] = torch.nan
    save_file(tensors, shard.name)
