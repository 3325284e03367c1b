"""Loads the compiled kernels, where there are any: importing ``pyfastcal._C`` registers ``torch.ops.pyfastcal``."""

from types import ModuleType

import torch  # noqa: F401  (first: the kernels find libtorch already loaded)

C: ModuleType | None
problem: str | None
try:
    from . import _C as C

    problem = None
except ImportError as error:  # not built (no compiler), or built for another platform
    C, problem = None, str(error)


def has_kernel(device_type: str) -> bool:
    """Whether the ops have kernels of our own for this device; elsewhere ``reference`` runs."""
    return C is not None and device_type == "cpu"
