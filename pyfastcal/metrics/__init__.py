"""Calibration metrics: as functions, as the accumulator of a stream, and as torchmetrics classes (``STREAMING``), which
are imported when first asked for."""

from typing import TYPE_CHECKING

from .accumulator import Accumulator
from .calibration_error import (
    adaptive_calibration_error,
    classwise_ece,
    debiased_ece,
    expected_calibration_error,
    maximum_calibration_error,
    proximity_informed_ece,
)
from .reliability import ReliabilityCurve, reliability_curve, signed_gaps
from .scores import brier_score, contrast, interval_coverage_error, negative_log_likelihood
from .stored_stream import adaptive_calibration_error_of_stream, proximity_informed_ece_of_stream

if TYPE_CHECKING:
    from .streaming import AdaptiveCalibrationError as AdaptiveCalibrationError
    from .streaming import CalibrationError as CalibrationError
    from .streaming import CalibrationMetrics as CalibrationMetrics
    from .streaming import ClasswiseCalibrationError as ClasswiseCalibrationError
    from .streaming import DebiasedCalibrationError as DebiasedCalibrationError
    from .streaming import MaximumCalibrationError as MaximumCalibrationError
    from .streaming import ProximityInformedECE as ProximityInformedECE
    from .streaming import SignedGaps as SignedGaps

__all__ = [
    "Accumulator",
    "ReliabilityCurve",
    "adaptive_calibration_error",
    "adaptive_calibration_error_of_stream",
    "brier_score",
    "classwise_ece",
    "contrast",
    "debiased_ece",
    "expected_calibration_error",
    "interval_coverage_error",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "proximity_informed_ece",
    "proximity_informed_ece_of_stream",
    "reliability_curve",
    "signed_gaps",
]

STREAMING = (
    "AdaptiveCalibrationError",
    "CalibrationError",
    "CalibrationMetrics",
    "ClasswiseCalibrationError",
    "DebiasedCalibrationError",
    "MaximumCalibrationError",
    "ProximityInformedECE",
    "SignedGaps",
)


def __dir__() -> list[str]:
    return sorted({*__all__, *STREAMING})


if not TYPE_CHECKING:  # a checker is to know the names above, and no others

    def __getattr__(name: str) -> object:
        if name in STREAMING:
            from . import streaming

            return getattr(streaming, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
