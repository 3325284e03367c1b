"""The one place that imports open_clip."""

from types import ModuleType

from ..installation.extras import require


def import_open_clip() -> ModuleType:
    """``import open_clip``, at first use alone.

    Raises ImportError that says what to install where open_clip or torchvision is missing.
    """
    require("torchvision", "clip")  # which open_clip imports: its absence is to be told in the same words
    return require("open_clip", "clip")
