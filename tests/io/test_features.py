"""Feature files: what is written comes back, and every bad file is one line that names file and key."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyfastcal.io import FeatureSet, load_features, save_features
from pyfastcal.io.paths import atomic_write


def features(n: int = 6, c: int = 4, d: int = 8, dtype: torch.dtype = torch.float32) -> FeatureSet:
    g = torch.Generator().manual_seed(0)
    return FeatureSet(
        image_features=torch.randn(n, d, generator=g).to(dtype),
        text_features=torch.randn(c, d, generator=g).to(dtype),
        labels=torch.randint(0, c, (n,), generator=g),
        logit_scale=87.5,
        zeroshot_text_features=torch.randn(c, d, generator=g).to(dtype),
        classnames=[f"Klasse {i} · ä" for i in range(c)],
        meta={"model": "ViT", "seed": 3},
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = features(dtype=dtype)
    saved.zeroshot_image_features = torch.randn(6, 5, dtype=dtype)
    saved.zeroshot_text_features = torch.randn(4, 5, dtype=dtype)
    saved.logit_bias = -10.0
    loaded = load_features(save_features(tmp_path / "a" / "f.safetensors", saved))
    for key, value in vars(saved).items():
        other = getattr(loaded, key)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, key
    assert loaded.image_features.dtype == dtype
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["f.safetensors"]


def test_optional_parts_may_be_left_out(tmp_path: Path) -> None:
    save_file(
        {
            "image_features": torch.ones(2, 3),
            "text_features": torch.eye(3),
            "labels": torch.tensor([0, 2], dtype=torch.int32),
            "logit_scale": torch.tensor([100.0]),
        },
        tmp_path / "plain.safetensors",
    )
    loaded = load_features(tmp_path / "plain.safetensors")
    assert loaded.zeroshot_text_features is None and loaded.classnames is None and loaded.meta == {}
    assert loaded.labels.dtype == torch.int64 and loaded.logit_scale == 100.0
    assert loaded.zeroshot_images is loaded.image_features


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    saved = features()
    saved.zeroshot_text_features = saved.text_features
    saved.zeroshot_image_features = saved.image_features.t().contiguous().t()  # same values, other strides
    loaded = load_features(save_features(tmp_path / "f.safetensors", saved))
    assert torch.equal(loaded.zeroshot_text_features, saved.text_features)
    assert torch.equal(loaded.zeroshot_image_features, saved.image_features)


BAD = {
    "text_features": lambda t: t.pop("text_features"),
    "labels": lambda t: t.pop("labels"),
    "logit_scale": lambda t: t.pop("logit_scale"),
    "image_features must have 2 dim": lambda t: t.update(image_features=torch.ones(6)),
    "image_features must be floating": lambda t: t.update(image_features=torch.ones(6, 8, dtype=torch.int64)),
    "image_features must not be empty": lambda t: t.update(image_features=torch.ones(0, 8)),
    "image_features must be finite": lambda t: t["image_features"][1].fill_(float("nan")),
    "text_features must be finite": lambda t: t["text_features"][0].fill_(float("inf")),
    "text_features must have 8 columns": lambda t: t.update(text_features=torch.ones(4, 7)),
    "zeroshot_text_features must have 8 columns": lambda t: t.update(zeroshot_text_features=torch.ones(4, 9)),
    "zeroshot_text_features must have 4 rows": lambda t: t.update(zeroshot_text_features=torch.ones(3, 8)),
    "zeroshot_image_features must have 6 rows": lambda t: t.update(zeroshot_image_features=torch.ones(5, 8)),
    "labels must have 6 entries": lambda t: t.update(labels=torch.zeros(5, dtype=torch.int64)),
    "labels must lie in [0, 4), got 4": lambda t: t.update(labels=torch.full((6,), 4)),
    "labels must lie in [0, 4), got -1": lambda t: t.update(labels=torch.full((6,), -1)),
    "labels must be integers": lambda t: t.update(labels=torch.zeros(6)),
    "logit_scale must be one number": lambda t: t.update(logit_scale=torch.ones(2)),
    "logit_scale must be a finite number": lambda t: t.update(logit_scale=torch.tensor(-1.0)),
    "logit_bias must be a finite number": lambda t: t.update(logit_bias=torch.tensor(float("nan"))),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_tensors_name_file_and_key(tmp_path: Path, message: str) -> None:
    path = save_features(tmp_path / "f.safetensors", features())
    tensors = load_file(path)
    BAD[message](tensors)
    save_file(tensors, path)
    with pytest.raises(ValueError) as caught:
        load_features(path)
    assert str(caught.value).startswith(f"{path}: {message}"), caught.value
    assert "\n" not in str(caught.value)


def test_missing_key_lists_what_is_there(tmp_path: Path) -> None:
    save_file({"image_features": torch.ones(2, 3), "labels": torch.zeros(2)}, tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match=r"text_features is missing \(keys in the file: image_features, labels\)"):
        load_features(tmp_path / "f.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classnames", '["a"', "classnames .metadata. must be JSON"),
        ("classnames", '["a"]', "classnames must have 4 entries"),
        ("classnames", "[1, 2, 3, 4]", "classnames must be a list of strings"),
        ("meta", "[]", "meta must be a dictionary"),
    ],
)
def test_bad_metadata(tmp_path: Path, key: str, value: str, message: str) -> None:
    path = save_features(tmp_path / "f.safetensors", features())
    save_file(load_file(path), path, metadata={key: value})
    with pytest.raises(ValueError, match=f"f.safetensors: {message}"):
        load_features(path)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    whole = save_features(tmp_path / "f.safetensors", features()).read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in (*range(0, 64, 7), len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.safetensors: not a complete safetensors file"):
            load_features(cut)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", json.dumps({"a": 1}).encode()])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="x: not a complete safetensors file"):
        load_features(tmp_path / "x")


def test_no_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none: no such file"):
        load_features(tmp_path / "none")
    with pytest.raises(ValueError, match="is a folder"):
        load_features(tmp_path)


def test_bad_features_are_not_written(tmp_path: Path) -> None:
    bad = features()
    bad.labels = bad.labels + 4
    with pytest.raises(ValueError, match="labels must lie in"):
        save_features(tmp_path / "f.safetensors", bad)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")

    def fail(name: str) -> None:
        Path(name).write_text("half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
