"""Where the images of an experiment come from: what a source gives, and folders of images with a CLIP of one's own."""

import functools
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ..clip import ImageFolder, encode_dataset, load_clip
from ..clip.extract import TEMPLATE
from ..clip.features import as_words, check_template
from ..io.features import read_fields
from ..io.paths import atomic_write
from ..io.progress import Progress


class Part(NamedTuple):
    """Labelled images of one split: ``images``, a tensor or a dataset of the preprocessed; ``features`` (N, D) of
    the CLIP before tuning; ``labels`` (N,)."""

    images: Tensor | Dataset
    features: Tensor
    labels: Tensor

    def few(self, shots: int) -> "Part":
        """The first ``shots`` images of each class."""
        return self.of_each(slice(shots))

    def of_each(self, which: slice) -> "Part":
        """Those of the images of each class, class by class."""
        rows = torch.cat([(self.labels == c).nonzero()[which, 0] for c in self.labels.unique().tolist()])
        images = self.images[rows] if isinstance(self.images, Tensor) else Subset(self.images, rows.tolist())
        return Part(images, self.features[rows], self.labels[rows])

    def stacked(self) -> Tensor:
        """The images as one tensor (N, 3, H, W): of a few."""
        if isinstance(self.images, Tensor):
            return self.images
        return torch.stack([self.images[i][0] for i in range(len(self.labels))])


class Material(NamedTuple):
    """What a cell is made from. Labels of the first three parts count in ``base_classes``, those of ``new_test`` in
    ``new_classes``."""

    clip: Any
    tokenizer: Callable[..., Tensor]
    template: str
    base_classes: list[str]
    new_classes: list[str]
    train: Part
    validation: Part
    base_test: Part
    new_test: Part


class Source(Protocol):
    """A task by name, for a CLIP by name; ``load`` is what a seed makes of it, ``shots`` images of each base class to
    train on and as many to validate on."""

    name: str
    model: str
    folder: str  # where its cells are kept: another one for another task or another model
    small: bool  # whether its model gains nothing from more than one thread
    most_steps: int | None  # where learners stop, None: as published

    def load(self, seed: int, shots: int, progress: Progress | None = None) -> Material: ...

    def clip(self) -> tuple[Any, Callable[..., Tensor]]:
        """The model and its tokenizer, without any images."""
        ...

    def identity(self) -> dict[str, Any]:
        """What cells of its folder must have been made of."""
        ...


def folder_name(task: str, model: str) -> str:
    """Of the cells of a task with that model, which may be a path or hf-hub:..."""
    return f"{task}@{re.sub(r'[^0-9A-Za-z._-]+', '-', model)}"


