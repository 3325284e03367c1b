"""Calibration metrics, as functions."""

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

__all__ = [
    "ReliabilityCurve",
    "adaptive_calibration_error",
    "brier_score",
    "classwise_ece",
    "contrast",
    "debiased_ece",
    "expected_calibration_error",
    "interval_coverage_error",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "proximity_informed_ece",
    "reliability_curve",
    "signed_gaps",
]
