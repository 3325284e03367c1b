"""Imports of the optional packages, with an error that says what to install."""

import importlib
import importlib.util
import sys
from types import ModuleType

_declared: list[object] = []  # keeps the library object, and with it the operator schemas, alive


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or raise an ImportError that names the extra of pyfastcal that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the package is there; something it needs is not
        raise ImportError(f"pyfastcal needs {module} for this: pip install 'pyfastcal[{extra}]'") from error


def require_torchmetrics() -> ModuleType:
    """Import torchmetrics, which imports torchvision where there is one."""
    if "torchmetrics" not in sys.modules and importlib.util.find_spec("torchvision"):
        import_torchvision()
    return require("torchmetrics", "metrics")


def import_torchvision() -> ModuleType:
    """Import torchvision, mended where it must be.

    The registry's torchvision wheel is built for CUDA; beside a CPU-only torch its compiled part does not load, and
    ``import torchvision`` then stops at "operator torchvision::nms does not exist", although nothing that open_clip or
    torchmetrics does here needs that operator. Declaring the schemas which the compiled part would have registered
    lets the Python part load.
    """
    try:
        return require("torchvision", "clip")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or "does not exist" not in str(error):
            raise
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half-initialised by the failed import
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return importlib.import_module("torchvision")
