"""Figures of equal mass in one pass over a stream."""

from typing import Any

from pyfastcal import metrics
from pyfastcal.metrics import equal_mass
from pyfastcal.metrics.fine import CONFIDENCE
from scripts.figures.metrics.data import calibrated, tuned
from scripts.figures.page import INK, OVER


def cells(axes: Any) -> str:
    lower, upper = CONFIDENCE.bounds()
    width = (upper - lower)[CONFIDENCE.half + 1 :]
    axes.plot((1 - lower[CONFIDENCE.half + 1 :]).tolist(), width.tolist(), color=INK)
    axes.set(xscale="log", yscale="log", xlabel="1 - confidence", ylabel="width of the fine cell", xlim=(1e-6, 0.5))
    confidence, correct = tuned(0, 100_000)
    count = metrics.Accumulator(n_proximity_bins=None).update(confidence, correct).read().fine.count
    _, below = equal_mass.start_cells(count, 10)
    return (
        f"{CONFIDENCE.size:,} cells, at most {float(width.max()):.4f} wide, and 2^-17 at the ends. Of 100,000 "
        f"saturated confidences at most {int(count.max()):,} share one, and {int(below.sum()):,} in all lie in a "
        "cell with a start and below it: all that is not known of ten equal-mass bins."
    )


def streamed(axes: Any) -> str:
    sizes = (300, 1000, 3000, 10_000, 30_000, 100_000)
    found: dict[str, list[float]] = {}
    for name, make, colour in (("calibrated", calibrated, INK), ("over-confident", tuned, OVER)):
        widths, errors = [], []
        for n in sizes:
            confidence, correct = make(n, n)
            accumulator = metrics.Accumulator(n_proximity_bins=None).update(confidence, correct)
            exact = float(metrics.adaptive_calibration_error(confidence, correct))
            value = float(accumulator.compute()["ace"])
            low, high = accumulator.error_intervals()["ace"]
            assert low <= exact <= high
            widths.append(100 * max(high - value, value - low, 1e-6))
            errors.append(100 * max(abs(value - exact), 1e-6))
        axes.plot(sizes, widths, color=colour, label=f"{name}, bound")
        axes.plot(sizes, errors, color=colour, ls="", marker="o", ms=3, label=f"{name}, error")
        found[name] = [widths[-1], errors[-1]]
    axes.set(xscale="log", yscale="log", xlabel="rows", ylabel="ACE, points of %")
    axes.legend(frameon=False, fontsize=6)
    return (
        "ACE of a stream against the exact one, and the proven bound; 10^-4 stands for anything less. At 100,000 "
        f"rows the bound is {found['calibrated'][0]:.2f} points for a calibrated predictor, whose bins are off in "
        f"either direction by chance, and the error {found['calibrated'][1]:.3f}; where most bins are off in the "
        f"same direction it is {found['over-confident'][0]:.1g} points."
    )