@dataclass(frozen=True)
class FolderTask:
    """Images of ``path/<class>/**`` for a CLIP by name. ``base_classes``: names of folders (underscores may be
    spaces), None for the first half in alphabetical order, as the papers split their data sets. The classes are
    the same for every seed, which draws the images: ``shots`` of each base class to train on, as many to validate
    on (at most half of the class together), the rest to test. ``cache``: a folder that keeps the features of all
    images, which are computed once."""

    path: str
    model: str
    pretrained: str | None = None
    base_classes: tuple[str, ...] | None = None
    template: str = TEMPLATE
    device: str = "cpu"
    precision: str = "fp32"
    batch_size: int = 256
    num_workers: int = 0
    cache: str | None = None
    small = False
    most_steps = None

    def __post_init__(self) -> None:
        check_template("template", self.template)

    @property
    def name(self) -> str:
        return Path(self.path).resolve().name

    @property
    def folder(self) -> str:
        return folder_name(self.name, self.model)

    def clip(self) -> tuple[Any, Callable[..., Tensor]]:
        model, _, tokenizer = _loaded(self)
        return model, tokenizer

    def identity(self) -> dict[str, Any]:
        keys = "path", "model", "pretrained", "base_classes", "template", "precision"
        found = {key: getattr(self, key) for key in keys} | {"path": str(Path(self.path).resolve())}
        return found | {"base_classes": self.base_classes and list(self.base_classes)}

    def load(self, seed: int, shots: int, progress: Progress | None = None) -> Material:
        loaded = _opened(self, progress)
        names = [as_words(name) for name in loaded.dataset.classes]
        base = self._base(names)
        new = [c for c in range(len(names)) if c not in base]
        order = torch.randperm(len(loaded.labels), generator=torch.Generator().manual_seed(seed))

        def rows(c: int) -> Tensor:
            return order[loaded.labels[order] == c]

        def part(classes: Sequence[int], start: int, stop: int | None) -> Part:
            found = [rows(c)[start:stop] for c in classes]
            index = torch.cat(found)
            labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(x) for x in found]))
            return Part(Subset(loaded.dataset, index.tolist()), loaded.features[index], labels)

        for c in base:
            if len(rows(c)) <= 2 * shots:
                raise ValueError(
                    f"{self.path}: class {names[c]!r} must have more than {2 * shots} images for {shots} shots and "
                    f"as many for validation, got {len(rows(c))}"
                )
        parts = part(base, 0, shots), part(base, shots, 2 * shots), part(base, 2 * shots, None), part(new, 0, None)
        classes = [names[c] for c in base], [names[c] for c in new]
        return Material(loaded.model, loaded.tokenizer, self.template, *classes, *parts)

    def _base(self, names: list[str]) -> list[int]:
        if self.base_classes is None:
            chosen = list(range((len(names) + 1) // 2))
        else:
            wanted = [as_words(name) for name in self.base_classes]
            for name in wanted:
                if name not in names:
                    raise ValueError(f"base_classes must be folders of {self.path}, got {name!r}")
            chosen = [names.index(name) for name in dict.fromkeys(wanted)]
        if not 2 <= len(chosen) <= len(names) - 2:
            raise ValueError(f"base_classes must leave 2 classes on either side, got {len(chosen)} of {len(names)}")
        return chosen


class _Opened(NamedTuple):
    model: Any
    tokenizer: Callable[..., Tensor]
    dataset: ImageFolder
    features: Tensor
    labels: Tensor


_images: dict[FolderTask, tuple[Tensor, Tensor]] = {}
_clip = functools.lru_cache(maxsize=1)(load_clip)


def _loaded(task: FolderTask) -> tuple[Any, Any, Callable[..., Tensor]]:
    return _clip(task.model, task.pretrained, device=task.device, precision=task.precision)


def _opened(task: FolderTask, progress: Progress | None) -> _Opened:
    model, preprocess, tokenizer = _loaded(task)
    dataset = ImageFolder(task.path, preprocess)
    if task not in _images:
        tell = functools.partial(progress, f"{task.name}: encode images") if progress else None
        features = _features(task, model, dataset, tell)
        _images[task] = features, torch.tensor([label for _, label in dataset.files])
    return _Opened(model, tokenizer, dataset, *_images[task])


def _features(
    task: FolderTask, model: Any, dataset: ImageFolder, progress: Callable[[int, int], None] | None
) -> Tensor:
    """Those of the cache, if it has them of the very same files; else computed, and kept there."""
    if task.cache is None:
        return _encoded(task, model, dataset, progress)
    stats = [(os.fspath(file), file.stat()) for file, _ in dataset.files]
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    digest = hashlib.sha256(repr((task.identity(), files)).encode()).hexdigest()[:16]
    kept = Path(task.cache, f"{task.name}.{digest}.safetensors")
    if not kept.exists():
        features = _encoded(task, model, dataset, progress)
        atomic_write(kept, lambda name: save_file({"image_features": features}, name))
    return read_fields(str(kept), ["image_features"], [])["image_features"]


def _encoded(task: FolderTask, model: Any, dataset: ImageFolder, progress: Callable[[int, int], None] | None) -> Tensor:
    options = {"batch_size": task.batch_size, "num_workers": task.num_workers, "progress": progress}
    return encode_dataset(model, dataset, **options)[0].cpu()
