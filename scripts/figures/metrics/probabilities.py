"""Figures of metrics that look at the probabilities, or similarities, of all classes."""

from typing import Any

import torch

from pyfastcal import metrics
from scripts.figures.page import BAR, GREEN, INK, MUTED, OVER, UNDER, percent


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
