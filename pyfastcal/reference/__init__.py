"""Plain-torch twins of every public function: the definitions that each backend is tested against.

Any floating dtype (float64 too) and any device; arguments are not validated. Tensors in, tensors out.
"""

from ._common import bin_index, equal_mass_groups, uniform_edges
from .operators import bin_counts, confidence, contrast_distance, knn, similarity_confidence

__all__ = [
    "bin_counts",
    "bin_index",
    "confidence",
    "contrast_distance",
    "equal_mass_groups",
    "knn",
    "similarity_confidence",
    "uniform_edges",
]
