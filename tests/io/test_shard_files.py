"""The files of shards, arrays, tables and tensors: mapped or read, and every bad one is one line that names it."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from pyfastcal.io import find_shards
from pyfastcal.io.shard_files import read_npy

from .data import D, N, classes, error_of, tensors, write_clip_benchmark, write_clip_retrieval


def test_float16_features_stay_float16(tmp_path: Path) -> None:
    read = write_clip_retrieval(tmp_path, dtype=torch.float16).read(classes())
    assert read.image_features.dtype == torch.float16
    assert torch.equal(read.image_features, tensors(torch.float16)["image_features"])


def test_images_are_mapped_and_not_read(tmp_path: Path) -> None:
    """A file of 1 GiB of nothing costs no memory until it is looked at."""
    with open(tmp_path / "big.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 22, 64)})
        file.truncate(file.tell() + (1 << 30))
    before = resident()
    assert read_npy(str(tmp_path / "big.npy")).shape == (1 << 22, 64)
    assert resident() - before < 1 << 24


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((N, D), ">f4"), "must hold float32, float16 or float64 numbers, got >f4"),
        (np.ones((N, D), "i8"), "must hold float32, float16 or float64 numbers, got <i8"),
        (np.asfortranarray(np.ones((N, D), "f4")), "must be in C order"),
        (np.ones(N, "f4"), "must hold one two-dimensional array"),
        (np.array([[{}]]), "must hold float32, float16 or float64 numbers, got |O"),
        (np.ones((0, D), "f4"), "image_features must not be empty"),
    ],
)
def test_bad_arrays(tmp_path: Path, array: np.ndarray, message: str) -> None:
    shard = write_clip_retrieval(tmp_path, label=pyarrow.array([0] * N))
    np.save(shard.name, array, allow_pickle=True)
    if not len(array):
        write = pyarrow.parquet.write_table
        write(pyarrow.table({"label": pyarrow.array([], pyarrow.int64())}), shard.labels)
    assert message in error_of(shard)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 999999999), }", "not a complete .npy file"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (10, -6), }", "must hold one two-dimensional array"),
        (b"__import__('os').getcwd()", "must hold one two-dimensional array"),
        (b"[" * 60000, "must hold one two-dimensional array"),
    ],
)
def test_hostile_array_headers(tmp_path: Path, header: bytes, message: str) -> None:
    shard = write_clip_retrieval(tmp_path)
    Path(shard.name).write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(4 * N * D))
    assert message in error_of(shard)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": None}, "label is missing (columns in the file: image_path)"),
        ({"label": [0.5] * N}, "label must be integers, got double"),
        ({"label": [None] + [1] * (N - 1)}, "label must be integers, got 1 missing"),
        ({"label": [9] * N}, "labels must lie in [0, 4), got 9"),
        ({"label": [0], "image_path": ["a"]}, "must have 10 rows as the image features have, got 1"),
    ],
)
def test_bad_columns(tmp_path: Path, columns: dict, message: str) -> None:
    shard = write_clip_retrieval(tmp_path, **columns)
    assert error_of(shard).startswith(f"{shard.labels}: {message}")


def test_another_label_column(tmp_path: Path) -> None:
    write_clip_retrieval(tmp_path, cls=np.ones(N, "i4"), label=None)
    (shard,) = find_shards([tmp_path], label_column="cls")
    assert shard.read(classes()).labels.tolist() == [1] * N


class Hostile:
    def __reduce__(self):
        return eval, ("1/0",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Hostile(), "must hold one tensor, got __builtin__ eval"),
        ({"a": torch.ones(2)}, "must hold one tensor, got a dict"),
        ([1] * 100_000, "must hold one tensor"),
        (torch.ones(N, D).to_sparse(), "must hold one tensor, got torch._utils _rebuild_sparse_tensor"),
        (torch.empty(N, D, device="meta"), "must hold one tensor, got"),
        (torch.ones(1, 1).expand(1 << 40, 1 << 20), "must hold all the numbers of its tensor"),
        (torch.ones(N, D, dtype=torch.complex64), "must hold one tensor, got torch ComplexFloatStorage"),
    ],
)
def test_bad_pt_files(tmp_path: Path, value: object, message: str) -> None:
    shard = write_clip_benchmark(tmp_path)
    torch.save(value, shard.name)
    assert message in error_of(shard)


def test_compressed_and_old_pt_files(tmp_path: Path) -> None:
    shard = write_clip_benchmark(tmp_path)
    torch.save(torch.zeros(1 << 20), shard.name)
    with zipfile.ZipFile(shard.name) as old:
        parts = [(part.filename, old.read(part)) for part in old.infolist()]
    with zipfile.ZipFile(shard.name, "w", zipfile.ZIP_DEFLATED) as new:
        for part in parts:
            new.writestr(*part)
    assert "stored, not compressed" in error_of(shard)
    torch.save(torch.ones(N, D), shard.name, _use_new_zipfile_serialization=False)
    assert "not a tensor that torch.save wrote" in error_of(shard)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    for shard in (write_clip_benchmark(tmp_path), write_clip_retrieval(tmp_path)):
        Path(shard.labels).unlink()
        assert error_of(shard) == f"{shard.labels}: no such file"
        os.mkfifo(shard.labels)
        assert error_of(shard) == f"{shard.labels}: is a FIFO, not a regular file"
