"""The images of one split in many files, each a shard, mapped into memory rather than read.

==================== =============================================== ==========================================
written by           files                                           keys
==================== =============================================== ==========================================
``pyfastcal``        ``*.safetensors``, as ``features`` describes    ``image_features`` and ``labels``; what is
                                                                     of the classes may be left out
clip-retrieval       a folder with ``img_emb/img_emb_*.npy`` and     the labels are an integer column of the
                     ``metadata/metadata_*.parquet``                 parquet file
clip_benchmark       ``features_*.pt`` with ``targets_*.pt``         one tensor in each
==================== =============================================== ==========================================

Files are not trusted: see ``shard_files``, which reads them. Whatever is wrong with one is a one-line ValueError that
names it.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from ..arguments import checks
from .features import ClassSet, FeatureSet, load_classes, read_fields
from .paths import identity, named_once
from .shard_files import read_column, read_npy, read_pt

BATCH = 1 << 23  # entries of image features looked at at a time
ROWS = 1 << 15  # and the most images: a batch has a few vectors of that many entries per method
LABEL_COLUMN = "label"
SERIAL = (1 << 15) - 1  # entries that torch looks at in the calling thread: its others are for the one who calibrates

_CLASS_FIELDS = ("text_features", "logit_scale", "zeroshot_text_features", "logit_bias", "classnames")


@dataclass(frozen=True)
class Shard:
    """One shard: what it is called in messages, the file of its images and, where they are apart, that of its
    labels."""

    name: str
    labels: str | None = None
    label_column: str = LABEL_COLUMN

    @property
    def files(self) -> tuple[str, ...]:
        return (self.name,) if self.labels is None else (self.name, self.labels)

    def read(self, classes: ClassSet) -> FeatureSet:
        """The mapped images of the shard, with ``classes``, which have been checked. All is checked here but
        for the values of the features, which :func:`batches` looks at.

        Raises:
            ValueError: naming the file: missing, damaged, a shape or dtype that does not fit, labels out of
                range, other classes than ``classes``.
        """
        found = self._tensors()
        texts, zeroshot = classes.text_features, classes.zeroshot_text_features
        images, zeroshot_images = found["image_features"], found.get("zeroshot_image_features")
        at = f"{self.name}: "
        checks.matrix(f"{at}image_features", images, columns=texts.shape[1], like="text_features", rows=True)
        if zeroshot_images is not None:
            if zeroshot is None:
                raise ValueError(f"{at}zeroshot_image_features need zeroshot_text_features, which the classes lack")
            width = zeroshot.shape[1]
            checks.matrix(f"{at}zeroshot_image_features", zeroshot_images, columns=width, like="zeroshot_text_features")
            if len(zeroshot_images) != len(images):
                wanted = f"{len(images)} rows as image_features has"
                got = checks.describe(zeroshot_images)
                raise ValueError(f"{at}zeroshot_image_features must have {wanted}, got {got}")
        elif zeroshot is not None and zeroshot.shape[1] != images.shape[1]:
            raise ValueError(
                f"{at}zeroshot_image_features is missing, the zeroshot_text_features have {zeroshot.shape[1]} columns "
                f"and image_features {images.shape[1]}"
            )
        at = f"{self.files[-1]}: "
        labels = _labels(f"{at}labels", found["labels"], len(images), len(texts))
        for key in _CLASS_FIELDS:
            if key in found and not _same(found[key], getattr(classes, key)):
                raise ValueError(f"{self.name}: {key} is not that of the classes that the shards are evaluated with")
        return FeatureSet(images, labels=labels, zeroshot_image_features=zeroshot_images, **vars(classes))

    def classes(self) -> ClassSet:
        """The classes that the shard itself carries; ValueError where it has none."""
        if self.labels is not None:
            raise ValueError(f"{self.name}: holds no text_features, the classes must be given apart")
        return load_classes(self.name)

    def _tensors(self) -> dict:
        """The fields of the shard, all but their shapes unchecked."""
        if self.labels is None:
            optional = ("zeroshot_image_features", *_CLASS_FIELDS)
            return read_fields(self.name, ("image_features", "labels"), optional)
        if self.name.endswith(".pt"):
            return {"image_features": read_pt(self.name), "labels": read_pt(self.labels)}
        images = read_npy(self.name)
        return {"image_features": images, "labels": read_column(self.labels, self.label_column, len(images))}


def batches(shard: Shard, features: FeatureSet) -> Iterator[FeatureSet]:
    """``features`` of ``shard`` in pieces of a fixed number of rows, each looked at for NaN and infinity. The
    pieces depend on the shard alone, so that whatever depends on them does not depend on who reads it."""
    n, dim = features.image_features.shape
    step = max(1, min(ROWS, BATCH // dim))
    per_class = vars(features.classes)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        part = {"image_features": features.image_features[rows]}
        if features.zeroshot_image_features is not None:
            part["zeroshot_image_features"] = features.zeroshot_image_features[rows]
        for key, value in part.items():
            if not all(isfinite(piece.sum()) for piece in _pieces(value)):
                checks.finite(f"{shard.name}: {key}", value)
        yield FeatureSet(labels=features.labels[rows], **part, **per_class)


def find_shards(paths: Sequence[str | os.PathLike], label_column: str = LABEL_COLUMN) -> list[Shard]:
    """The shards that ``paths`` name, in their order: files, folders and globs (``**`` too, sorted).

    A folder is one that clip-retrieval wrote, or has feature files or one pair of ``.pt`` files in it. The
    file that holds the labels of another is not a shard of its own.

    Raises:
        ValueError: naming the path: nothing there, a file of no known kind, a shard named twice.
    """
    shards: list[Shard] = []
    for path in map(os.fspath, paths):
        if is_glob(path):
            names = sorted(glob.glob(path, recursive=True))
            if not names:
                raise ValueError(f"{path}: no file matches")
        elif not os.path.exists(path):
            raise ValueError(f"{path}: no such file")
        else:
            names = [path]
        for name in names:
            found = _in_folder(name, label_column) if os.path.isdir(name) else [_shard(name, label_column)]
            shards += [shard for shard in found if shard is not None]
        if not shards:
            raise ValueError(f"{path}: holds labels, not image features")
    check_distinct(shards)
    return shards


def check_distinct(shards: Sequence[Shard]) -> None:
    """ValueError for a shard that is there twice, under whatever names: its images would count twice."""
    names = [shard.name for shard in shards]
    named_once("shards", names, map(identity, names))


def classes_of(shards: Sequence[Shard], skip_bad: bool = False) -> ClassSet:
    """The classes that the first shard carries; with ``skip_bad`` the first that has any. ValueError where none has."""
    for shard in shards if skip_bad else ():
        with suppress(ValueError):
            return shard.classes()
    return shards[0].classes()


def is_shards(path: str) -> bool:
    """Whether ``path`` names what :func:`find_shards` finds, rather than one feature file."""
    return is_glob(path) or os.path.isdir(path) or path.endswith((".npy", ".pt"))


def is_glob(path: str) -> bool:
    """Whether ``path`` is a pattern, rather than the name of a file that is there."""
    return glob.has_magic(path) and not os.path.exists(path)


def _in_folder(folder: str, label_column: str) -> list[Shard | None]:
    inside = Path(folder)
    for pattern in ("img_emb/img_emb_*.npy", "*.safetensors", "features_*.pt"):
        names = sorted(map(str, inside.glob(pattern)))
        if pattern.endswith(".pt") and len(names) > 1:
            several = ", ".join(Path(name).name for name in names[:3])
            raise ValueError(f"{folder}: holds several splits ({several}): name the files of one")
        if names:
            return [_shard(name, label_column) for name in names]
    raise ValueError(f"{folder}: holds no img_emb/img_emb_*.npy, *.safetensors or features_*.pt")


def _shard(name: str, label_column: str) -> Shard | None:
    """The shard whose images are in the file ``name``; None for a file of labels."""
    folder, base = os.path.split(name)
    if base.endswith(".safetensors"):
        return Shard(name)
    if base.endswith(".npy"):
        number = base.removesuffix(".npy").rpartition("_")[2]
        labels = os.path.join(os.path.dirname(folder), "metadata", f"metadata_{number}.parquet")
        return Shard(name, labels, label_column)
    if base.startswith("features_") and base.endswith(".pt"):
        return Shard(name, os.path.join(folder, f"targets_{base.removeprefix('features_')}"))
    if base.startswith("targets_") and base.endswith(".pt"):
        return None
    raise ValueError(f"{name}: must be a .safetensors, an img_emb_*.npy or a features_*.pt file")


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    """The rows of ``x``, as many at a time as wake none of torch's threads."""
    return x.split(max(1, SERIAL // max(1, x[:1].numel())))


def _labels(name: str, x: Tensor, size: int, n_classes: int) -> Tensor:
    """``checks.labels`` as int64, piece by piece."""
    if not isinstance(x, Tensor) or x.ndim != 1 or len(x) != size:
        checks.labels(name, x, size, n_classes, of="image")
    pieces = [checks.labels(name, piece, len(piece), n_classes, of="image").long() for piece in _pieces(x)]
    return x if x.dtype == torch.int64 else torch.cat(pieces)


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and all(map(torch.equal, _pieces(one), _pieces(other)))
    return one == other
