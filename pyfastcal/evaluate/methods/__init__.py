"""The calibration methods of an evaluation, by name: in ``method`` what one is, in ``scaling`` and ``mapping`` all."""

from collections.abc import Iterable

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
    named = [name for method in methods for name in (METHODS if method == "all" else (method,))]
    chosen = tuple(dict.fromkeys(named))
    for method in chosen:
        if method not in METHODS:
            raise ValueError(f"methods must be among all, {', '.join(METHODS)}, got {method!r}")
    if not chosen:
        raise ValueError(f"methods must name at least one of {', '.join(METHODS)}")
    return chosen
