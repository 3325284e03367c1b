"""What this installation is: versions, kernels, capabilities."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from . import _extension


def package_version() -> str:
    try:
        return version("pyfastcal")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


def build_info() -> dict[str, Any]:
    """Versions, CUDA architectures and the CPU capability in use.

    Returns:
        ``pyfastcal``, ``python``, ``torch``: versions. ``kernels``: whether the compiled kernels run (else every call
        takes the plain-torch reference path, and ``problem`` says why). ``cpu_capability``: the variant in use
        (``avx512``, ``avx2``, ``scalar``); ``cpu_capabilities``: those that this processor runs, best first.
        ``compiler``; ``built_for_torch``: the oldest torch that the binary runs with. ``cuda_archs``: the GPU
        architectures that kernels were built for. ``threads``: of torch's pool, on which the kernels run.
    """
    kernels = _extension.C
    return {
        "pyfastcal": package_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernels": kernels is not None,
        "problem": _extension.problem,
        "cpu_capability": kernels.cpu_capability() if kernels else None,
        "cpu_capabilities": kernels.cpu_capabilities() if kernels else [],
        "compiler": kernels.compiler if kernels else None,
        "built_for_torch": kernels.built_for_torch if kernels else None,
        "cuda_archs": [],
        "threads": torch.get_num_threads(),
    }
