"""Post-hoc calibrators."""

from .contrast_aware import ContrastAwareCalibration, contrast_weight
from .distance_aware import DistanceAwareCalibration
from .logit_scaling import LogitScaling

__all__ = ["ContrastAwareCalibration", "DistanceAwareCalibration", "LogitScaling", "contrast_weight"]
