"""How far an evaluation over shards has come, in a folder from which a killed run goes on.

The folder has ``merged.safetensors``, which says what is evaluated and holds the sums over the shards that were done
when the run (re)started, and ``rank-R.safetensors`` for each rank, with the sums over what it has done since. Every
file is written whole or not at all. At a start the first rank adds the parts to the merged file under a new name of
the run; parts of another name are then those that have been added already, so that being killed at any point
neither loses nor counts twice, and any number of ranks can go on.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..arguments import checks
from ..io.features import first_line
from ..io.paths import atomic_write, regular
from ..io.shards import Shard
from ..metrics.accumulator import Accumulator
from . import checkpoint_checks
from .sums import Progress, Told

FORMAT = "pyfastcal.checkpoint/1"
MERGED = "merged.safetensors"
_SUMS = "sums."  # and the method: the key of its state
_TOLD = "warned", "failed"


class Checkpoint:
    """The folder ``path`` of an evaluation of ``shards`` that ``identity`` (anything fit for JSON) describes."""

    def __init__(self, path: str | os.PathLike, shards: Sequence[Shard], identity: dict[str, Any]) -> None:
        self.path, self.shards, self.identity = Path(path), shards, identity
        self.run = ""  # the name of the run, which the first rank makes at the start and tells the others

    def start(self, nothing: Progress) -> Progress:
        """What has been done: ``nothing``, where the folder is new. For the first rank.

        Raises:
            ValueError: naming the folder or the file: it is of another evaluation, or damaged.
        """
        progress, run, parts = nothing, None, sorted(self.path.glob("rank-*.safetensors"))
        digests = before = digest(self.shards)
        if (self.path / MERGED).exists():
            run, progress, before = self._read(self.path / MERGED, nothing, digests)
        elif self.path.exists() and any(not file.name.startswith(f".{MERGED}.") for file in self.path.iterdir()):
            raise ValueError(f"{self.path}: is neither a checkpoint nor empty")
        for part in parts:
            of, more, _ = self._read(part, nothing)
            if of == run:
                try:
                    progress.merge(more)
                except ValueError as error:
                    raise ValueError(f"{part}: {error}") from error
        for index in ((before != digests) & progress.done).nonzero()[:1, 0].tolist():
            name = self.shards[index].name
            raise ValueError(f"{self.path}: shard {index} was done and has changed since, {name} (name, size or time)")
        self.run = uuid.uuid4().hex
        self._write(MERGED, progress, self.identity, shards=digests)
        for old in (*parts, *self.path.glob(".*.safetensors.*")):  # the latter: half-written when a run was killed
            old.unlink()
        return progress

    def save(self, rank: int, progress: Progress) -> None:
        """Keep what ``rank`` has done since the start."""
        self._write(f"rank-{rank}.safetensors", progress, {})

    def _write(self, name: str, progress: Progress, identity: dict[str, Any], **tensors: Tensor) -> None:
        about = {"format": FORMAT, "run": self.run, "identity": identity}
        about |= {"images": progress.images, "settings": progress.settings}
        for kind in _TOLD:
            about[kind] = {method: vars(told) for method, told in getattr(progress, kind).items()}
        tensors |= {f"{_SUMS}{method}": sums.state for method, sums in progress.sums.items()}
        tensors["done"] = progress.done
        metadata = {"about": json.dumps(about), "sha256": fingerprint(tensors | {"about": about})}

        def write(temporary: str) -> None:
            with open(temporary, "wb") as file:
                file.write(save(tensors, metadata=metadata))
                file.flush()
                os.fsync(file.fileno())  # or a machine that goes down may keep the name without the content

        atomic_write(self.path / name, write)

    def _read(self, path: Path, nothing: Progress, digests: Tensor | None = None) -> tuple[str, Progress, Tensor]:
        """The name of the run, the progress, and the digests of the shards. ``digests``: today's, for the merged file,
        which alone holds them and says of what evaluation it is."""
        try:
            with safe_open(regular(path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key).clone() for key in sorted(file.keys())}
            about = json.loads(metadata["about"])
            if about["format"] != FORMAT:
                raise ValueError(f"format must be {FORMAT}, got {about['format']}")
            if metadata["sha256"] != fingerprint(tensors | {"about": about}):
                raise ValueError("its content is not what was written")
            identity, before = about["identity"], tensors.get("shards", torch.zeros(()))
            other = "" if digests is None or before.ndim != 1 else self._difference(identity, before, digests)
        except Exception as error:  # whatever a damaged file makes the readers raise
            raise ValueError(f"{path}: not a complete checkpoint ({first_line(error)})") from error
        if other:
            raise ValueError(f"{self.path}: is the checkpoint of another evaluation: {other}")
        try:
            progress = self._checked(about, tensors, nothing, digests)
        except Exception as error:  # written by something else, whatever it says
            raise ValueError(f"{path}: not a complete checkpoint ({first_line(error)})") from error
        return about["run"], progress, before

    def _checked(
        self, about: dict[str, Any], tensors: dict[str, Tensor], nothing: Progress, digests: Tensor | None
    ) -> Progress:
        """The progress that a file tells of. ValueError where no run of this evaluation can have written that."""
        wanted = {f"{_SUMS}{method}": sums.state for method, sums in nothing.sums.items()} | {"done": nothing.done}
        checkpoint_checks.check_about(about, set(nothing.sums), len(nothing.done))
        checkpoint_checks.check_tensors(tensors, wanted if digests is None else wanted | {"shards": digests})
        checkpoint_checks.check_done(tensors["done"], about["images"])
        sums = {method: Accumulator(**fresh.config) for method, fresh in nothing.sums.items()}
        for method, fresh in sums.items():
            fresh.state = tensors[f"{_SUMS}{method}"]
            checkpoint_checks.check_sums(method, fresh, about["images"], complete=method not in about["failed"])
        told = {kind: {method: Told(**one) for method, one in about[kind].items()} for kind in _TOLD}
        return Progress(tensors["done"], sums, about["images"], about["settings"], **told)

    def _difference(self, identity: dict[str, Any], shards: Tensor, digests: Tensor) -> str:
        """In what the folder's evaluation differs from this one, in words; none where it does not."""
        for key, value in self.identity.items():
            if identity[key] != value:
                detail = "" if isinstance(value, str) and len(value) == 64 else f" ({identity[key]}, now {value})"
                return first_line(f"{key} changed{detail}")
        if shards.shape != digests.shape:
            return f"the number of shards changed ({len(shards)}, now {len(digests)})"
        return ""


def digest(shards: Sequence[Shard]) -> Tensor:
    """(S,) int64: what of each shard must stay as it is while an evaluation goes on: the names of its files, their
    sizes and times of modification."""
    return torch.tensor([_digest(shard) for shard in shards], dtype=torch.int64)


def _digest(shard: Shard) -> int:
    about: list[Any] = [shard.label_column]
    for name in shard.files:
        found = os.stat(name) if os.path.exists(name) else None
        about.append((name, found and (found.st_size, found.st_mtime_ns)))
    return int.from_bytes(hashlib.sha256(json.dumps(about).encode()).digest()[:8], "little", signed=True)


def fingerprint(tensors: dict[str, Any]) -> str:
    """The SHA-256 of tensors and other values, in hexadecimal."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        tensor = isinstance(value, Tensor)
        about = checks.describe(value) if tensor else json.dumps(value, sort_keys=True)
        found.update(f"{name}:{about};".encode())
        if tensor:
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()
