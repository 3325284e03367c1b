"""The images of one split in many files, each a shard, mapped into memory rather than read.

==================== =============================================== ==========================================
written by           files                                           keys
==================== =============================================== ==========================================
``pyfastcal``        ``*.safetensors``, as ``io`` describes          ``image_features`` and ``labels``; what is
                                                                     of the classes may be left out
clip-retrieval       a folder with ``img_emb/img_emb_*.npy`` and     the labels are an integer column of the
                     ``metadata/metadata_*.parquet``                 parquet file
clip_benchmark       ``features_*.pt`` with ``targets_*.pt``         one tensor in each
==================== =============================================== ==========================================

Files are not trusted: what their headers claim is compared with their size before anything is mapped or
allocated, a ``.pt`` file may hold one plain tensor and no other Python object, and a ``.npy`` header is never
evaluated. Whatever is wrong with a file is a one-line ValueError that names it.
"""

import glob
import os
import pickletools
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from ..arguments import checks
from ..installation.extras import require
from .features import ClassSet, FeatureSet, first_line, load_classes, read_fields
from .paths import identity, named_once, regular

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
            return {"image_features": _read_pt(self.name), "labels": _read_pt(self.labels)}
        images = _read_npy(self.name)
        return {"image_features": images, "labels": _read_column(self.labels, self.label_column, len(images))}


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


# numpy's header is a Python literal; of all there could be, this is what a plain array has
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{0,4})', 'fortran_order': (True|False), "
    rb"'shape': \((\d{1,18}), (\d{1,18})\), \} *\n?"
)
_NPY_DTYPES = {b"<f4": torch.float32, b"<f2": torch.float16, b"<f8": torch.float64}


def _read_npy(name: str) -> Tensor:
    """A two-dimensional ``.npy`` array of little-endian floats, mapped."""
    size = _size(name)
    with open(name, "rb") as file:
        magic = file.read(8)
        long = magic[6:7] > b"\1"
        length = int.from_bytes(file.read(4 if long else 2), "little")
        if magic[:6] != b"\x93NUMPY" or not b"\1\0" <= magic[6:8] <= b"\3\0":
            raise ValueError(f"{name}: not a .npy file")
        if length > 65535 or file.tell() + length > size:
            raise ValueError(f"{name}: not a complete .npy file (a header of {length} bytes in a file of {size})")
        header = _NPY_HEADER.fullmatch(file.read(length))
        start = file.tell()
    if header is None:
        raise ValueError(f"{name}: must hold one two-dimensional array, its header says otherwise")
    kind, fortran, rows, columns = header.groups()
    if kind not in _NPY_DTYPES:
        raise ValueError(f"{name}: must hold float32, float16 or float64 numbers, got {kind.decode()}")
    if fortran == b"True":
        raise ValueError(f"{name}: must be in C order, got Fortran order")
    shape, dtype = (int(rows), int(columns)), _NPY_DTYPES[kind]
    needed = shape[0] * shape[1] * dtype.itemsize
    if start + needed != size:
        raise ValueError(
            f"{name}: not a complete .npy file ({size - start} bytes of data where {shape} needs {needed})"
        )
    if not needed:
        return torch.empty(shape, dtype=dtype)
    mapped = torch.from_file(name, shared=False, size=size, dtype=torch.uint8)
    if start % dtype.itemsize:
        raise ValueError(f"{name}: the data is not aligned, write it with numpy.save")
    return mapped[start:].view(dtype).view(shape)


_PT_STORAGES = "Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Byte"
_PT_GLOBALS = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"}
_PT_GLOBALS |= {f"torch {kind}Storage" for kind in _PT_STORAGES}
_PT_PICKLE = 1 << 14  # bytes; that of a tensor has fewer than 300


def _read_pt(name: str) -> Tensor:
    """The tensor that ``torch.save`` wrote, mapped. The pickle in the file may build one tensor and nothing
    else, and every part of the archive must be stored as it is: compressed ones could unfold to any size."""
    size = _size(name)
    try:
        with open(name, "rb") as file:
            if file.read(4) != b"PK\3\4":  # older versions of torch wrote another format
                raise ValueError("not a zip archive")
        with zipfile.ZipFile(name) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED or part.file_size > size for part in parts):
                raise ValueError("its parts must be stored, not compressed")
            pickles = [part for part in parts if part.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > _PT_PICKLE:
                raise ValueError("must hold one tensor")
            for opcode, argument, _ in pickletools.genops(archive.read(pickles[0])):
                plain = opcode.name not in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4")
                if not plain or (opcode.name == "GLOBAL" and argument not in _PT_GLOBALS):
                    raise ValueError(f"must hold one tensor, got {argument or opcode.name}")
        tensor = torch.load(name, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a damaged archive makes its readers raise
        raise ValueError(f"{name}: not a tensor that torch.save wrote ({first_line(error)})") from error
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name}: must hold one tensor, got {checks.describe(tensor)}")
    if tensor.numel() * tensor.itemsize > min(size, tensor.untyped_storage().nbytes()):
        got = checks.describe(tensor)
        raise ValueError(f"{name}: must hold all the numbers of its tensor, got {got} in {size} bytes")
    return tensor.detach()


def _read_column(name: str, column: str, rows: int) -> Tensor:
    """An integer column of a parquet file as (rows,) int64."""
    _size(name)
    pyarrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    try:
        with parquet.ParquetFile(name, memory_map=True) as file:
            if file.metadata.num_rows != rows:
                raise ValueError(f"must have {rows} rows as the image features have, got {file.metadata.num_rows}")
            names = file.schema_arrow.names
            if column not in names:
                raise ValueError(f"{column} is missing (columns in the file: {', '.join(names) or 'none'})")
            kind = file.schema_arrow.field(column).type
            if not pyarrow.types.is_integer(kind):
                raise ValueError(f"{column} must be integers, got {kind}")
            values = file.read(columns=[column], use_threads=False).column(column)
        if values.null_count:
            raise ValueError(f"{column} must be integers, got {values.null_count} missing")
        return torch.from_numpy(values.to_numpy().astype("int64"))
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise ValueError(f"{name}: {first_line(error)}") from error


def _size(name: str) -> int:
    """Bytes of a regular file; ValueError where there is none."""
    return os.path.getsize(regular(name))
