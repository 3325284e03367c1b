"""Files are not trusted: whatever is in one, reading it gives its content or one line that names it. Never a crash, a
hang, another exception, or memory that the file's size does not justify.

``PYFASTCAL_FUZZ=20000 python -m pytest tests/io/test_fuzz.py`` looks further than CI does.
"""

import functools
import json
import os
import pickle
import resource
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyfastcal.io import find_shards, load_classes, load_features
from pyfastcal.io.shards import batches

from .data import C, D, N, classes, write_clip_benchmark, write_clip_retrieval, write_safetensors

MEMORY = 1 << 28  # more than the largest file here could ever need
SECONDS = 10  # for what takes a millisecond
bounded = settings(
    max_examples=int(os.environ.get("PYFASTCAL_FUZZ", 100)),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def limited():
    """No mapping or allocation beyond MEMORY more than now: one that fails names itself, which ``read`` looks for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Files(dict):
    """Contents by path, short where a failure prints them."""

    def __repr__(self) -> str:
        return "whole"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Files of a good shard of each kind, by their paths in its folder; the first is the shard."""
    found = Files()
    for kind, write in WRITE.items():
        folder = tmp_path_factory.mktemp(kind)
        shard = write(folder)
        found[kind] = {os.path.relpath(name, folder): Path(name).read_bytes() for name in shard.files}
    return found


WRITE = {"safetensors": write_safetensors, "npy": write_clip_retrieval, "pt": write_clip_benchmark}
# (kind, which file of it)
FILES = [("safetensors", 0), ("npy", 0), ("npy", 1), ("pt", 0), ("pt", 1)]


def read(files: dict[str, bytes]) -> list[str]:
    """Write the files to a folder and read them in every way there is; the lines that came out as errors."""
    folder = tempfile.mkdtemp(prefix="fuzz")
    try:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        first = os.path.join(folder, next(iter(files)))
        ways: list[Callable[[], object]] = [functools.partial(_read_shard, first)]
        if first.endswith(".safetensors"):
            ways += [functools.partial(load_features, first), functools.partial(load_classes, first)]
        return [line for way in ways if (line := _error_of(way, folder)) is not None]
    finally:
        shutil.rmtree(folder)


def _read_shard(name: str) -> None:
    (shard,) = find_shards([name])
    features = shard.read(classes())
    images = torch.cat([part.image_features for part in batches(shard, features)])
    assert images.shape == (len(features.labels), D) and bool(images.isfinite().all())
    assert int(features.labels.min()) >= 0 and int(features.labels.max()) < C


def _error_of(way: Callable[[], object], folder: str) -> str | None:
    start = time.monotonic()
    try:
        way()
    except ValueError as error:
        line = str(error)
        assert line.startswith(folder) and len(line.splitlines()) == 1 and len(line) < 1000, line
        assert not any(word in line.lower() for word in ("alloc", "memory")), line
        return line
    finally:
        assert time.monotonic() - start < SECONDS
    return None


def test_the_good_files_are_read(whole: dict[str, dict[str, bytes]]) -> None:
    assert [read(files) for files in whole.values()] == [[], [], []]


@pytest.mark.parametrize(("kind", "index"), FILES)
@given(share=st.floats(0, 1, exclude_max=True))
@bounded
def test_truncated(whole: dict, kind: str, index: int, share: float) -> None:
    files = dict(whole[kind])
    name = list(files)[index]
    files[name] = files[name][: int(share * len(files[name]))]
    assert read(files)


@pytest.mark.parametrize(("kind", "index"), FILES)
@given(data=st.data())
@bounded
def test_flipped_bits(whole: dict, kind: str, index: int, data: st.DataObject) -> None:
    """Anywhere, and mostly where the headers are: at either end."""
    files = dict(whole[kind])
    name = list(files)[index]
    content = bytearray(files[name])
    end = min(len(content), 400)
    places = st.one_of(st.integers(0, len(content) - 1), st.integers(0, end - 1), st.integers(-end, -1))
    for place, bit in data.draw(st.lists(st.tuples(places, st.integers(0, 7)), min_size=1, max_size=6)):
        content[place] ^= 1 << bit
    read(files | {name: bytes(content)})


@pytest.mark.parametrize(("kind", "index"), FILES)
@given(data=st.data())
@bounded
def test_overwritten(whole: dict, kind: str, index: int, data: st.DataObject) -> None:
    """Runs of other bytes, numbers at the edges of their types among them, written over, put in or taken out."""
    files = dict(whole[kind])
    name = list(files)[index]
    content = files[name]
    numbers = st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
    other = st.one_of(st.binary(max_size=16), numbers.map(lambda n: n.to_bytes(8, "little")))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = start + data.draw(st.integers(0, 16))
        content = content[:start] + data.draw(other) + content[end:]
    read(files | {name: content})


@pytest.mark.parametrize(("kind", "index"), FILES)
@given(content=st.binary(max_size=300))
@bounded
def test_anything(whole: dict, kind: str, index: int, content: bytes) -> None:
    files = dict(whole[kind])
    assert read(files | {list(files)[index]: content})


SIZES = st.one_of(st.sampled_from([0, 1, C, D, N, 2**31, 2**40, 2**62, 2**63 - 1, -1]), st.integers(0, 20))
WORDS = st.one_of(st.text(max_size=8), st.sampled_from(["é" * 500, "a\nb", "\x00", "[" * 10_000, "9" * 5000]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=8,
)
KEYS = "image_features", "labels", "text_features", "logit_scale", "zeroshot_text_features", "zeroshot_image_features"
DTYPES = "F32", "F16", "BF16", "F64", "I64", "I32", "U8", "U16", "U64", "BOOL", "F8_E4M3", "F8_E5M2", "C64", "X"


@given(data=st.data())
@bounded
def test_safetensors_of_other_headers(data: st.DataObject) -> None:
    """Any keys, dtypes, shapes and places, with the data that they claim or without."""
    header: dict = {}
    place = 0
    for key in data.draw(st.lists(st.one_of(st.sampled_from(KEYS), WORDS), max_size=7, unique=True)):
        dtype, shape = data.draw(st.sampled_from(DTYPES)), data.draw(st.lists(SIZES, max_size=3))
        size = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4}.get(dtype, 2 if "16" in dtype else 1)
        for n in shape:
            size *= n
        end = place + data.draw(st.one_of(st.just(size), SIZES))
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [place, end]}
        place = end if 0 <= end < 1 << 16 else place
    if data.draw(st.booleans()):
        names = st.sampled_from(["classnames", "meta", "format"])
        header["__metadata__"] = data.draw(st.dictionaries(names, st.one_of(WORDS, JSON.map(json.dumps)), max_size=3))
    text = json.dumps(header).encode()
    body = data.draw(st.sampled_from([b"\0", b"\1", b"\x3f"])) * place
    read({"a.safetensors": len(text).to_bytes(8, "little") + text + body})


