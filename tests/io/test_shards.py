"""Shards: the three kinds of files give the same images, and every bad one is one line that names it."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

from pyfastcal.evaluate import evaluate_shards
from pyfastcal.io import ClassSet, Shard, find_shards, load_classes
from pyfastcal.io.shard_files import read_npy
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


@pytest.mark.parametrize("write", [write_safetensors, write_clip_retrieval, write_clip_benchmark])
def test_all_kinds_hold_the_same(tmp_path: Path, write) -> None:
    shard = write(tmp_path)
    read = shard.read(classes())
    assert torch.equal(read.image_features, tensors()["image_features"])
    assert torch.equal(read.labels, tensors()["labels"]) and read.labels.dtype == torch.int64
    assert torch.equal(read.text_features, tensors()["text_features"]) and read.logit_scale == 30.0


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


def test_batches_are_pieces_of_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyfastcal.io.shards.BATCH", 3 * D)
    zeroshot = torch.randn(N, D)
    shard = write_safetensors(tmp_path, zeroshot_image_features=zeroshot)
    of = classes(zeroshot_text_features=torch.randn(C, D))
    parts = list(batches(shard, shard.read(of)))
    assert [len(part.labels) for part in parts] == [3, 3, 3, 1]
    assert torch.equal(torch.cat([part.image_features for part in parts]), tensors()["image_features"])
    assert torch.equal(torch.cat([part.zeroshot_images for part in parts]), zeroshot)
    assert torch.equal(torch.cat([part.labels for part in parts]), tensors()["labels"])


def test_classes_come_from_a_shard_or_from_a_file_of_their_own(tmp_path: Path) -> None:
    shard = write_safetensors(tmp_path)
    assert torch.equal(shard.classes().text_features, tensors()["text_features"])
    save_file(
        {key: tensors()[key] for key in ("text_features", "logit_scale")},
        tmp_path / "classes.safetensors",
        metadata={"classnames": '["a", "b", "c", "d"]'},
    )
    alone = load_classes(tmp_path / "classes.safetensors")
    assert alone.classnames == list("abcd") and alone.logit_scale == 30.0
    bare = write_safetensors(tmp_path, "bare", text_features=None, logit_scale=None)
    assert torch.equal(bare.read(alone).labels, tensors()["labels"])
    with pytest.raises(ValueError, match=r"bare\.safetensors: text_features is missing"):
        bare.classes()
    with pytest.raises(ValueError, match=r"features_val\.pt: holds no text_features"):
        write_clip_benchmark(tmp_path).classes()


def test_what_names_shards(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_safetensors(tmp_path, name)
    write_clip_retrieval(tmp_path / "emb", "00")
    write_clip_retrieval(tmp_path / "emb", "01")
    (tmp_path / "probe").mkdir()
    write_clip_benchmark(tmp_path / "probe", "val")

    def names(*paths: object) -> list[str]:
        return [Path(shard.name).name for shard in find_shards(paths)]

    assert names(tmp_path / "*.safetensors") == names(tmp_path) == ["a.safetensors", "b.safetensors"]
    assert names(tmp_path / "b.safetensors", tmp_path / "a.safetensors") == ["b.safetensors", "a.safetensors"]
    assert names(tmp_path / "emb") == names(tmp_path / "emb/**/*.npy") == ["img_emb_00.npy", "img_emb_01.npy"]
    assert find_shards([tmp_path / "emb"])[1].labels == str(tmp_path / "emb/metadata/metadata_01.parquet")
    assert names(tmp_path / "probe") == names(tmp_path / "probe" / "*.pt") == ["features_val.pt"]
    write_clip_benchmark(tmp_path / "probe", "train")
    assert names(tmp_path / "probe" / "features_t*") == ["features_train.pt"]
    for path, message in {
        "probe": "holds several splits (features_train.pt, features_val.pt)",
        "probe/targets_val.pt": "holds labels, not image features",
        "none": "no such file",
        "*.none": "no file matches",
        "emb/metadata/*.parquet": "must be a .safetensors",
        "emb/metadata": "holds no img_emb",
    }.items():
        with pytest.raises(ValueError) as caught:
            find_shards([tmp_path / path])
        assert message in str(caught.value) and str(caught.value).startswith(str(tmp_path)), caught.value


def test_one_file_is_one_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called: its images would count twice."""
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path, "a")
    write_clip_retrieval(tmp_path / "emb")
    (tmp_path / "more").mkdir()
    Path("link").symlink_to(tmp_path)
    Path("more/b.safetensors").symlink_to("../a.safetensors")
    os.link("a.safetensors", "more/c.safetensors")
    for paths in (
        ["a.safetensors", "./a.safetensors"],
        ["a.safetensors", "more/../a.safetensors"],
        ["a.safetensors", "link/a.safetensors"],
        ["a.safetensors", "more/b.safetensors"],
        ["more"],  # a link and a hard link
        [".", "a.safetensors"],
        [".", "link"],
        ["*.safetensors", "*.safetensors"],
        ["emb", "emb/img_emb/*.npy"],
        ["emb", "emb/../emb"],
    ):
        with pytest.raises(ValueError, match="is named twice among the shards"):
            find_shards(paths)
    with pytest.raises(ValueError, match=r"\./a\.safetensors: is named twice .* \(also as a\.safetensors\)"):
        find_shards(["a.safetensors", "./a.safetensors"])
    twice = [Shard("a.safetensors"), Shard("link/a.safetensors")]
    with pytest.raises(ValueError, match="is named twice among the shards"):
        evaluate_shards(twice, classes(), methods=["conf"])


