"""A metric of each kind, fed batch by batch, and what its functional form gives."""

import pyfastcal as fc
from pyfastcal import metrics

N = 2500  # rows of ``stream``


def functional(name, stream):
    """What a metric of this name should be."""
    confidence, prediction, labels, proximity = stream
    top = confidence, prediction == labels
    return {
        "ece": lambda: metrics.expected_calibration_error(*top),
        "l2": lambda: metrics.expected_calibration_error(*top, 15, norm="l2", closed="right"),
        "max": lambda: metrics.expected_calibration_error(*top, norm="max"),
        "mce": lambda: metrics.maximum_calibration_error(*top),
        "mce_weighted": lambda: metrics.maximum_calibration_error(*top, weighted=True),
        "debiased": lambda: metrics.debiased_ece(*top),
        "gaps": lambda: metrics.signed_gaps(*top),
        "ace": lambda: metrics.adaptive_calibration_error(*top),
        "piece": lambda: metrics.proximity_informed_ece(*top, proximity),
    }[name]()


def fed(metric, stream, step=256):
    """``metric`` after all rows of ``stream``."""
    width = 4 if isinstance(metric, (fc.ProximityInformedECE, fc.CalibrationMetrics)) else 3
    for batch in zip(*(x.split(step) for x in stream), strict=True):
        metric.update(*batch[:width])
    return metric
