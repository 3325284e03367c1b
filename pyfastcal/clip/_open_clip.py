"""The one place that imports open_clip, with a torchvision that was mended first where it must be."""

import sys
from types import ModuleType

from .._optional import import_torchvision, require


def import_open_clip() -> ModuleType:
    """Import open_clip and return it.

    open_clip imports torchvision, which a CPU-only torch may need mended (``_optional.import_torchvision``).

    Raises ImportError that says what to install where open_clip or torchvision is missing.
    """
    if sys.modules.get("open_clip") is None:
        import_torchvision()
    return require("open_clip", "clip")
