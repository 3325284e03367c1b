"""Tests that run on every device: ``run_on`` takes a function there, so that the rest of a test can stay on the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from pyfastcal.ops import extension

# The fixture of this name runs a test on every variant of the CPU kernels too; this, once per device.
each_device = pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])

kernels_only = pytest.mark.skipif(
    extension.C is None, reason="without kernels a row's last bits may depend on its batch, as torch's do"
)


def needs_gpu(test: Callable) -> Callable:
    """A test that runs on a GPU only; those that run there too are marked by what they are run with (conftest.py)."""
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")(test))


@contextmanager
def never_waiting() -> Iterator[None]:
    """Whatever waits for the GPU raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def moved(device: str, tree: Any) -> Any:
    """All tensors of ``tree``, arguments for instance, moved to ``device``."""
    return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, tree)


def run_on(device: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, but its tensors are moved to ``device`` first, and its results, which must be there, back."""

    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = moved(device, (args, kwargs))
        out = function(*args, **kwargs)
        assert all(x.device.type == device for x in tree_leaves(out) if isinstance(x, Tensor))
        return moved("cpu", out)

    return call
