"""Shards: the three kinds give the same images, each is read once, and every bad one is one line that names it."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyfastcal.evaluate import evaluate_shards
from pyfastcal.io import Shard, find_shards, load_classes
from pyfastcal.io.shards import batches

from .data import C, D, N, classes, error_of, tensors, write_clip_benchmark, write_clip_retrieval, write_safetensors


@pytest.mark.parametrize("write", [write_safetensors, write_clip_retrieval, write_clip_benchmark])
def test_all_kinds_hold_the_same(tmp_path: Path, write) -> None:
    shard = write(tmp_path)
    read = shard.read(classes())
    assert torch.equal(read.image_features, tensors()["image_features"])
    assert torch.equal(read.labels, tensors()["labels"]) and read.labels.dtype == torch.int64
    assert torch.equal(read.text_features, tensors()["text_features"]) and read.logit_scale == 30.0


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


def test_a_changed_shard_keeps_its_other_fields(tmp_path: Path) -> None:
    """Fields that nobody asks for do no harm."""
    shard = write_safetensors(tmp_path, weights=torch.ones(3))
    assert "weights" in load_file(shard.name)
    assert len(shard.read(classes()).labels) == N
