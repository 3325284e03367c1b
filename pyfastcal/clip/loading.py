"""Images in batches, from whatever holds them. An image that cannot be read is named, or left out."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ..arguments import checks
from ..io.features import first_line
from .datasets import UnreadableImage

Images = Tensor | Dataset | DataLoader


class _Bad(str):
    """Why an image cannot be read, in the place of the image."""


class _Guarded(Dataset):
    """The items of a dataset, and a :class:`_Bad` where there is no image: an error in a worker process would come out
    as its whole traceback, and end the work where it need not."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UnreadableImage as error:
            return _Bad(error)
        except _errors_of_pillow() as error:
            return _Bad(f"image {index} of the dataset: not an image that can be read ({first_line(error)})")


def _errors_of_pillow() -> tuple[type[BaseException], ...]:
    bomb = getattr(sys.modules.get("PIL.Image"), "DecompressionBombError", OSError)
    return OSError, SyntaxError, bomb


def _collate(items: Sequence[Any]) -> tuple[Any, list[str]]:
    """A batch of the images there are (None: of none), and what is wrong with the others."""
    good, bad = [x for x in items if not isinstance(x, _Bad)], [str(x) for x in items if isinstance(x, _Bad)]
    return default_collate(good) if good else None, bad


def batches(
    images: Images, batch_size: int, num_workers: int, skipped: list[str] | None = None
) -> Iterator[tuple[Tensor, Any]]:
    """(images, labels or None) of a tensor, a dataset or a DataLoader. ``skipped``: takes the reasons of images that
    cannot be read, which are left out; without it the first of them is a ValueError. A DataLoader of the caller's
    raises what it raises."""
    checks.integer("batch_size", batch_size, 1)
    checks.integer("num_workers", num_workers, 0)
    if isinstance(images, Tensor):
        checks.not_empty("images", checks.floating("images", images, 4))
        yield from ((batch, None) for batch in images.split(batch_size))
        return
    for batch in _loaded(images, batch_size, num_workers, skipped):
        if isinstance(batch, Tensor):
            yield batch, None
        elif isinstance(batch, Mapping) and isinstance(batch.get("pixel_values"), Tensor):
            yield batch["pixel_values"], batch.get("labels")
        elif isinstance(batch, (list, tuple)) and batch and isinstance(batch[0], Tensor):
            yield batch[0], batch[1] if len(batch) > 1 else None
        else:
            raise ValueError(f"images must come as tensors or (image, label), got {checks.describe(batch)}")


def _loaded(images: Dataset | DataLoader, batch_size: int, num_workers: int, skipped: list[str] | None) -> Iterator:
    if isinstance(images, DataLoader):
        yield from images
        return
    if not (hasattr(images, "__getitem__") or hasattr(images, "__iter__")) or isinstance(images, str):
        raise ValueError(f"images must be a tensor, a dataset or a DataLoader, got {checks.describe(images)}")
    if isinstance(images, IterableDataset) or not hasattr(images, "__getitem__"):
        yield from _loader(images, batch_size, num_workers)
        return
    for batch, bad in _loader(_Guarded(images), batch_size, num_workers, collate_fn=_collate):
        if bad and skipped is None:
            raise ValueError(bad[0])
        if bad:
            skipped.extend(bad)
        if batch is not None:
            yield batch


def _loader(dataset: Any, batch_size: int, num_workers: int, **options: Any) -> DataLoader:
    own = torch.Generator()  # a loader draws a seed for its workers: not from the caller's generator
    return DataLoader(dataset, batch_size, num_workers=num_workers, generator=own, **options)


def size(images: Images) -> int:
    """How many images there are; 0 where that cannot be known."""
    try:
        return len(images.dataset if isinstance(images, DataLoader) else images)  # type: ignore[arg-type]
    except TypeError:  # an iterable dataset
        return 0
