"""Labelled images for feature extraction: a folder with a sub-folder per class, or one of torchvision's
datasets."""

import inspect
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ..installation.extras import require
from ..io.features import first_line
from ..io.paths import regular
from .adapters import image_transform

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MOST_ASPECT = 1000  # the longer side of an image over the shorter: more would unfold where the shorter is resized


class UnreadableImage(ValueError):
    """Names the file of an image, and says why it cannot be read."""


class ImageFolder(Dataset):
    """Images of ``path/<class>/**``, the classes in alphabetical order, the files of each too.

    Items are ``(preprocess(image), label)``, the image opened as RGB by Pillow; ``preprocess``:
    open_clip's, or transformers' image processor, or any function of the image. ``classes``: the names of
    the sub-folders as they are (prompts read underscores as spaces); ``files``: (path, label) of every item.
    ValueError for a missing folder, one without sub-folders, a class without images, and, naming the file,
    for an image that cannot be read: damaged, no regular file, of more pixels than
    ``PIL.Image.MAX_IMAGE_PIXELS`` (89,478,485), or one side more than ``MOST_ASPECT`` times the other."""

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
            images = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and not f.is_dir())
            if not images:
                raise ValueError(f"path must have images for every class, got none in {str(folder)!r}")
            self.files += [(image, label) for image in images]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.files[index]
        return self.preprocess(read_image(file)), label


def read_image(file: str | os.PathLike) -> Any:
    """The image in a file as RGB. :class:`UnreadableImage`, which names the file, where there is none."""
    image_module = require("PIL.Image", "clip")
    most = image_module.MAX_IMAGE_PIXELS  # None: whoever set it wants no limit
    try:
        name = regular(file)
    except ValueError as error:
        raise UnreadableImage(str(error)) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image_module.DecompressionBombWarning)  # at the same limit
            with image_module.open(name) as image:
                (short, long), pixels = sorted(image.size), image.width * image.height
                if most is not None and pixels > most:
                    raise ValueError(f"{pixels:,} pixels, more than PIL.Image.MAX_IMAGE_PIXELS, {most:,}")
                if long > MOST_ASPECT * short:
                    raise ValueError(f"sides of {short:,} and {long:,} pixels, more than {MOST_ASPECT} to 1")
                return _as_rgb(image)
    except Exception as error:  # whatever a damaged file makes Pillow's plugins raise
        raise UnreadableImage(f"{name}: not an image that can be read ({first_line(error)})") from error


def _as_rgb(image: Any) -> Any:
    """Pillow cuts grey values above 255 off where it converts; those of 16 bits lose their lower 8 instead, as in
    colour images."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):  # I of up to 65535
        grey = np.asarray(image).astype(np.int64) >> 8
        image = require("PIL.Image", "clip").fromarray(grey.astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits, mode {image.mode}, do not say what is white: save them with 8 or 16")
    return image.convert("RGB")


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
