"""Labelled images for feature extraction: a folder with a sub-folder per class, or one of torchvision's
datasets."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from .._optional import require
from .adapters import image_transform

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


class ImageFolder(Dataset):
    """Images of ``path/<class>/**``, the classes in alphabetical order, the files of each too.

    Items are ``(preprocess(image), label)``, the image opened as RGB by Pillow; ``preprocess``:
    open_clip's, or transformers' image processor, or any function of the image. ``classes``: the names of
    the sub-folders, underscores read as spaces only by who asks for it; ``files``: (path, label) of every
    item. ValueError for a missing folder, one without sub-folders, a class without images, and, naming
    the file, for an image that cannot be read."""

    def __init__(self, path: str | os.PathLike, preprocess: Callable[[Any], Tensor]) -> None:
        root = Path(path)
        if not root.is_dir():
            raise ValueError(f"path must be a folder with a sub-folder per class, got {str(path)!r}")
        folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
        if not folders:
            raise ValueError(f"path must have a sub-folder per class, got {str(path)!r} with none")
        self.preprocess = image_transform(preprocess)
        self.classes = [folder.name for folder in folders]
        self.files: list[tuple[Path, int]] = []
        for label, folder in enumerate(folders):
            images = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
            if not images:
                raise ValueError(f"path must have images for every class, got none in {str(folder)!r}")
            self.files += [(image, label) for image in images]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.files[index]
        image_module = require("PIL.Image", "clip")
        try:
            with image_module.open(file) as image:
                return self.preprocess(image.convert("RGB")), label
        except (OSError, SyntaxError) as error:  # Pillow's plugins raise both for broken files
            raise ValueError(f"{file}: not an image that can be read ({error})") from error


def torchvision_dataset(
    name: str,
    root: str | os.PathLike,
    preprocess: Callable[[Any], Tensor],
    *,
    train: bool = False,
    **options: Any,
) -> Dataset:
    """The dataset ``torchvision.datasets.<name>`` below ``root``, with ``preprocess`` as its transform.

    ``train`` chooses the split, by whichever of ``train=`` and ``split=`` the dataset has; ``options`` go
    to it, so ``split="val"`` and ``download=True`` work. Its ``classes``, where it has them, are its
    class names. ValueError for a name that torchvision lacks, and where the files are not there."""
    datasets = require("torchvision.datasets", "clip")
    kind = getattr(datasets, name, None)
    if not inspect.isclass(kind) or name not in datasets.__all__:
        raise ValueError(f"name must be one of torchvision.datasets, such as 'CIFAR10', got {name!r}")
    parameters = inspect.signature(kind).parameters
    if "train" in parameters:
        options.setdefault("train", train)
    elif "split" in parameters:
        options.setdefault("split", "train" if train else "test")
    if "root" in parameters:
        options["root"] = os.fspath(root)
    try:
        return kind(transform=image_transform(preprocess), **options)
    except (RuntimeError, FileNotFoundError, TypeError, ModuleNotFoundError) as error:
        raise ValueError(f"root: {name} cannot be opened in {os.fspath(root)!r}: {error}") from error
