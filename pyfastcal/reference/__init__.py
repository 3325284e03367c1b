"""Plain-torch twins of every public function: the definitions that each backend is tested against.

Any floating dtype (float64 too) and any device; arguments are not validated. Tensors in, tensors out.
"""

from .common import bin_index, equal_mass_groups, equal_mass_starts, uniform_edges
from .metrics import (
    adaptive_calibration_error,
    brier_score,
    classwise_ece,
    contrast,
    debiased_ece,
    expected_calibration_error,
    interval_coverage_error,
    maximum_calibration_error,
    negative_log_likelihood,
    proximity_informed_ece,
    reliability_curve,
    signed_gaps,
)
from .operators import (
    bin_counts,
    confidence,
    contrast_distance,
    fixed_point_bin_counts,
    knn,
    log_density,
    nll,
    similarity,
    similarity_confidence,
)
from .weights import contrast_weight, distance_of_logits, proximity, textual_deviation, weight_of_distance

__all__ = [
    "adaptive_calibration_error",
    "bin_counts",
    "bin_index",
    "brier_score",
    "classwise_ece",
    "confidence",
    "contrast",
    "contrast_distance",
    "contrast_weight",
    "debiased_ece",
    "distance_of_logits",
    "equal_mass_groups",
    "equal_mass_starts",
    "expected_calibration_error",
    "fixed_point_bin_counts",
    "interval_coverage_error",
    "knn",
    "log_density",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "nll",
    "proximity",
    "proximity_informed_ece",
    "reliability_curve",
    "signed_gaps",
    "similarity",
    "similarity_confidence",
    "textual_deviation",
    "uniform_edges",
    "weight_of_distance",
]
