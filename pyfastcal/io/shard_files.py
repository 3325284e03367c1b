"""The files that other programs write of a shard, read: ``.npy``, ``.pt``, a column of a parquet file.

They are not trusted: what their headers claim is compared with their size before anything is mapped or allocated, a
``.pt`` file may hold one plain tensor and no other Python object, and a ``.npy`` header is never evaluated. Whatever is
wrong with a file is a one-line ValueError that names it.
"""

import os
import pickletools
import re
import zipfile

import torch
from torch import Tensor

from ..arguments import checks
from ..installation.extras import require
from .features import first_line
from .paths import regular

# numpy's header is a Python literal; of all there could be, this is what a plain array has
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{0,4})', 'fortran_order': (True|False), "
    rb"'shape': \((\d{1,18}), (\d{1,18})\), \} *\n?"
)
_NPY_DTYPES = {b"<f4": torch.float32, b"<f2": torch.float16, b"<f8": torch.float64}


def read_npy(name: str) -> Tensor:
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


def read_pt(name: str) -> Tensor:
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


def read_column(name: str, column: str, rows: int) -> Tensor:
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
