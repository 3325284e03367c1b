"""Figures of what confidences in bins show, and how the bins mislead."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyfastcal import metrics
from pyfastcal.metrics import diagram
from pyfastcal.reference import equal_mass_groups
from scripts.figures.metrics.data import calibrated, draws, tuned
from scripts.figures.page import BAR, GREEN, INK, MUTED, OVER, UNDER, percent


def reliability(axes: Any) -> str:
    confidence, correct = tuned(0, 4000)
    curve = metrics.reliability_curve(confidence, correct)
    diagram.draw(curve, axes)
    low, high = float(curve.lower[1]), float(curve.upper[1])
    ece = metrics.expected_calibration_error(confidence, correct)
    return (
        f"ECE is the mean length of the coloured bars, weighted by the rows in each: {percent(ece)} for these 4,000. "
        f"Lines show where the middle 95 % of resamplings put the accuracy; the {int(curve.count[1])} rows of the "
        f"second bin leave it between {percent(low, 0)} and {percent(high, 0)}."
    )


def edges(axes: Any) -> str:
    confidence, correct = tuned(0, 4000)
    rounded = ((10 * confidence).round() / 10).float()  # what a table with one decimal keeps
    ece, last = {}, {}
    for closed, shift, colour in (("left", -0.2, UNDER), ("right", 0.2, OVER)):
        count = metrics.reliability_curve(rounded, correct, closed=closed, n_bootstrap=0).count
        axes.bar([b + shift for b in range(10)], count.tolist(), 0.4, color=colour, label=f'closed="{closed}"')
        ece[closed] = metrics.expected_calibration_error(rounded, correct, closed=closed)
        last[closed] = int(count[9])
    axes.set(xlabel="bin", ylabel="rows", xticks=range(10))
    axes.legend(frameon=False, fontsize=7)
    return (
        f"Confidences rounded to one decimal all lie on edges: the last of ten bins holds {last['left']:,} rows if "
        f"bins are [l, u) and {last['right']:,} if they are (l, u]. The reliability diagram moves by a bin; ECE is "
        f"{percent(ece['left'], 2)} one way and {percent(ece['right'], 2)} the other, with all digits "
        f"{percent(metrics.expected_calibration_error(confidence, correct), 2)}."
    )


def small_bins(axes: Any) -> str:
    sizes, repeats = (50, 100, 200, 500, 1000, 2000, 5000), 60
    kinds: dict[str, tuple[Callable[..., Tensor], str]] = {
        "ECE": (metrics.expected_calibration_error, INK),
        "l2": (lambda *x, n_bins: metrics.expected_calibration_error(*x, n_bins, norm="l2"), OVER),
        "debiased l2": (metrics.debiased_ece, GREEN),
    }
    means = {}
    for name, (measure, colour) in kinds.items():
        means[name] = [
            float(torch.stack([measure(*calibrated(1000 * n + i, n), n_bins=15) for i in range(repeats)]).mean())
            for n in sizes
        ]
        axes.plot(sizes, [100 * v for v in means[name]], color=colour, marker="o", ms=3, label=name)
    axes.set(xscale="log", xlabel="rows", ylabel="mean error in %, 15 bins", ylim=(0, None))
    axes.legend(frameon=False, fontsize=7)
    return (
        "A perfectly calibrated predictor, whose error is 0. With 100 rows in 15 bins its ECE averages "
        f"{percent(means['ECE'][1])}, with 5,000 still {percent(means['ECE'][-1])}: the accuracies' noise is counted "
        f"as error. Debiasing takes most of it off (from {percent(means['l2'][1])} to "
        f"{percent(means['debiased l2'][1])} in l2 at 100 rows), not all, as the clamp at 0 and the root keep what "
        "is left positive."
    )


def gaps(axes: Any) -> str:
    confidence, correct = tuned(0, 4000)
    other = (
        draws(5, 4000)
        < confidence + metrics.signed_gaps(confidence, correct).nan_to_num()[(10 * confidence).long().clamp(max=9)]
    )
    for shift, right, colour, name in (
        (-0.02, correct, OVER, "over-confident"),
        (0.02, other, UNDER, "under-confident"),
    ):
        values = metrics.signed_gaps(confidence, right)
        axes.bar([(b + 0.5) / 10 + shift for b in range(10)], values.tolist(), 0.04, color=colour, label=name)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.set(xlim=(0, 1), xlabel="confidence", ylabel="signed gap")
    axes.legend(frameon=False, fontsize=7)
    eces = [metrics.expected_calibration_error(confidence, right) for right in (correct, other)]
    return (
        f"ECEs of {percent(eces[0])} and {percent(eces[1])} that mean opposite things: ECE has no sign. A "
        "temperature above 1 helps the one and harms the other."
    )


def largest_gap(axes: Any) -> str:
    bins, repeats, found = (2, 5, 10, 15, 20, 30, 50), 40, {}
    for weighted, colour in ((False, OVER), (True, INK)):
        name = "MCE, weighted" if weighted else "MCE"
        found[name] = []
        for n in bins:
            values = [
                metrics.maximum_calibration_error(*calibrated(i, 1000), n, weighted=weighted) for i in range(repeats)
            ]
            found[name].append(float(torch.stack(values).mean()))
        axes.plot(bins, [100 * v for v in found[name]], color=colour, marker="o", ms=3, label=name)
    axes.set(xlabel="bins", ylabel="mean error in %, 1,000 rows", ylim=(0, None))
    axes.legend(frameon=False, fontsize=7)
    return (
        "1,000 rows of a perfectly calibrated predictor. The largest gap is that of the smallest bin: "
        f"{percent(found['MCE'][2])} on average with 10 bins, {percent(found['MCE'][-1])} with 50. Weighted by n_b/N "
        f"it falls instead, from {percent(found['MCE, weighted'][2])} to {percent(found['MCE, weighted'][-1])}: the "
        "two are not to be compared."
    )


def ties(axes: Any) -> str:
    exact = torch.sigmoid(4 + 4 * torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    correct = draws(1, 4000) < 0.15 + 0.7 * exact
    confidence = exact.half()
    certain = float((confidence == 1).double().mean())
    count = {}
    for name, values, shift, colour in (("half precision", confidence, -0.2, OVER), ("double", exact, 0.2, BAR)):
        count[name] = torch.bincount(equal_mass_groups(values, 20), minlength=20)
        axes.bar([b + shift for b in range(20)], count[name].tolist(), 0.4, color=colour, label=name)
    axes.set(xlabel="equal-mass bin of 20", ylabel="rows", xticks=range(0, 20, 5))
    axes.legend(frameon=False, fontsize=7)
    tied = count["half precision"]
    ace = metrics.adaptive_calibration_error(confidence, correct, 20)
    return (
        f"In half precision {percent(certain, 0)} of these confidences are exactly 1. They are never split: the last "
        f"of 20 equal-mass bins holds {int(tied[-1])} of 4,000 rows, {int((tied == 0).sum())} before it are empty, "
        f"and ACE, {percent(ace)}, does not depend on the order of the rows."
    )


def proximity(axes: Any) -> str:
    confidence = 0.5 + 0.5 * draws(0, 4000)
    near = draws(1, 4000)
    correct = draws(2, 4000) < confidence + 0.4 * (near - 0.5)
    for shift, chosen, colour, name in (
        (-0.02, near < 0.5, OVER, "far from the others"),
        (0.02, near >= 0.5, UNDER, "near"),
    ):
        curve = metrics.reliability_curve(confidence[chosen], correct[chosen], 10, n_bootstrap=0)
        middles = [(b + 0.5) / 10 + shift for b in range(5, 10)]
        axes.bar(middles, (curve.confidence - curve.accuracy)[5:].tolist(), 0.04, color=colour, label=name)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.set(xlabel="confidence", ylabel="confidence - accuracy", ylim=(-0.15, 0.2))
    axes.legend(frameon=False, fontsize=7)
    ece = metrics.expected_calibration_error(confidence, correct)
    piece = metrics.proximity_informed_ece(confidence, correct, near)
    noise = metrics.proximity_informed_ece(*calibrated(0, 4000), near)
    return (
        "Images far from all others are over-confident here and near ones under-confident; together they cancel: "
        f"ECE is {percent(ece)}, PIECE {percent(piece)}. But it has ten times as many bins: a perfectly calibrated "
        f"predictor of 4,000 rows has a PIECE of {percent(noise)}."
    )
