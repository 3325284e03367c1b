"""The one place that imports open_clip, and mends torchvision first where it must."""

import importlib
import sys
from types import ModuleType

from .._optional import require

_declared: list[object] = []  # keeps the library object, and with it the operator schemas, alive


def import_open_clip() -> ModuleType:
    """Import open_clip and return it.

    open_clip imports torchvision. The registry's torchvision wheel is built for CUDA; beside a CPU-only
    torch its compiled part does not load, and ``import torchvision`` then stops at "operator
    torchvision::nms does not exist", although nothing that open_clip does needs that operator. Declaring
    the schemas which the compiled part would have registered lets the Python part load.

    Raises ImportError that says what to install where open_clip or torchvision is missing.
    """
    if sys.modules.get("open_clip") is None:
        _import_torchvision()
    return require("open_clip", "clip")


def _import_torchvision() -> ModuleType:
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
