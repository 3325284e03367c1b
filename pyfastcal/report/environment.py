"""What a result was made with: versions, the kernels in use, the optional parts that are installed."""

import platform
from importlib import metadata
from typing import Any

from ..installation.commands import with_extra
from ..io.text import counted
from ..ops.info import build_info

RUNTIME = ("torch", "numpy", "safetensors", "typer", "rich")
OPTIONAL = {
    "open_clip_torch": "clip",
    "torchvision": "clip",
    "pillow": "clip",
    "matplotlib": "report",
    "scikit-learn": "demo",
    "pyarrow": "parquet",
}


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def kernels(build: dict[str, Any]) -> str:
    """What the ops run on: the compiled kernels, or the reference path and why."""
    if build["kernels"]:
        return f"compiled CPU kernels ({build['cpu_capability']})"
    return f"the reference path, in plain torch: slower, same results ({build['problem']})"


def cuda_kernels(build: dict[str, Any]) -> str:
    """What tensors on a GPU run on."""
    if build["cuda_kernels"]:
        return f"compiled CUDA kernels ({', '.join(build['gpus'])})"
    if build["gpus"]:
        return f"the reference path, in plain torch: slower, same results ({build['cuda_problem']})"
    return f"{'installed, ' * build['cuda_installed']}not in use: {build['cuda_problem']}"


PRODUCT = {
    "auto": "auto: mma; for similarity_confidence on compute capability 9.0 wgmma (PYFASTCAL_CUDA_PRODUCT)",
    "mma": "mma, as PYFASTCAL_CUDA_PRODUCT says",
    "wgmma": "wgmma on compute capability 9.0 wherever it can be, else mma, as PYFASTCAL_CUDA_PRODUCT says",
}


def cuda_product(build: dict[str, Any]) -> str | None:
    """How the CUDA kernels multiply; None where there are none."""
    return PRODUCT.get(build["cuda_product"], build["cuda_product_problem"])


def environment() -> dict[str, str]:
    """A few lines for the foot of a report."""
    build = build_info()
    return {
        "pyfastcal": build["pyfastcal"],
        "Runs on": kernels(build),
        "torch": f"{build['torch']}, {counted(build['threads'], 'thread')}",
        "Python": f"{build['python']}, {platform.system()} {platform.machine()}",
    }


def describe() -> dict[str, dict[str, Any]]:
    """Everything ``pyfastcal info`` shows, by section."""
    build = build_info()
    parts = {}
    for name, extra in OPTIONAL.items():
        parts[name] = version(name) or f"not installed: {with_extra(extra)}"
    return {
        "runs on": {"CPU": kernels(build), "GPU": cuda_kernels(build), "GPU product": cuda_product(build)},
        "build": build,
        "packages": {name: version(name) or "not installed" for name in RUNTIME},
        "optional packages": parts,
    }
