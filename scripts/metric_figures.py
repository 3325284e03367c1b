"""The figures of docs/metrics.md: ``python scripts/metric_figures.py`` draws them and puts what they show under each.

See ``doc_figures``."""

from collections.abc import Callable
from typing import Any

import torch
from doc_figures import BAR, DOCS, GREEN, INK, MUTED, OVER, UNDER, Draw, percent, write
from torch import Tensor

from pyfastcal import metrics
from pyfastcal.metrics import _diagram, _equal_mass
from pyfastcal.metrics._fine import CONFIDENCE
from pyfastcal.reference import equal_mass_groups

PAGE = DOCS / "metrics.md"


def draws(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def calibrated(seed: int, n: int) -> tuple[Tensor, Tensor]:
    """Confidences uniform on [0, 1], each right as often as it says."""
    confidence = draws(seed, n)
    return confidence, draws(seed + 10_000, n) < confidence


def tuned(seed: int, n: int) -> tuple[Tensor, Tensor]:
    """Over-confident and saturated, as a tuned CLIP on new classes."""
    confidence = torch.sigmoid(2 + 3 * torch.randn(n, generator=torch.Generator().manual_seed(seed))).double()
    return confidence, draws(seed + 10_000, n) < 0.15 + 0.7 * confidence**1.5


def reliability(axes: Any) -> str:
    confidence, correct = tuned(0, 4000)
    curve = metrics.reliability_curve(confidence, correct)
    _diagram.draw(curve, axes)
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


def classwise(axes: Any) -> str:
    sizes, found = (2, 5, 10, 20, 50, 100, 200), {"classwise": [], "top label": []}
    for c in sizes:
        generator = torch.Generator().manual_seed(c)
        logits = torch.randn(4000, c, generator=generator)
        labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        probs = (2 * logits).softmax(1)  # twice as sharp as it should be
        top, prediction = probs.max(1)
        found["classwise"].append(float(metrics.classwise_ece(probs, labels)))
        found["top label"].append(float(metrics.expected_calibration_error(top, prediction == labels)))
    for (name, values), colour in zip(found.items(), (OVER, INK), strict=True):
        axes.plot(sizes, [100 * v for v in values], color=colour, marker="o", ms=3, label=name)
    axes.set(xscale="log", yscale="log", xlabel="classes", ylabel="error in %")
    axes.legend(frameon=False, fontsize=7)
    return (
        f"Logits twice as large as they should be. The top label's ECE is {percent(found['top label'][2], 0)} at 10 "
        f"classes and {percent(found['top label'][-1], 0)} at 200; the classwise one falls from "
        f"{percent(found['classwise'][2])} to {percent(found['classwise'][-1], 2)}, as most of a class's "
        "probabilities are near 0 and so are their gaps."
    )


def proper_scores(axes: Any) -> str:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 10, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    scales = [0.25 * 2 ** (i / 4) for i in range(17)]
    rows = {"NLL": [], "Brier": [], "ECE": []}
    for scale in scales:
        probs = (scale * logits).softmax(1)
        top, prediction = probs.max(1)
        rows["NLL"].append(float(metrics.negative_log_likelihood(probs, labels)))
        rows["Brier"].append(float(metrics.brier_score(probs, labels)))
        rows["ECE"].append(float(metrics.expected_calibration_error(top, prediction == labels)))
    for (name, values), colour in zip(rows.items(), (INK, UNDER, OVER), strict=True):
        axes.plot(scales, values, color=colour, label=name)
    axes.set(xscale="log", xlabel="logits scaled by", ylim=(0, None))
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False, fontsize=7)
    at = scales.index(1.0)
    best = {name: scales[values.index(min(values))] for name, values in rows.items()}
    even = (labels == 0).double().mean().expand(4000)
    constant = metrics.expected_calibration_error(even, labels == 0)
    return (
        f"All three are least near the true scale 1 (NLL at {best['NLL']:.2f}, Brier at {best['Brier']:.2f}, ECE at "
        f"{best['ECE']:.2f}). There NLL is {rows['NLL'][at]:.2f} nats and Brier {rows['Brier'][at]:.2f}, not 0: they "
        "also count what cannot be known. ECE does not, so always answering class 0 with its frequency has an ECE "
        f"of {percent(constant)}."
    )


def coverage(axes: Any) -> str:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 10, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    alphas = [0.05 * i for i in range(1, 20)]
    at = {}
    for scale, colour, name in ((1, INK, "calibrated"), (2, OVER, "logits doubled"), (0.5, UNDER, "logits halved")):
        probs = (scale * logits).softmax(1)
        order = probs.argsort(1, descending=True)
        ahead = probs.gather(1, order).cumsum(1) - probs.gather(1, order)
        reached = (ahead * (order == labels[:, None])).sum(1)  # mass of the classes before the true one
        axes.plot(alphas, [float((reached < a).double().mean()) for a in alphas], color=colour, label=name)
        at[name] = metrics.interval_coverage_error(probs, labels, 0.9)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 3)))
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="alpha", ylabel="coverage")
    axes.legend(frameon=False, fontsize=7)
    return (
        "How often the true class is in the smallest set of classes whose mass reaches alpha. At 0.9 the error is "
        f"{percent(at['logits doubled'])} with logits doubled, {percent(at['logits halved'])} with logits halved, "
        f"and {percent(at['calibrated'])} where calibrated: sets are whole classes and so cover more than alpha, "
        "least so where there are many."
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


def contrast(axes: Any) -> str:
    generator = torch.Generator().manual_seed(0)
    similarity = 0.2 + 0.03 * torch.randn(4000, 20, generator=generator)
    labels = torch.randint(0, 20, (4000,), generator=generator)
    similarity[torch.arange(4000), labels] += 0.08
    own = similarity.gather(1, labels[:, None])[:, 0]
    others = similarity.scatter(1, labels[:, None], -1).max(1).values
    for values, colour, name in ((own, GREEN, "true class"), (others, BAR, "best other class")):
        axes.hist(values.tolist(), bins=40, color=colour, alpha=0.8, label=name)
    axes.set(xlabel="cosine similarity", ylabel="images")
    axes.legend(frameon=False, fontsize=7)
    value = float(metrics.contrast(similarity, labels))
    return (
        f"Contrast is the distance between the two means, {value:.3f} here. It is no probability and knows no scale: "
        "it can rise while calibration falls."
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


def cells(axes: Any) -> str:
    lower, upper = CONFIDENCE.bounds()
    width = (upper - lower)[CONFIDENCE.half + 1 :]
    axes.plot((1 - lower[CONFIDENCE.half + 1 :]).tolist(), width.tolist(), color=INK)
    axes.set(xscale="log", yscale="log", xlabel="1 - confidence", ylabel="width of the fine cell", xlim=(1e-6, 0.5))
    confidence, correct = tuned(0, 100_000)
    count = metrics.Accumulator(n_proximity_bins=None).update(confidence, correct).read().fine.count
    _, below = _equal_mass.start_cells(count, 10)
    return (
        f"{CONFIDENCE.size:,} cells, at most {float(width.max()):.4f} wide, and 2^-17 at the ends. Of 100,000 "
        f"saturated confidences at most {int(count.max()):,} share one, and {int(below.sum()):,} in all lie in a "
        "cell with a start and below it: all that is not known of ten equal-mass bins."
    )


FIGURES: dict[str, Draw] = {
    function.__name__: function
    for function in (
        *(reliability, edges, small_bins, gaps, largest_gap, ties, proximity, classwise),
        *(proper_scores, coverage, contrast, cells, streamed),
    )
}


if __name__ == "__main__":
    write(PAGE, FIGURES)