BAD = {
    "image_features is missing": {"image_features": None},
    "labels is missing": {"labels": None},
    "image_features must have 2 dim": {"image_features": torch.ones(N)},
    "image_features must be floating": {"image_features": torch.ones(N, D, dtype=torch.float8_e4m3fn)},
    "image_features must have 6 columns": {"image_features": torch.ones(N, D + 1)},
    "image_features must not be empty": {"image_features": torch.ones(0, D)},
    "image_features must be finite": {"image_features": torch.full((N, D), torch.nan)},
    "labels must lie in [0, 4), got 4": {"labels": torch.full((N,), 4, dtype=torch.uint16)},
    "labels must have 10 entries": {"labels": torch.zeros(N - 1, dtype=torch.int64)},
    "text_features is not that": {"text_features": torch.ones(C, D)},
    "logit_scale is not that": {"logit_scale": torch.tensor(31.0)},
    "zeroshot_image_features need zeroshot": {"zeroshot_image_features": torch.ones(N, D)},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_safetensors(tmp_path: Path, message: str) -> None:
    assert message in error_of(write_safetensors(tmp_path, **BAD[message]))


def test_bad_zeroshot_features(tmp_path: Path) -> None:
    other = classes(zeroshot_text_features=torch.ones(C, D + 2))
    assert "zeroshot_image_features is missing" in error_of(write_safetensors(tmp_path), other)
    for rows, columns, message in ((N - 1, D + 2, "must have 10 rows"), (N, D, "must have 8 columns")):
        shard = write_safetensors(tmp_path, zeroshot_image_features=torch.ones(rows, columns))
        assert f"zeroshot_image_features {message}" in error_of(shard, other)
    shard = write_safetensors(tmp_path, zeroshot_image_features=torch.full((N, D + 2), torch.inf))
    assert "zeroshot_image_features must be finite" in error_of(shard, other)


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


def test_a_changed_shard_keeps_its_other_fields(tmp_path: Path) -> None:
    """Fields that nobody asks for do no harm."""
    shard = write_safetensors(tmp_path, weights=torch.ones(3))
    assert "weights" in load_file(shard.name)
    assert len(shard.read(classes()).labels) == N
