"""Warnings that point at the caller's line, however many of our own and of torch's frames lie between."""

import sys
import warnings

_OURS = ("pyfastcal", "torch")


def warn_caller(text: str) -> None:
    """A UserWarning at the nearest line that is neither pyfastcal's nor torch's."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
