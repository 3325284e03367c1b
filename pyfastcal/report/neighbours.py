"""The classes that gave a class its weight in DAC: its nearest base classes, after tuning and before."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .. import ops
from ..calibration.proximity import proximity_of_distances
from ..evaluate.evaluation import Evaluation
from .images import img
from .markup import escape, section
from .summary import HELD_OUT, Report, Run, class_names, split_name

ENDS = 4  # classes with the smallest weights that are shown of a split, and as many with the largest
SIDE, SMALL = 96, 75  # of the image of a class, and of those of its neighbours, CSS pixels


@dataclass(frozen=True)
class Near:
    """The nearest base classes in one model's text features, the nearest first, and the proximity that they make."""

    indices: list[int]
    names: list[str]
    distances: list[float]
    proximity: float

    def facts(self) -> list[dict[str, Any]]:
        return [{"class": name, "distance": d} for name, d in zip(self.names, self.distances, strict=True)]


@dataclass(frozen=True)
class Weighed:
    """A class and what its weight ``gamma`` is made of: ``tuned.proximity / zeroshot.proximity``, but 1 where it
    ``counts_as_base``."""

    split: str
    index: int
    name: str
    gamma: float
    tuned: Near
    zeroshot: Near
    counts_as_base: bool

    def facts(self) -> dict[str, Any]:
        """For JSON. Distances are Euclidean, between L2-normalised features."""
        about = {"split": self.split, "class": self.name, "gamma": self.gamma, "counts_as_base": self.counts_as_base}
        about |= {"proximity_tuned": self.tuned.proximity, "proximity_zeroshot": self.zeroshot.proximity}
        return about | {"tuned": self.tuned.facts(), "zeroshot": self.zeroshot.facts()}


def weighed(run: Run) -> list[Weighed]:
    """The classes with the ``ENDS`` smallest and ``ENDS`` largest weights of each split whose images are at hand, by
    weight (the earlier class where two are equal). None of a split whose weights are all 1, as base classes' are."""
    found = []
    for evaluation in (e for e in run.evaluations if e.split in run.images and "dac" in e.calibrated):
        weights = evaluation.calibrated["dac"].class_weight
        if weights is not None and bool((weights != 1).any()):
            order = weights.argsort(stable=True).tolist()
            chosen = order if len(order) <= 2 * ENDS else order[:ENDS] + order[-ENDS:]
            found += _of_classes(evaluation, weights, chosen)
    return found


def _of_classes(evaluation: Evaluation, weights: Tensor, chosen: list[int]) -> list[Weighed]:
    features, base = evaluation.features, evaluation.base
    assert features is not None
    bank, own = (features, True) if base is None else (base, False)  # as DAC was fitted
    bank_names, k = class_names(bank), int(evaluation.calibrated["dac"].settings["k"])
    sides = []
    for what in ("text_features", "zeroshot_text_features"):
        distances, indices = ops.knn(getattr(features, what), getattr(bank, what), k, exclude_self=own)
        sides.append((distances, indices, proximity_of_distances(distances)))
    is_quotient = (weights == sides[0][2] / sides[1][2]).tolist()
    names, found = class_names(features), []
    for c in chosen:
        near = []
        for distances, indices, score in sides:
            of = indices[c].tolist()
            near.append(Near(of, [bank_names[i] for i in of], distances[c].tolist(), float(score[c])))
        found.append(Weighed(evaluation.split, c, names[c], float(weights[c]), near[0], near[1], not is_quotient[c]))
    return found


def blocks(report: Report) -> str:
    """A block per class, splits below each other."""
    run = report.illustrated
    if run is None:
        return ""
    found, html = weighed(run), ""
    for evaluation in run.evaluations:
        if own := [one for one in found if one.split == evaluation.split]:
            html += _blocks_of_split(run, evaluation, own)
    note = (
        f"Of {escape(run.name) or 'the run'}: the base classes whose text features lie nearest, with their distances "
        "between L2-normalised features. S is exp(−mean distance) to them; γ is S of the tuned features divided by S "
        "of the zero-shot ones. Below 1: tuning moved the class away from the base classes. <b>Bold</b>: a neighbour "
        "in one of the two alone. The image of a class is the first there is of it."
    )
    return section("The neighbours that gave a class its γ", note, html)


def _blocks_of_split(run: Run, evaluation: Evaluation, shown: list[Weighed]) -> str:
    features, split = evaluation.features, evaluation.split
    assert features is not None
    bank, bank_images = evaluation.base, run.images.get(HELD_OUT)
    if bank is None:
        bank, bank_images = features, run.images[split]
    total = len(features.text_features)
    which = f"the {ENDS} classes with the smallest γ and the {ENDS} with the largest, of {total}"
    which = "all classes, by γ" if len(shown) == total else which
    drawn = ""
    for one in shown:
        image = _example(run.images[split], features.labels, one.index, one.name, SIDE)
        tuned = _list("Tuned", one.tuned, one.zeroshot, bank_images, bank.labels)
        zeroshot = _list("Zero-shot", one.zeroshot, one.tuned, bank_images, bank.labels)
        head = f"<header>{image}<p>{_quotient(one)}</p></header>"
        drawn += f'<article class="near">\n{head}\n{tuned}{zeroshot}</article>\n'
    return f'<h3>{escape(split_name(split))}: {which}</h3>\n<div class="nears">\n{drawn}</div>\n'


def _quotient(one: Weighed) -> str:
    """The weight, and the quotient that it is."""
    parts = f"{one.tuned.proximity:.4f} / {one.zeroshot.proximity:.4f}"
    why = f"so near to a tuned base class that it counts as one; S: {parts}" if one.counts_as_base else f"= {parts}"
    return f"<b>{escape(one.name)}</b><br>γ {one.gamma:.3f} <small>{why}</small>"


def _list(word: str, near: Near, other: Near, images: Tensor | None, labels: Tensor) -> str:
    items = ""
    for index, name, distance in zip(near.indices, near.names, near.distances, strict=True):
        shown = escape(name) if index in other.indices else f"<b>{escape(name)}</b>"
        image = _example(images, labels, index, name, SMALL)
        items += f"<li>{image}<span>{shown}<br><small>{distance:.3f}</small></span></li>\n"
    return f"<h4>{word} <small>S {near.proximity:.4f}</small></h4>\n<ol>\n{items}</ol>\n"


def _example(images: Tensor | None, labels: Tensor, label: int, name: str, side: int) -> str:
    """The first image of the class; nothing where there is none."""
    rows = (labels == label).nonzero()
    return "" if images is None or not len(rows) else img(images[rows[0, 0]], f"An image of the class {name}", side)
