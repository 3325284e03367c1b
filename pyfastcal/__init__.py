"""pyfastcal: trustworthy confidences for CLIP, at any scale.

Data flows one way: features -> factor per row -> (confidence, prediction) -> bin counts -> metrics -> report.
"""

import importlib
from typing import Any

from . import metrics, reference
from .calibration import (
    BinMeanShift,
    ContrastAwareCalibration,
    DensityRatioCalibration,
    DistanceAwareCalibration,
    HistogramBinning,
    IsotonicRegression,
    MultiIsotonicRegression,
    TemperatureScaling,
    chain,
    contrast_weight,
)
from .info import build_info, package_version
from .ops import bin_counts, confidence, knn, similarity_confidence
from .proximity import proximity, textual_deviation

__version__ = package_version()

__all__ = [
    "BinMeanShift",
    "ContrastAwareCalibration",
    "DensityRatioCalibration",
    "DistanceAwareCalibration",
    "HistogramBinning",
    "IsotonicRegression",
    "MultiIsotonicRegression",
    "TemperatureScaling",
    "bin_counts",
    "build_info",
    "chain",
    "confidence",
    "contrast_weight",
    "knn",
    "metrics",
    "proximity",
    "reference",
    "similarity_confidence",
    "textual_deviation",
]

_LAZY = ("clip", "evaluate", "io", "report")  # what most programs never touch


def __getattr__(name: str) -> Any:
    if name in metrics.STREAMING:
        return getattr(metrics, name)
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
