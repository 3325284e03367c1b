import numpy as np
import pytest
import torch
from PIL import Image

from pyfastcal.clip import ImageFolder, encode_dataset, torchvision_dataset
from pyfastcal.clip.datasets import read_image


@pytest.fixture
def folder(tmp_path):
    """Two classes, one of them with a sub-folder; a grey, a colour and a transparent image; a file that
    is none."""
    for i, file in enumerate(["cat/b.png", "cat/more/a.jpg", "dog/c.png"]):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = ("L", "RGB", "RGBA")[i]
        Image.new(mode, (40, 30), 50 * (i + 1) if mode == "L" else (50 * (i + 1),) * len(mode)).save(path)
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_folder_of_classes(folder, clip):
    dataset = ImageFolder(folder, clip.preprocess)
    assert dataset.classes == ["cat", "dog"] and len(dataset) == 3
    assert [(path.name, label) for path, label in dataset.files] == [("b.png", 0), ("a.jpg", 0), ("c.png", 1)]
    image, label = dataset[2]
    assert image.shape == (3, 32, 32) and label == 1
    features, labels = encode_dataset(clip.model, dataset, batch_size=2)
    assert features.shape == (3, 64) and labels.tolist() == [0, 0, 1]
    expected = torch.stack([dataset[i][0] for i in range(3)])
    torch.testing.assert_close(features, clip.model.encode_image(expected, normalize=True))


def test_loading_in_worker_processes(folder, clip):
    dataset = ImageFolder(folder, clip.preprocess)
    alone, _ = encode_dataset(clip.model, dataset)
    parallel, labels = encode_dataset(clip.model, dataset, batch_size=1, num_workers=1)
    torch.testing.assert_close(parallel, alone)
    assert labels.tolist() == [0, 0, 1]


def test_what_is_wrong_with_a_folder_is_said(folder, clip, tmp_path):
    (folder / "dog" / "c.png").write_bytes((folder / "dog" / "c.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"dog/c.png: not an image that can be read"):
        ImageFolder(folder, clip.preprocess)[2]
    (folder / "emu").mkdir()
    with pytest.raises(ValueError, match=r"^path must have images for every class, got none in .*emu"):
        ImageFolder(folder, clip.preprocess)
    with pytest.raises(ValueError, match=r"^path must be a folder with a sub-folder per class, got .*nowhere"):
        ImageFolder(tmp_path / "nowhere", clip.preprocess)
    with pytest.raises(ValueError, match=r"^path must have a sub-folder per class"):
        ImageFolder(folder / "cat" / "more", clip.preprocess)


def test_grey_values_of_16_bits(tmp_path):
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    expected = np.repeat((ramp >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    Image.fromarray(ramp).save(tmp_path / "grey.tif")
    Image.fromarray(ramp.astype(">u2")).save(tmp_path / "swapped.tif")
    (tmp_path / "grey.pgm").write_bytes(b"P5 8 8 65535\n" + ramp.astype(">u2").tobytes())
    for name in ("grey.png", "grey.tif", "swapped.tif", "grey.pgm"):
        assert np.array_equal(np.asarray(read_image(tmp_path / name)), expected), name


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_grey_values_without_a_white_are_refused(tmp_path, dtype):
    Image.fromarray(np.arange(64, dtype=dtype).reshape(8, 8)).save(tmp_path / "grey.tif")
    with pytest.raises(
        ValueError, match=r"grey.tif: not an image that can be read \(pixels of 32 bits, mode [IF], do not"
    ):
        read_image(tmp_path / "grey.tif")


def test_torchvision_datasets(tmp_path, clip):
    with pytest.raises(ValueError, match=r"^root: CIFAR10 cannot be opened in "):
        torchvision_dataset("CIFAR10", tmp_path, clip.preprocess)
    with pytest.raises(
        ValueError, match=r"^name must be one of torchvision.datasets, such as 'CIFAR10', got 'Nowhere'"
    ):
        torchvision_dataset("Nowhere", tmp_path, clip.preprocess)
    dataset = torchvision_dataset("FakeData", tmp_path, clip.preprocess, size=5, image_size=(3, 40, 40), num_classes=2)
    features, labels = encode_dataset(clip.model, dataset)
    assert features.shape == (5, 64) and set(labels.tolist()) <= {0, 1}
