"""Post-hoc calibrators.

Those that scale logits (``LogitScaling``) never change a prediction and need no classes of the fit; those that map
probabilities say which of them do.
"""

from .bin_mean_shift import BinMeanShift
from .binning import HistogramBinning
from .chain import Chain, chain
from .contrast_aware import ContrastAwareCalibration, contrast_weight
from .density_ratio import DensityRatioCalibration
from .distance_aware import DistanceAwareCalibration
from .isotonic import IsotonicRegression, MultiIsotonicRegression
from .logit_scaling import LogitScaling
from .probability_map import ProbabilityMap
from .proximity import proximity, textual_deviation
from .temperature import TemperatureScaling

__all__ = [
    "BinMeanShift",
    "Chain",
    "ContrastAwareCalibration",
    "DensityRatioCalibration",
    "DistanceAwareCalibration",
    "HistogramBinning",
    "IsotonicRegression",
    "LogitScaling",
    "MultiIsotonicRegression",
    "ProbabilityMap",
    "TemperatureScaling",
    "chain",
    "contrast_weight",
    "proximity",
    "textual_deviation",
]
