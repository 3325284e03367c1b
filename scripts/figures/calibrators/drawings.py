"""Figures of what calibrators learn, and what they do to other predictions than those they learned from."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor

import pyfastcal as fc
from pyfastcal import metrics, ops, reference
from scripts.figures.page import BAR, GREEN, INK, MUTED, OVER, percent


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predictions(seed: int, n: int, c: int = 10, temperature: float = 1.8) -> tuple[Tensor, Tensor]:
    """Logits (n, c), and labels drawn from ``softmax(logits / temperature)``: over-confident where that is above 1."""
    g = generator(seed)
    logits = 4 * torch.randn(n, c, generator=g)
    return logits, torch.multinomial((logits / temperature).softmax(1), 1, generator=g)[:, 0]


def ece(probs: Tensor, labels: Tensor) -> float:
    confidence, prediction = probs.max(1)
    return float(metrics.expected_calibration_error(confidence, prediction == labels))


def _draw_other_rows(axes: Any, logits: Tensor, labels: Tensor) -> None:
    """The chance of being right that was seen where nothing was learned, and what the figure says beside it."""
    confidence, prediction = logits.softmax(1).max(1)
    curve = metrics.reliability_curve(confidence, prediction == labels, 100, n_bootstrap=0)
    seen = curve.count > 50
    axes.plot(curve.confidence[seen], curve.accuracy[seen], color=INK, lw=0.8, label="20,000 other rows")
    axes.set(xlabel="confidence", ylabel="chance of being right", xlim=(0.1, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=7, loc="upper left")


def temperature(axes: Any) -> str:
    logits, labels = predictions(0, 2000)
    new, new_labels = predictions(1, 2000, temperature=3.0)
    fitted = fc.TemperatureScaling().fit(logits, labels)
    there = fc.TemperatureScaling().fit(new, new_labels)
    temperatures = torch.linspace(0.6, 6, 60).tolist()
    for x, y, colour, name in ((logits, labels, MUTED, "base classes"), (new, new_labels, GREEN, "new classes")):
        axes.plot(temperatures, [float(ops.nll(x, y, 1 / t)[0]) for t in temperatures], color=colour, label=name)
    axes.axvline(float(fitted.temperature), color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.set(xlabel="temperature", ylabel="NLL", xlim=(0.5, 6), ylim=(1, 4))
    axes.legend(frameon=False, fontsize=7)
    before, after = (ece(x.softmax(1), new_labels) for x in (new, fitted(new)))
    return (
        f"NLL has one minimum, at {float(fitted.temperature):.2f} for base classes (dashed). New classes that need "
        f"{float(there.temperature):.2f} are left over-confident by it: their ECE falls from {percent(before)} to "
        f"{percent(after)}, with a temperature of their own it would be "
        f"{percent(ece(there(new).softmax(1), new_labels))}."
    )


def no_minimum(axes: Any) -> str:
    logits, _ = predictions(2, 60, 4)
    labels = logits.argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = fc.TemperatureScaling().fit(logits, labels)
    temperatures = torch.logspace(-1.5, 1.5, 80).tolist()
    likelihood = [math.exp(-60 * float(ops.nll(logits, labels, 1 / t)[0])) for t in temperatures]
    axes.plot(temperatures, likelihood, color=INK)
    axes.plot([float(fitted.temperature)], [0.5], "o", color=OVER, ms=5)
    axes.set(xscale="log", xlabel="temperature", ylabel="likelihood of all labels")
    confidence = fitted(logits).softmax(1).amax(1)
    return (
        "60 predictions, all of them right: the likelihood rises to 1 as the temperature falls to 0, and no "
        "temperature is the best. Taken is the one where it is one half, "
        f"{float(fitted.temperature):.2f} (dot): a mean confidence of {percent(confidence.mean())} instead of 100 %."
    )


def density_ratio(axes: Any) -> str:
    g = generator(3)
    logits, _ = predictions(3, 3000)
    probs = logits.softmax(1)
    confidence, prediction = probs.max(1)
    near = (0.55 + 0.12 * torch.randn(3000, generator=g)).clamp(0.2, 0.95)
    right = torch.rand(3000, generator=g) < confidence * (0.25 + 0.75 * ((near - 0.3) / 0.4).clamp(0, 1))
    labels = torch.where(right, prediction, (prediction + 1) % 10)
    den = fc.DensityRatioCalibration().fit(probs, labels, near)
    u, v = torch.linspace(0.2, 1, 60), torch.linspace(0.25, 0.85, 60)
    grid = den.confidence(u.repeat(60), proximity=v.repeat_interleave(60)).view(60, 60)
    lines = axes.contour(u, v, grid, levels=[0.1, 0.3, 0.5, 0.7, 0.9], colors=INK, linewidths=0.8)
    axes.clabel(lines, fontsize=6, fmt="%.1f")
    for keep, colour, name in ((right, GREEN, "right"), (~right, OVER, "wrong")):
        shown = keep.nonzero()[:250, 0]
        axes.plot(confidence[shown], near[shown], ".", color=colour, ms=2, alpha=0.6, label=name)
    axes.set(xlabel="confidence", ylabel="proximity", xlim=(0.2, 1.005), ylim=(0.25, 0.85))
    axes.legend(frameon=False, fontsize=7, loc="lower right", markerscale=4)
    far, close = den.confidence(torch.full((2,), 0.9), proximity=torch.tensor([0.4, 0.7])).tolist()
    groups = reference.equal_mass_groups(near, 5)
    gaps = [
        float(c[groups == 0].mean() - right[groups == 0].double().mean())
        for c in (confidence, den.confidence(confidence, proximity=near))
    ]
    return (
        "The chance of being right (contours) that density-ratio calibration reads from predictions which are wrong "
        f"more often where they are far from the base images: a confidence of 90 % is worth {percent(far, 0)} at a "
        f"proximity of 0.4 and {percent(close, 0)} at 0.7. Among the fifth of least proximity, confidence exceeded "
        f"accuracy by {100 * gaps[0]:.0f} points; after calibration by {100 * gaps[1]:.1f}."
    )


def histogram_binning(axes: Any) -> str:
    logits, labels = predictions(4, 1000)
    test, test_labels = predictions(5, 20_000)
    found = {}
    grid = torch.linspace(0.12, 1, 1000)
    for n_bins, colour in ((50, BAR), (10, OVER)):
        hb = fc.HistogramBinning(n_bins, "top_label").fit(logits.softmax(1), labels)
        share = hb.share[0][reference.bin_index(grid, reference.uniform_edges(n_bins))]
        axes.plot(grid, share, color=colour, lw=1.2, label=f"{n_bins} bins")
        found[n_bins] = ece(hb(test.softmax(1)), test_labels)
    _draw_other_rows(axes, test, test_labels)
    return (
        "Histogram binning of the top label, learned from 1,000 rows: ten bins are coarse, fifty follow what chance "
        f"did to their few rows. ECE of 20,000 other rows: {percent(ece(test.softmax(1), test_labels))} before, "
        f"{percent(found[10])} with ten bins, {percent(found[50])} with fifty."
    )


def isotonic(axes: Any) -> str:
    logits, labels = predictions(6, 400)
    ir = fc.IsotonicRegression("top_label").fit(logits.softmax(1), labels)
    test, test_labels = predictions(7, 20_000)
    probs = test.softmax(1)
    confidence, prediction = probs.max(1)
    mapped = ir(probs).gather(1, prediction[:, None])[:, 0]
    order = confidence.argsort()
    axes.plot(confidence[order], mapped[order], color=OVER, lw=1.2, label="400 rows")
    _draw_other_rows(axes, test, test_labels)
    certain = float((mapped >= 1).double().mean())
    wrong = float((prediction != test_labels)[mapped >= 1].double().mean()) if certain else 0.0
    return (
        f"Isotonic regression of the top label is nearly a staircase: {len(mapped.unique()):,} values for 20,000 rows, "
        f"{len(confidence.unique()):,} before. Its last step is 1, as the most confident rows of the fit were all "
        f"right: {percent(certain)} of the other rows are called certain, of which {percent(wrong)} are wrong, and "
        "that makes NLL infinite."
    )


def who_changes_predictions(axes: Any) -> str:
    logits, labels = predictions(8, 2000)
    test, test_labels = predictions(9, 20_000)
    probs, new = logits.softmax(1), test.softmax(1)
    near, new_near = (torch.rand(n, generator=generator(n)) for n in (2000, 20_000))
    maps = {
        "HB, one vs rest": fc.HistogramBinning(),
        "HB, top label": fc.HistogramBinning(strategy="top_label"),
        "IR, one vs rest": fc.IsotonicRegression(),
        "IR, top label": fc.IsotonicRegression("top_label"),
        "MIR, per class": fc.MultiIsotonicRegression("per_class"),
        "MIR, shared": fc.MultiIsotonicRegression(),
    }
    outcomes = {name: calibrator.fit(probs, labels)(new) for name, calibrator in maps.items()}
    outcomes["DEN"] = fc.DensityRatioCalibration().fit(probs, labels, near)(new, new_near)
    outcomes["TS"] = fc.TemperatureScaling().fit(logits, labels)(test).softmax(1)
    before = new.argmax(1)
    changed = {name: float((out.argmax(1) != before).double().mean()) for name, out in outcomes.items()}
    names = list(changed)
    axes.barh(range(len(names)), [100 * changed[name] for name in names], color=OVER, height=0.6)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="predictions changed, %")
    for row, name in enumerate(names):
        axes.text(100 * changed[name], row, f" {percent(changed[name])}", va="center", size=6.5, color=MUTED)
    axes.margins(x=0.15)
    accuracy = {name: float((outcomes[name].argmax(1) == test_labels).double().mean()) for name in names}
    return (
        "Predictions that calibration changes, learned from 2,000 rows, counted over 20,000 others. A shared monotone "
        "map and a factor per row change none. Histogram binning one vs rest takes the accuracy from "
        f"{percent(accuracy['TS'])} to {percent(accuracy['HB, one vs rest'])}, binning of the top label to "
        f"{percent(accuracy['HB, top label'])}."
    )


def bin_mean_shift(axes: Any) -> str:
    g = generator(10)

    def draw(n: int) -> tuple[Tensor, Tensor, Tensor]:
        probs = (4 * torch.randn(n, 10, generator=g)).softmax(1)
        near = torch.rand(n, generator=g)
        confidence, prediction = probs.max(1)
        right = torch.rand(n, generator=g) < confidence * (0.4 + 0.6 * near)
        return probs, torch.where(right, prediction, (prediction + 1) % 10), near

    probs, labels, near = draw(5000)
    test, test_labels, test_near = draw(20_000)
    mir = fc.MultiIsotonicRegression()
    bms = fc.BinMeanShift(mir, 5).fit(probs, labels, near)
    for g_index, calibrator in enumerate(bms.calibrators):
        known = calibrator.x[0] <= 1
        axes.plot(calibrator.x[0][known], calibrator.y[0][known], color=GREEN, alpha=0.3 + 0.14 * g_index, lw=1)
    mir.fit(probs, labels)
    known = mir.x[0] <= 1
    axes.plot(mir.x[0][known], mir.y[0][known], color=INK, lw=1)
    axes.set(xlabel="probability", ylabel="calibrated, before the sum is brought to 1", xlim=(0, 1), ylim=(0, 1))
    found = {}
    for name, out in (("before", test), ("mir", mir(test)), ("bms", bms(test, test_near))):
        confidence, prediction = out.max(1)
        found[name] = metrics.proximity_informed_ece(
            confidence, prediction == test_labels, test_near, n_proximity_bins=5
        )
    return (
        "MIR (black) and its five maps by bin-mean-shift (green, darker with proximity), where predictions far from "
        f"the base images are wrong more often. PIECE of 20,000 other rows is {percent(found['before'])} before, "
        f"{percent(found['mir'])} with one map, {percent(found['bms'])} with five."
    )
