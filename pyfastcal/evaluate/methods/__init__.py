"""The calibration methods of an evaluation, by name: in ``method`` what one is, in ``scaling`` and ``mapping`` all."""

from collections.abc import Iterable

from ...arguments.names import chosen
from . import mapping, scaling
from .method import PROXIMITY_NEIGHBOURS, Apply, Calibrated, Fit, NotApplicable, check_base, image_proximity

__all__ = [
    "DEFAULT_METHODS",
    "METHODS",
    "PROXIMITY_NEIGHBOURS",
    "Apply",
    "Calibrated",
    "Fit",
    "NotApplicable",
    "check_base",
    "check_methods",
    "image_proximity",
]

METHODS: dict[str, Fit] = {
    "zero-shot": scaling.zero_shot,
    "conf": scaling.uncalibrated,
    "ts": scaling.temperature,
    "den": mapping.density_ratio,
    "hb": mapping.histogram_binning,
    "ir": mapping.isotonic_regression,
    "mir": mapping.multi_isotonic_regression,
    "bms-mir": mapping.bin_mean_shift,
    "dac": scaling.distance_aware,
    "ts+dac": scaling.temperature_and_distance,
    "cac": scaling.contrast_aware,
    "cac-fit": scaling.contrast_aware_fitted,
}
DEFAULT_METHODS = ("conf", "dac", "cac", "cac-fit")


def check_methods(methods: Iterable[str]) -> tuple[str, ...]:
    """The methods, each once, in the order given, ``all`` standing for all there are; ValueError at an unknown name or
    none at all."""
    return chosen("methods", methods, METHODS)
