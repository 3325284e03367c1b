"""Shards of every kind, as their writers leave them, of the same images."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from pyfastcal.io import ClassSet, Shard, find_shards
from pyfastcal.io.shards import batches

N, C, D = 10, 4, 6


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "image_features": torch.randn(N, D, generator=g).to(dtype),
        "labels": torch.randint(0, C, (N,), generator=g),
        "text_features": torch.randn(C, D, generator=g).to(dtype),
        "logit_scale": torch.tensor(30.0),
    }


def classes(**changed: object) -> ClassSet:
    return ClassSet(**{"text_features": tensors()["text_features"], "logit_scale": 30.0, **changed})


def write_clip_retrieval(
    folder: Path, number: str = "0", dtype: torch.dtype = torch.float32, **columns: object
) -> Shard:
    """What clip-retrieval's writer leaves."""
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    np.save(folder / "img_emb" / f"img_emb_{number}.npy", tensors(dtype)["image_features"].numpy())
    columns = {"image_path": [f"{i}.jpg" for i in range(N)], "label": tensors()["labels"].numpy()} | columns
    table = pyarrow.table({name: column for name, column in columns.items() if column is not None})
    pyarrow.parquet.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    return find_shards([folder])[0]


def write_clip_benchmark(folder: Path, split: str = "val") -> Shard:
    """What clip_benchmark's linear probe leaves."""
    torch.save(tensors()["image_features"], folder / f"features_{split}.pt")
    torch.save(tensors()["labels"], folder / f"targets_{split}.pt")
    return find_shards([folder / f"features_{split}.pt"])[0]


def write_safetensors(folder: Path, name: str = "a", **changed: torch.Tensor | None) -> Shard:
    found = {key: value for key, value in (tensors() | changed).items() if value is not None}
    save_file(found, folder / f"{name}.safetensors")
    return find_shards([folder / f"{name}.safetensors"])[0]


def error_of(shard: Shard, of: ClassSet | None = None) -> str:
    """The one line that reading all of the shard ends with."""
    with pytest.raises(ValueError) as caught:
        list(batches(shard, shard.read(of or classes())))
    message = str(caught.value)
    assert "\n" not in message
    assert any(message.startswith(f"{name}: ") for name in shard.files), message
    return message
