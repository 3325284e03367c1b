"""Files that are read and written. Only regular files are read: a FIFO or a device may never end. What is written is
whole or not there, and never replaces an input, another output, a link or a device.
"""

import errno
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def regular(path: str | os.PathLike) -> str:
    """The name of a regular file that is there; ValueError, which names the file, for anything else. To be asked
    before a file is opened: opening a FIFO waits for a writer."""
    name = os.fspath(path)
    try:
        mode = os.stat(name).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:  # no permission, a ring of links; NUL in the name
        raise ValueError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{name}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{name}: is {_KINDS.get(stat.S_IFMT(mode), 'a special file')}, not a regular file")
    return name


def identity(path: str | os.PathLike) -> Hashable:
    """The same for all names of one file: other paths to it, links, hard links."""
    with suppress(OSError):
        found = os.stat(path)
        if found.st_ino:  # some file systems number nothing
            return found.st_dev, found.st_ino
    return os.path.realpath(path)


def named_once(among: str, names: Iterable[str], identities: Iterable[Hashable]) -> None:
    """ValueError if two of the names are of one thing, so that it would count twice."""
    seen: dict[Hashable, str] = {}
    for name, key in zip(names, identities, strict=True):
        if key in seen:
            also = "" if seen[key] == name else f" (also as {seen[key]})"
            raise ValueError(f"{name}: is named twice among the {among}{also}")
        seen[key] = name


def check_outputs(
    outputs: Mapping[str, str | os.PathLike | None], inputs: Iterable[str | os.PathLike | None] = ()
) -> None:
    """What can be said of outputs before the work that they are the result of.

    ``outputs``: by the argument that names each; None: not wanted. ``inputs``: files that must stay as they are.

    Raises:
        ValueError: naming the argument and the path: a folder, or in something that is none; an input or another
            output, under whatever name. FIFOs and devices may be given as often as one likes.
    """
    taken = {identity(path): f"the input {os.fspath(path)}" for path in inputs if path is not None}
    for argument, path in outputs.items():
        if path is None or _is_special(path):
            continue
        if os.path.isdir(path):
            raise ValueError(f"{argument} must be a file, got the folder {os.fspath(path)}")
        parent = next(folder for folder in Path(os.path.realpath(path)).parents if folder.exists())
        if not parent.is_dir():
            raise ValueError(f"{argument} must be in a folder, got {os.fspath(path)}, and {parent} is a file")
        if (key := identity(path)) in taken:
            raise ValueError(f"{argument} must not overwrite {taken[key]}, got {os.fspath(path)}")
        taken[key] = f"the file of {argument}"


def atomic_write(path: str | os.PathLike, write: Callable[[str], object]) -> Path:
    """Call ``write(temporary name)`` and rename the result to ``path``: readers see the old file or the whole
    new one, and a failure leaves nothing behind. Missing folders are made; a link stays one, its file is replaced.
    What is no regular file (``/dev/stdout``, a FIFO, a device) is written to.

    Raises:
        OSError: naming ``path``, such as where the disk is full.
    """
    path = Path(path)
    with _naming(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
        own = next((stream for stream in (1, 2) if _is_open_as(stream, path)), None)
        if own is not None or _is_special(path):
            _copy(write, path if own is None else own)
        else:
            _replace(Path(os.path.realpath(path)), write)
    return path


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write UTF-8 text through :func:`atomic_write`."""
    return atomic_write(path, lambda name: Path(name).write_text(text, encoding="utf-8"))


def _replace(path: Path, write: Callable[[str], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:50]}.", dir=path.parent)
    os.close(handle)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's 0600 would hide the file from the user's group
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _copy(write: Callable[[str], object], target: Path | int) -> None:
    """Write to a path as it is, or to a file descriptor of this process. The writers want the name of a file that they
    can make anew: what they made is copied."""
    with tempfile.TemporaryDirectory() as folder:
        whole = os.path.join(folder, "whole")
        write(whole)
        if isinstance(target, int):
            for said in filter(None, (sys.stdout, sys.stderr)):
                said.flush()  # it comes before
            target = os.dup(target)
        with open(whole, "rb") as source, open(target, "wb") as sink:
            shutil.copyfileobj(source, sink)


def _is_special(path: str | os.PathLike) -> bool:
    """Whether ``path`` is there and neither a regular file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _is_open_as(stream: int, path: Path) -> bool:
    """Whether ``path`` is what the file descriptor is open for, as ``/dev/stdout`` is even where that is a file."""
    try:
        return os.path.samestat(os.fstat(stream), os.stat(path))
    except (OSError, ValueError):
        return False


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the system name ``path``, and no temporary file or none at all."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number, said = getattr(error, "errno", None), getattr(error, "strerror", None)
        if found := re.search(r"os error (\d+)", str(error)):  # safetensors' own
            number, said = int(found[1]), os.strerror(int(found[1]))
        if number is None:
            raise OSError(f"{path}: {error}") from error
        raise OSError(number, said, str(path)) from error
