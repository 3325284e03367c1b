"""Loads the compiled kernels, where there are any: importing ``pyfastcal._C`` registers ``torch.ops.pyfastcal`` with
its CPU kernels; the library ``_cuda`` beside it adds those for GPUs."""

import functools
import re
import warnings
from pathlib import Path
from types import ModuleType

import torch  # (first: the kernels find libtorch already loaded)

C: ModuleType | None
problem: str | None
try:
    from . import _C as C

    problem = None
except ImportError as error:  # not built (no compiler), or built for another platform
    C, problem = None, str(error)


def _load_cuda() -> str | None:
    """Load the CUDA half; why not, where it cannot be."""
    if C is None:
        return "pyfastcal was built without kernels"
    if not C.cuda_archs:
        return f"pyfastcal was built without CUDA kernels: {C.no_cuda}"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is one without CUDA"
    try:
        torch.ops.load_library(str(next(Path(__file__).parent.glob("_cuda*.so"))))
    except (OSError, StopIteration) as error:
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
        warnings.warn(
            f"tensors on a GPU take the plain-torch reference path, the same results but slower: {why}", stacklevel=2
        )
    return why is None


@torch.compiler.assume_constant_result
def _device_has_kernel(kind: str, index: int | None) -> bool:
    if kind == "cuda":
        return _cuda_runs(torch.cuda.current_device() if index is None else index)
    return C is not None and kind == "cpu"


def has_kernel(device: torch.device) -> bool:
    """Whether the ops have kernels of our own for this device; elsewhere ``reference`` runs."""
    return _device_has_kernel(device.type, device.index)
