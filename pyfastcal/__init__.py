"""pyfastcal: trustworthy confidences for CLIP, at any scale.

Data flows one way: features -> factor per row -> (confidence, prediction) -> bin counts -> metrics -> report.
"""

import importlib as _importlib
from typing import TYPE_CHECKING

from . import metrics, ops, reference
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
    proximity,
    textual_deviation,
)
from .installation import torchvision_import as _torchvision_import
from .installation.commands import package_version as _package_version
from .ops import bin_counts, confidence, knn, similarity_confidence
from .ops.info import build_info

if TYPE_CHECKING:
    from . import clip as clip
    from . import evaluate as evaluate
    from . import experiment as experiment
    from . import io as io
    from . import report as report
    from . import shards as shards
    from . import stream as stream
    from .experiment import demo as demo
    from .metrics.streaming import AdaptiveCalibrationError as AdaptiveCalibrationError
    from .metrics.streaming import CalibrationError as CalibrationError
    from .metrics.streaming import CalibrationMetrics as CalibrationMetrics
    from .metrics.streaming import ClasswiseCalibrationError as ClasswiseCalibrationError
    from .metrics.streaming import DebiasedCalibrationError as DebiasedCalibrationError
    from .metrics.streaming import MaximumCalibrationError as MaximumCalibrationError
    from .metrics.streaming import ProximityInformedECE as ProximityInformedECE
    from .metrics.streaming import SignedGaps as SignedGaps

__version__ = _package_version()

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
    "ops",
    "proximity",
    "reference",
    "similarity_confidence",
    "textual_deviation",
]

_LAZY = {name: name for name in ("clip", "evaluate", "experiment", "io", "report", "shards", "stream")}
_LAZY |= {"demo": "experiment.demo"}  # what most programs never touch
_torchvision_import.install()


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY, *metrics.STREAMING, "__version__"})


if not TYPE_CHECKING:  # a checker is to know the names above, and no others

    def __getattr__(name: str) -> object:
        if name in metrics.STREAMING:
            return getattr(metrics, name)
        if name in _LAZY:
            return _importlib.import_module(f"{__name__}.{_LAZY[name]}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
