"""The sections of the report that are figures."""

import torch
from torch import Tensor

from ..calibration.proximity import proximity
from ..evaluate.evaluation import Evaluation
from . import figures
from .markup import coloured, escape, figure, key, section
from .summary import Report, class_names, headline, label, signed, split_name

POINTS = (("conf", "confidence"), ("conf", "gap"), ("dac", "gap"))  # what is drawn of the classes
MOST_CLASSES = 24  # a figure of gamma with more rows than this cannot be read


def reliability(report: Report) -> str:
    """Reliability diagrams, splits below each other and methods side by side."""
    html = ""
    for split in report.splits:
        drawn = ""
        for method, cells in report.diagrams(split):
            numbers = headline(report, split, method)
            gap = coloured(numbers["gap"], f"gap {signed(numbers['gap'])}")
            caption = (
                f"<b>{escape(label(method))}</b> ECE {numbers['ece']:.1f} % · {gap}<br><small>accuracy "
                f"{numbers['accuracy']:.1f}, confidence {numbers['confidence']:.1f} %</small>"
            )
            svg = figures.svg(figures.reliability, cells, numbers, size=(2.9, 2.9))
            drawn += figure(svg, caption)
        if drawn:
            html += f'<h3>{escape(split_name(split))}</h3>\n<div class="panels">\n{drawn}</div>\n'
    note = (
        "Accuracy of the images in each bin of confidence, and how far their mean confidence lies from it; "
        "on the dashed line the two agree. Below: images per bin."
    )
    if len(report.runs) > 1:
        note += f" The bars pool the {len(report.runs)} runs; the numbers are their means, as in the table."
    legend = key(
        ("bar", "accuracy"),
        ("over-fill", "over-confident: confidence above accuracy"),
        ("under-fill", "under-confident: below it"),
        ("", f"faint: fewer than {figures.FEW} images"),
    )
    return section("Reliability diagrams", note, html and legend + html)


def proximities(report: Report) -> str:
    """The papers' figure 3: confidence and gap of a class against its proximity to the base classes."""
    html = point_panels({(method, what): _class_points(report, method, what) for method, what in POINTS})
    if not html:
        return ""
    based = any(e.base is not None for split in report.splits for e in report.evaluations(split))
    note = (
        "Each point is a class in one run: the images predicted as it. Proximity is exp(−mean distance) of "
        f"its tuned text feature to the nearest 5 of the {'base' if based else 'other'} classes'"
        + ("; a base class counts itself among them, as in DAC's weight." if based else ".")
    )
    others = [split_name(split) for split in report.splits if split != "base"]
    entries = [("diamond", ", ".join(others))] if others else []
    entries += [("ring", split_name("base"))] if "base" in report.splits else []
    title = "Proximity, confidence and gap per class"
    return section(title, note, f'{key(*entries)}<div class="panels">\n{html}</div>')


def point_panels(points: dict[tuple[str, str], list[tuple[str, Tensor, Tensor]]]) -> str:
    """A figure per (method, "confidence" or "gap") of its (split, proximity, value) of the classes."""
    gaps = [y.abs().max() for (_, what), splits in points.items() if what == "gap" for _, _, y in splits]
    reach = 1.15 * max([5.0, *map(float, gaps)])  # one axis for both, to compare them
    html = ""
    for (method, what), splits in points.items():
        if splits:
            gap = what == "gap"
            ylabel = "confidence − accuracy, points" if gap else "mean confidence, %"
            svg = figures.svg(figures.by_proximity, splits, ylabel, reach if gap else None)
            caption = f"<b>{what.capitalize()}, {escape(label(method))}</b><br>"
            html += figure(svg, f"{caption}<small>{escape(figures.correlations(splits))}</small>")
    return html


def _class_points(report: Report, method: str, what: str) -> list[tuple[str, Tensor, Tensor]]:
    """(split, proximity, confidence in percent or gap in points) of the classes, the runs together."""
    points = []
    for split in report.splits:
        found = [class_points(e, method, what) for e in report.evaluations(split)]
        found = [part for part in found if part is not None]
        if found:
            points.append((split, *(torch.cat(part) for part in zip(*found, strict=True))))
    return points


def class_points(evaluation: Evaluation, method: str, what: str) -> tuple[Tensor, Tensor] | None:
    """One run's classes that were predicted at least once; None where there are no images of the method at hand, or
    a class has no other to be near to."""
    if evaluation.features is None or method not in evaluation.calibrated:
        return None
    texts, own = evaluation.features.text_features, evaluation.base is None
    bank = texts if evaluation.base is None else evaluation.base.text_features
    if len(bank) == own:
        return None
    near = proximity(texts, bank, min(5, len(bank) - own), exclude_self=own)
    done, n = evaluation.calibrated[method], len(texts)
    counts = torch.bincount(done.prediction, minlength=n)
    mean = torch.bincount(done.prediction, done.confidence.double(), minlength=n) / counts
    accuracy = torch.bincount(done.prediction, evaluation.correct(method).double(), minlength=n) / counts
    y = mean if what == "confidence" else mean - accuracy
    return near[counts > 0].double(), 100 * y[counts > 0]


def gammas(report: Report) -> str:
    """DAC's weight of each class."""
    html, note = (
        "",
        "The logits of an image predicted as class c are multiplied by γ of c. A dot is one run, the ",
    )
    note += "bar reaches to the mean."
    for split in report.splits:
        weights = _weights(report, split)
        if not weights:
            continue
        if all(weight == 1 for values in weights.values() for weight in values):
            note += f" {escape(split_name(split))}: γ is 1 for all, so DAC leaves them as they are."
            continue
        means = {name: sum(values) / len(values) for name, values in weights.items()}
        shown = sorted(means, key=lambda name: -abs(means[name] - 1))[:MOST_CLASSES]
        title = split_name(split)
        title += f", the {MOST_CLASSES} furthest from 1 of {len(weights)}" if len(weights) > MOST_CLASSES else ""
        size = (3.8, 0.75 + 0.19 * len(shown))
        svg = figures.svg(figures.gamma, {name: weights[name] for name in shown}, size=size)
        html += f"<h3>{escape(title)}</h3>\n{figure(svg, kind='wide')}"
    return section("DAC's weight γ per class", note, html)


def _weights(report: Report, split: str) -> dict[str, list[float]]:
    """DAC's weights by class name, one per run in which the class is in the split."""
    weights: dict[str, list[float]] = {}
    for evaluation in report.evaluations(split):
        done = evaluation.calibrated.get("dac")
        if done is None or done.class_weight is None or evaluation.features is None:
            continue
        for name, weight in zip(class_names(evaluation.features), done.class_weight.tolist(), strict=True):
            weights.setdefault(name, []).append(weight)
    return weights
