"""The processes that an experiment's cells are worked on in."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

import torch


def processes(count: int) -> ProcessPoolExecutor:
    """``count`` processes of one thread each, which end with this one, also where that is killed. They are spawned: a
    fork of a process with torch's threads may hang."""
    return ProcessPoolExecutor(count, get_context("spawn"), _begin)


def _begin() -> None:
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # by itself a worker would finish its cell, for nobody, and then wait for the next one for ever
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
