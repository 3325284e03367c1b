"""Loads the compiled kernels, where there are any: importing ``pyfastcal._C`` registers ``torch.ops.pyfastcal`` with
its CPU kernels; the library ``_cuda`` beside it adds those for GPUs."""

import functools
import importlib
import importlib.machinery
import json
import os
import platform
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch  # (first: the kernels find libtorch already loaded)

from ..installation import commands

FOLDER = Path(__file__).parent.parent  # that of the package, where setup.py puts them


def _record() -> dict[str, str]:
    """What setup.py wrote of its build: why the CPU half and the CUDA half are missing, empty where they are not."""
    try:
        return json.loads((FOLDER / "_build.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing was built here, or CMake did it
        return {}


def _why_not(error: ImportError) -> str:
    """Why there are no kernels, as far as it can be known, and how to get them."""
    there = sorted(path.name for path in FOLDER.glob("_C.*") if path.suffix in (".so", ".pyd"))
    recorded = _record().get("cpu")
    if any(f"_C{suffix}" in there for suffix in importlib.machinery.EXTENSION_SUFFIXES):
        why = f"they cannot be loaded: {error}"
    elif there:
        why = f"they were built for another Python than this {platform.python_version()}: {', '.join(there)}"
    else:
        why = recorded or f"none were built in {FOLDER}"
    return f"{why}. To build them: {commands.again(skipped=recorded == 'PYFASTCAL_BUILD was skip')}"


F = TypeVar("F", bound=Callable[..., Any])
C: ModuleType | None
problem: str | None
try:
    C, problem = importlib.import_module("pyfastcal._C"), None
except ImportError as error:  # not built (no compiler), or built for another platform
    C, problem = None, _why_not(error)


def cuda_library() -> Path | None:
    """The CUDA half of this installation, whether it can be used here or not."""
    return next(FOLDER.glob("_cuda*.so"), None)


def _load_cuda() -> str | None:
    """Load the CUDA half; why not, where it cannot be."""
    if C is None:
        return "pyfastcal was built without kernels"
    if not C.cuda_archs:
        failed = _record().get("cuda", "") if C.no_cuda == "building it failed" else ""
        return f"pyfastcal was built without CUDA kernels: {failed or C.no_cuda}"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is one without CUDA"
    library = cuda_library()
    if library is None:
        return f"the library of the CUDA kernels is missing in {FOLDER}"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return f"the library of the CUDA kernels cannot be loaded: {error}"
    return None


_cuda_unusable = _load_cuda()


def cuda_archs() -> list[str]:
    """What the CUDA half was compiled for."""
    return C.cuda_archs.split() if C else []


def runs_on(arch: str, capability: tuple[int, int]) -> bool:
    """Whether code for ``arch`` runs on a GPU of this compute capability: ``sm_80`` on its own and later minor
    versions, ``sm_90a`` on exactly that one, ``compute_100`` (PTX) on all from that one on, ``compute_100f`` on later
    minor versions only."""
    kind, major, minor, suffix = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", arch).groups()
    own = int(major), int(minor)
    if suffix == "a":
        return capability == own
    return capability >= own and ((kind == "compute" and not suffix) or capability[0] == own[0])


def gpus() -> list[str]:
    """The GPUs that torch finds: name and compute capability."""
    if not torch.cuda.is_available():
        return []
    return [_describe_gpu(i) for i in range(torch.cuda.device_count())]


def _describe_gpu(index: int) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    return f"{torch.cuda.get_device_name(index)} (sm_{major}{minor})"


@functools.cache
def cuda_problem(index: int | None = None) -> str | None:
    """Why the CUDA kernels do not run on GPU ``index``, or on none; None where they do."""
    if _cuda_unusable is not None:
        return _cuda_unusable
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    devices = range(torch.cuda.device_count()) if index is None else [index]
    if any(runs_on(arch, torch.cuda.get_device_capability(i)) for arch in cuda_archs() for i in devices):
        return None
    return f"{_describe_gpu(devices[0])} is none of those that the kernels were built for: {', '.join(cuda_archs())}"


@functools.cache
def _cuda_runs(index: int) -> bool:
    why = cuda_problem(index)
    if why is not None:
        why = f"{why}: {problem}" if C is None else why
        warnings.warn(
            f"tensors on a GPU take the plain-torch reference path, the same results but slower: {why}", stacklevel=2
        )
        return False
    return True


def check_capability() -> None:
    """ValueError where PYFASTCAL_CPU_CAPABILITY forces a variant of the CPU kernels that there is none of here."""
    forced = os.environ.get("PYFASTCAL_CPU_CAPABILITY")
    if C is not None and forced and forced not in C.cpu_capabilities():
        known = ", ".join(C.cpu_capabilities())
        raise ValueError(f"PYFASTCAL_CPU_CAPABILITY must be one of {known}, got {forced!r}")


PRODUCTS = ("auto", "mma", "wgmma")  # csrc/cuda/wanted_product.h has them too


def wanted_product() -> str:
    """Which product the ops on a GPU are to take, by PYFASTCAL_CUDA_PRODUCT: ``auto`` unless it says another;
    ValueError where it says none of them."""
    wanted = os.environ.get("PYFASTCAL_CUDA_PRODUCT") or "auto"
    if wanted not in PRODUCTS:
        raise ValueError(f"PYFASTCAL_CUDA_PRODUCT must be one of {', '.join(PRODUCTS)}, got {wanted!r}")
    return wanted


@functools.cache
def _cpu_runs() -> bool:
    check_capability()
    if problem is not None:
        warnings.warn(
            f"without kernels pyfastcal takes its plain-torch reference path, the same results but slower: {problem}",
            stacklevel=2,
        )
    return problem is None


@torch.compiler.assume_constant_result
def _device_has_kernel(kind: str, index: int | None) -> bool:
    if kind == "cuda":
        wanted_product()
        return _cuda_runs(torch.cuda.current_device() if index is None else index)
    return kind == "cpu" and _cpu_runs()


def has_kernel(device: torch.device) -> bool:
    """Whether the ops have kernels of our own for this device; elsewhere ``reference`` runs. The first call for a CPU
    or GPU that could have them and does not warns, with the reason."""
    return _device_has_kernel(device.type, device.index)


@functools.cache
def cpu_op(name: str) -> Callable | None:
    """``torch.ops.pyfastcal.<name>`` for calls on the CPU so small that finding it takes time; None without kernels."""
    if C is None or not _cpu_runs():
        return None
    op = getattr(torch.ops.pyfastcal, name).default
    return getattr(op, "_op", op)  # what torch's object calls, a Python frame later


def fake(op: str) -> Callable[[F], F]:
    """Registers what an op gives without computing it, shapes and dtypes: for ``torch.compile``, ``torch.export`` and
    the meta device. Without kernels there is no op to stand for."""
    return (lambda function: function) if C is None else torch.library.register_fake(f"pyfastcal::{op}")
