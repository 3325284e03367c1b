"""What this installation is: versions, kernels, capabilities."""

import platform
from typing import Any

import torch

from ..installation.commands import package_version
from . import extension


def _product() -> tuple[str | None, str | None]:
    """Which product the CUDA half is asked to take, and what is wrong with that."""
    try:
        return extension.wanted_product(), None
    except ValueError as error:  # which the first op on a GPU raises
        return None, str(error)


def build_info() -> dict[str, Any]:
    """Versions, and both halves of the kernels: the CPU's and CUDA's.

    Returns:
        ``pyfastcal``, ``python``, ``torch``: versions. ``kernels``: whether the compiled CPU kernels run (else every
        call takes the plain-torch reference path; ``problem`` says why, and how to build them). ``cpu_capability``: the
        variant in use (``amx_bf16``, ``avx512_bf16``, ``avx512``, ``avx2``, ``neon_bf16``, ``neon``, ``scalar``);
        ``cpu_capabilities``: those that this processor runs, best first. ``compiler``; ``built_for_torch``: the
        oldest torch that the binaries run with. ``cuda_installed``: whether the CUDA half is part of this
        installation; ``cuda_kernels``: whether it runs on a GPU here (else tensors on one take the reference path,
        and ``cuda_problem`` says why). ``cuda_archs``: the GPU architectures that they were built for;
        ``cuda_toolkit``: with which CUDA; ``cuda_product``: which product they are asked to take (``auto``, ``mma``,
        ``wgmma``), None without a CUDA half and where the environment asks for none of these, as
        ``cuda_product_problem`` says; ``torch_cuda``: torch's own, None if it has none; ``gpus``:
        those that torch finds. ``threads``: of torch's pool, on which the CPU kernels run.
    """
    extension.check_capability()
    kernels = extension.C
    product, product_problem = _product() if extension.cuda_library() else (None, None)
    return {
        "pyfastcal": package_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernels": kernels is not None,
        "problem": extension.problem,
        "cpu_capability": kernels.cpu_capability() if kernels else None,
        "cpu_capabilities": kernels.cpu_capabilities() if kernels else [],
        "compiler": kernels.compiler if kernels else None,
        "built_for_torch": kernels.built_for_torch if kernels else None,
        "cuda_installed": extension.cuda_library() is not None,
        "cuda_kernels": extension.cuda_problem() is None,
        "cuda_problem": extension.cuda_problem(),
        "cuda_archs": extension.cuda_archs(),
        "cuda_toolkit": (kernels.cuda_toolkit or None) if kernels else None,
        "cuda_product": product,
        "cuda_product_problem": product_problem,
        "torch_cuda": torch.version.cuda,
        "gpus": extension.gpus(),
        "threads": torch.get_num_threads(),
    }
