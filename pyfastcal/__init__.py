"""pyfastcal: trustworthy confidences for CLIP, at any scale."""
from . import ops, reference
from .ops import bin_counts, confidence, knn, similarity_confidence
