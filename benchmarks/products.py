"""The two products that ops multiply features by on a GPU of compute capability 9.0, beside each other: which one they
take there is what PYFASTCAL_CUDA_PRODUCT says, at each call."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pyfastcal.ops import extension

VARIABLE = "PYFASTCAL_CUDA_PRODUCT"
OPS = ("similarity_confidence", "similarity", "contrast", "knn")
LEAST_DEPTH = 449  # of the product by warpgroups: kLeastDepth of csrc/cuda/product/warpgroups/block.cuh


@contextmanager
def product(name: str) -> Iterator[None]:
    """Within, ops take the product of this name, where they can."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def by(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` with the product of this name."""

    @functools.wraps(call)
    def called(*arguments: Any) -> Any:
        with product(name):
            return call(*arguments)

    return called


def to_compare() -> tuple[str, ...]:
    """Both, or the one that the environment forces."""
    forced = extension.wanted_product()
    return ("mma", "wgmma") if forced == "auto" else (forced,)


def on_hopper() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


def contender(name: str) -> str:
    return f"pyfastcal, {name}"


def variants(call: Callable[[], Any], depth: int, device: str) -> dict[str, Callable[[], Any]]:
    """``call`` with each product, where the second can be taken; on the CPU, in a rehearsal, two names for the same."""
    if depth < LEAST_DEPTH or (device == "cuda" and not on_hopper()):
        return {}
    return {contender(name): by(name, call) for name in to_compare()}
