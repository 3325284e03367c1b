"""The processes of one evaluation, as ``torchrun`` starts them: who takes which part, and how the parts meet."""

import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..arguments.devices import usable

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # how long the first process to finish waits for the last one


class Ranks:
    """The ranks of the default process group; a single one where there is no group."""

    def __init__(self) -> None:
        self.together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.together else 0
        self.size = dist.get_world_size() if self.together else 1

    def device(self, device: torch.device | str) -> torch.device:
        """``device``, or the GPU of its own that each process of a machine takes where that is just ``"cuda"``.
        ValueError where there is none."""
        found = usable(device)
        if found.type != "cuda" or found.index is not None:
            return found
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())

    def mine(self, items: Sequence[T]) -> list[T]:
        """This rank's part: every ``size``-th, so that parts differ by one at the most."""
        return list(items[self.rank :: self.size])

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on the first rank, on all of them; the ValueError it raises, too."""
        made: list[Any] = [None, None]
        if self.rank == 0:
            try:
                made[0] = make()
            except ValueError as error:
                made[1] = str(error)  # not the error itself: its traceback holds this frame, and that the group
        if self.together:
            dist.broadcast_object_list(made, src=0)
        if made[1] is not None:
            raise ValueError(made[1])
        return made[0]

    def sum(self, x: Tensor) -> Tensor:
        """The sum over the ranks of integers ``x`` (on the CPU), in place."""
        if self.together:
            dist.all_reduce(x)
        return x

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        values: list[Any] = [value] * self.size
        if self.together:
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.together:
            dist.barrier()


@contextmanager
def joined():
    """The :class:`Ranks` that ``torchrun`` started, in a process group made for the time of the block; without
    ``torchrun``, or where a group is there already, whatever there is."""
    own = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized()
    if own:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks()
    finally:
        if own:
            dist.destroy_process_group()