@given(
    descr=st.one_of(st.sampled_from(["<f4", "<f2", "<f8", ">f4", "|O", "<i8", "|V2", "|S9999"]), WORDS),
    fortran=st.sampled_from([True, False, 1]),
    shape=st.lists(SIZES, max_size=3).map(tuple),
    version=st.integers(0, 4),
    length=st.one_of(st.none(), SIZES),
)
@bounded
def test_npy_of_other_headers(whole: dict, descr: str, fortran, shape, version: int, length: int | None) -> None:
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape})[:-1] + ", }\n"
    size = len(text.encode()) if length is None or length < 0 else length
    wide = 2 if version < 2 else 4
    head = b"\x93NUMPY" + bytes([version, 0]) + (size % 256**wide).to_bytes(wide, "little")
    files = dict(whole["npy"])
    read(files | {next(iter(files)): head + text.encode() + bytes(4 * N * D)})


GLOBALS = st.sampled_from(
    [
        *("torch._utils _rebuild_tensor_v2", "torch FloatStorage", "torch LongStorage", "collections OrderedDict"),
        *("torch FloatTensor", "torch.storage UntypedStorage", "builtins bytearray", "os system", "torch Size"),
        *("torch._utils _rebuild_sparse_tensor", "torch._utils _rebuild_parameter", "torch.serialization load"),
    ]
)
OPCODES = st.one_of(
    GLOBALS.map(lambda name: b"c" + name.replace(" ", "\n").encode() + b"\n"),
    st.sampled_from([b"(", b")", b"t", b"R", b"Q", b"q\0", b"h\0", b"\x85", b"\x86", b"\x89", b"]", b"}", b"a", b"b"]),
    st.sampled_from([b"\x81", b"\x93", b"0", b"1", b"2", b"i", b"o", b"u", b"e", b"s", b"\x8e", b"\x8a"]),
    SIZES.map(lambda n: pickle.dumps(n, 2)[2:-1]),
    st.sampled_from(["storage", "0", "cpu", "cuda"]).map(lambda word: pickle.dumps(word, 2)[2:-1]),
)


@given(opcodes=st.lists(OPCODES, max_size=24), place=st.one_of(st.none(), st.integers(0, 250)))
@bounded
def test_pt_of_other_pickles(whole: dict, opcodes: list[bytes], place: int | None) -> None:
    """The pickle program of a tensor replaced, or with others' opcodes in it."""
    files = dict(whole["pt"])
    name = next(iter(files))
    folder = tempfile.mkdtemp(prefix="fuzz")
    try:
        old, new = os.path.join(folder, "old"), os.path.join(folder, "new")
        Path(old).write_bytes(files[name])
        with zipfile.ZipFile(old) as source, zipfile.ZipFile(new, "w") as target:
            for part in source.infolist():
                content = source.read(part)
                if part.filename.endswith("data.pkl"):
                    extra = b"".join(opcodes)
                    content = b"\x80\x02" + extra + b"." if place is None else content[:place] + extra + content[place:]
                target.writestr(part.filename, content)
        files[name] = Path(new).read_bytes()
    finally:
        shutil.rmtree(folder)
    read(files)
