"""The wrong predictions that the model was surest of, and what each method makes of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from ..evaluate.evaluation import Evaluation
from .images import img
from .markup import escape, figure, key, section
from .summary import Report, Run, class_names, label, split_name

MOST = 12  # of a split
MOST_ALIKE = 2  # of one class taken for the same other
SIDE = 128  # of an image, CSS pixels


def most_confident(run: Run, methods: Sequence[str]) -> list[dict[str, Any]]:
    """The ``MOST`` mistakes of each split whose images are at hand, by confidence before calibration, the highest first
    (the earlier image where two are equal); of a class that is taken for the same other no more than ``MOST_ALIKE``.

    A mistake is a dictionary: ``split``; ``image``, its place among the split's; ``class``, the true one, and
    ``prediction``; ``methods``, for each of them its own ``prediction`` and the ``confidence`` in it, or None where it
    cannot apply."""
    pictured = (e for e in run.evaluations if e.split in run.images and "conf" in e.calibrated)
    return [mistake for evaluation in pictured for mistake in _of_split(evaluation, methods)]


def _of_split(evaluation: Evaluation, methods: Sequence[str]) -> list[dict[str, Any]]:
    assert evaluation.features is not None
    names, labels = class_names(evaluation.features), evaluation.features.labels.tolist()
    plain, wrong = evaluation.calibrated["conf"], torch.nonzero(~evaluation.correct("conf")).flatten()
    order = plain.confidence[wrong].argsort(descending=True, stable=True)
    found: list[dict[str, Any]] = []
    seen: Counter[tuple[int, int]] = Counter()
    for image in wrong[order].tolist():
        pair = labels[image], int(plain.prediction[image])
        seen[pair] += 1
        if seen[pair] > MOST_ALIKE or len(found) == MOST:
            continue
        said: dict[str, Any] = dict.fromkeys(methods)
        for method, done in evaluation.calibrated.items():
            prediction, confidence = names[int(done.prediction[image])], float(done.confidence[image])
            said[method] = {"prediction": prediction, "confidence": confidence}
        true, taken_for = names[labels[image]], said["conf"]["prediction"]
        about = {"split": evaluation.split, "image": image, "class": true, "prediction": taken_for}
        found.append(about | {"methods": said})
    return found


def cards(report: Report) -> str:
    """A card per mistake, splits below each other."""
    run, html = report.illustrated, ""
    if run is None:
        return ""
    found = most_confident(run, report.methods)
    for split in dict.fromkeys(one["split"] for one in found):
        drawn = "".join(_card(run, one) for one in found if one["split"] == split)
        html += f'<h3>{escape(split_name(split))}</h3>\n<div class="cards">\n{drawn}</div>\n'
    note = (
        f"Of {escape(run.name) or 'the run'}: of each split the {MOST} wrong predictions with the highest confidence "
        f"before calibration (Conf), the highest first, at most {MOST_ALIKE} of one class taken for the same other. "
        "The images as the model sees them, enlarged; the true class, "
        "the predicted one, and the confidence in it with each method, in percent. A method that predicts another "
        "class has that class below; “-”: it cannot apply."
    )
    legend = key(("over-fill", "confidence in a wrong class"), ("bar", "confidence in the right class"))
    return section("The most confident mistakes", note, html and legend + html)


def _card(run: Run, mistake: dict[str, Any]) -> str:
    true, taken_for = mistake["class"], mistake["prediction"]
    rows = "".join(_row(method, said, mistake) for method, said in mistake["methods"].items())
    image = img(run.images[mistake["split"]][mistake["image"]], f"An image of the class {true}", SIDE)
    words = f"<b>{escape(true)}</b><br>taken for <b>{escape(taken_for)}</b>"
    return figure(f'{image}\n<table class="bars"><tbody>{rows}</tbody></table>', words)


def _row(method: str, said: dict[str, Any] | None, mistake: dict[str, Any]) -> str:
    head = escape(label(method))
    if said is None:
        return f'<tr><th scope="row">{head}</th><td></td><td>-</td></tr>'
    kind = "bar" if said["prediction"] == mistake["class"] else "over-fill"
    percent = 100 * said["confidence"]
    bar = f'<i class="swatch {kind}" style="width:{percent:.1f}%"></i>'
    row = f'<tr><th scope="row">{head}</th><td>{bar}</td><td>{percent:.1f}</td></tr>'
    if said["prediction"] == mistake["prediction"]:
        return row
    return f'{row}<tr><td colspan="3"><small>in {escape(said["prediction"])}</small></td></tr>'
