"""What a report says, computed from the runs: means and spreads, and which method helped where."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..arguments import checks
from ..evaluate.evaluation import METRICS, Evaluation
from ..io.features import FeatureSet
from ..metrics.cells import Cells

LABELS = {"zero-shot": "Zero-shot", "conf": "Conf", "ts": "TS", "den": "DEN", "hb": "HB", "ir": "IR", "mir": "MIR"}
LABELS |= {"bms-mir": "BMS-MIR", "dac": "DAC", "ts+dac": "TS + DAC", "cac": "CAC", "cac-fit": "CAC-fit"}
TABLE_METRICS = ("accuracy", "confidence", "ece", "ace", "mce", "mce_weighted", "piece", "nll", "brier")
PERCENT = frozenset(METRICS) - {"nll", "brier"}
NOTABLE_GAP = 0.03  # over-confidence below this is within what a few hundred images can tell
MOST_SKIPPED = 10  # shards whose reasons are told; the JSON file has all
SAME = 0.0025  # changes of ECE smaller than this are called none
HELD_OUT = "validation"  # what the images are called that methods were fitted on


@dataclass(frozen=True)
class Run:
    """One seed, or one call of ``pyfastcal evaluate``: an :class:`Evaluation` per split.

    ``images``: what there is to look at, (N, H, W, 3) uint8 in the order of the features, by the name of the split, and
    of the evaluations' ``base`` under ``HELD_OUT``. ValueError where they do not fit the features."""

    name: str
    evaluations: tuple[Evaluation, ...]
    images: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sets = {e.split: e.features for e in self.evaluations}
        sets[HELD_OUT] = next((e.base for e in self.evaluations if e.base is not None), None)
        for name, images in self.images.items():
            if (features := sets.get(name)) is None:
                raise ValueError(f"images must be of splits whose features are at hand, got {name!r}")
            at, n = f"images[{name!r}]", len(features.labels)
            if checks.tensor(at, images, 4).dtype is not torch.uint8 or (len(images), images.shape[3]) != (n, 3):
                raise ValueError(f"{at} must be uint8 of shape ({n}, H, W, 3), got {checks.describe(images)}")

    def split(self, name: str) -> Evaluation | None:
        return next((e for e in self.evaluations if e.split == name), None)


@dataclass
class Report:
    """All that is drawn and written: the runs, and the words around them."""

    title: str
    runs: list[Run]
    n_bins: int = 10
    description: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(e.split for run in self.runs for e in run.evaluations))

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(r["method"] for run in self.runs for e in run.evaluations for r in e.rows))

    @property
    def illustrated(self) -> Run | None:
        """The first run whose images are at hand: the one that is looked at image by image."""
        return next((run for run in self.runs if run.images), None)

    def evaluations(self, split: str) -> list[Evaluation]:
        return [e for e in (run.split(split) for run in self.runs) if e is not None]

    def skipped(self, split: str) -> list[str]:
        """A sentence on the shards that are not in the numbers, and a line with the reason for each of the first."""
        found = [reason for e in self.evaluations(split) for reason in e.skipped.values()]
        if not found:
            return []
        more = [f"and {len(found) - MOST_SKIPPED} more"] if len(found) > MOST_SKIPPED else []
        count = f"{len(found)} shard{'s' if len(found) > 1 else ''}"
        return [f"{split_name(split)}: without {count} that could not be read", *found[:MOST_SKIPPED], *more]

    def pooled(self, split: str, method: str) -> Cells | None:
        """The bins of all runs together; None where the method has none."""
        found = [e.cells[method] for e in self.evaluations(split) if method in e.cells]
        return Cells.of(sum(torch.stack(cells).cpu() for cells in found)) if found else None

    def diagrams(self, split: str) -> list[tuple[str, Cells]]:
        """The methods on the tuned model with what is pooled of them."""
        pooled = [(m, self.pooled(split, m)) for m in self.methods if m != "zero-shot"]
        return [(method, cells) for method, cells in pooled if cells is not None]


def label(method: str) -> str:
    return LABELS.get(method, method)


def class_names(features: FeatureSet) -> list[str]:
    """As the features have them, or by number."""
    return features.classnames or [f"class {c}" for c in range(len(features.text_features))]


def split_name(split: str) -> str:
    return f"{split.capitalize()} classes" if split in ("base", "new") else split


def mean_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (None for a single value)."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def summarise(report: Report) -> list[dict[str, Any]]:
    """One row per split and method: ``split``, ``method``, ``runs`` (how many have numbers), ``note``, and
    for each metric its (mean, standard deviation over the runs or None), or None where there are no
    numbers."""
    table = []
    for split in report.splits:
        for method in report.methods:
            rows = [r for e in report.evaluations(split) for r in e.rows if r["method"] == method]
            entry: dict[str, Any] = {"split": split, "method": method}
            entry["note"] = _one_note([r["note"] for r in rows if r["note"]], len(rows))
            entry["runs"] = sum(r["accuracy"] is not None for r in rows)
            for metric in (*METRICS, "gap"):
                values = [r[metric] for r in rows if r[metric] is not None]
                entry[metric] = mean_spread(values) if values else None
            table.append(entry)
    return table


def _one_note(notes: list[str], n_runs: int) -> str:
    """The notes of the runs, once each where they differ in their numbers only."""
    kinds: dict[str, list[str]] = {}
    for note in notes:
        kinds.setdefault(re.sub(r"\d+(\.\d+)?", "0", note), []).append(note)
    several = n_runs > 1
    return "; ".join(n[0] + (f" ({len(n)} of {n_runs} runs)" if several else "") for n in kinds.values())


def format_value(metric: str, value: tuple[float, float | None] | None) -> str:
    """``12.9 ± 1.3`` (percent) or ``0.412 ± 0.020``; ``-`` where there is none."""
    if value is None:
        return "-"
    factor, digits = (100, 1) if metric in PERCENT else (1, 3)
    mean, spread = value
    text = f"{factor * mean:.{digits}f}"
    return text if spread is None else f"{text} ± {factor * spread:.{digits}f}"


def changes(report: Report, split: str, method: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(run, row without calibration, row of the method) of every run that has both."""
    found = []
    for run in report.runs:
        evaluation = run.split(split)
        rows = {r["method"]: r for r in evaluation.rows if r["ece"] is not None} if evaluation else {}
        if "conf" in rows and method in rows:
            found.append((run.name, rows["conf"], rows[method]))
    return found


def headline(report: Report, split: str, method: str) -> dict[str, float]:
    """Accuracy, confidence, their gap and ECE in percent: the means of the runs, as in the table."""
    (row,) = (r for r in summarise(report) if (r["split"], r["method"]) == (split, method))
    return {metric: 100 * row[metric][0] for metric in ("accuracy", "confidence", "gap", "ece")}


def signed(value: float, digits: int = 1) -> str:
    """``+1.2``, ``−1.2`` with a true minus sign, ``0.0`` where it rounds to that."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def verdict(before: dict[str, Any], after: dict[str, Any]) -> str:
    """``helped``, ``hurt``, or ``same`` where ECE changed by less than a quarter of a point."""
    change = after["ece"] - before["ece"]
    return "same" if abs(change) < SAME else "helped" if change < 0 else "hurt"


def findings(report: Report) -> list[str]:
    """Sentences about what happened, all from the numbers: was there over-confidence, what helped."""
    sentences = []
    for split in report.splits:
        plain = changes(report, split, "conf")
        if plain:
            sentences.append(_state(split, [row["gap"] for _, row, _ in plain]))
        for method in report.methods:
            if method not in ("conf", "zero-shot") and (pairs := changes(report, split, method)):
                sentences.append(_effect(split, method, pairs))
    return sentences


def _state(split: str, gaps: list[float]) -> str:
    """Whether the model is over- or under-confident before calibration."""
    over, under = sum(gap > NOTABLE_GAP for gap in gaps), sum(gap < -NOTABLE_GAP for gap in gaps)
    near = f"within {100 * NOTABLE_GAP:.0f} points of it"
    counts = {"over-confident": over, "under-confident": under, near: len(gaps) - over - under}
    told = ", ".join(f"{name} in {count}" for name, count in counts.items() if count)
    mean = signed(100 * mean_spread(gaps)[0])
    runs = f" ({told} of {len(gaps)} runs)" if len(gaps) > 1 else ""
    return f"{split_name(split)} without calibration: mean confidence minus accuracy is {mean} points{runs}."


def _effect(split: str, method: str, pairs: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> str:
    """What a method did to ECE, on average and run by run."""
    outcomes = [verdict(before, after) for _, before, after in pairs]
    name = f"{label(method)} on {split_name(split).lower() if split in ('base', 'new') else split}"
    if all(before["ece"] == after["ece"] for _, before, after in pairs):
        return f"{name}: changes nothing."
    before, after = (100 * mean_spread([p[i]["ece"] for p in pairs])[0] for i in (1, 2))
    text = f"{name}: ECE {before:.1f} → {after:.1f} % ({signed(after - before)} points)"
    if len(pairs) == 1:
        return f"{text}."
    counts = [("lower", "helped"), ("higher", "hurt"), ("the same within a quarter of a point", "same")]
    told = ", ".join(f"{word} in {outcomes.count(kind)}" for word, kind in counts if kind in outcomes)
    text += f"; {told} of {len(pairs)} runs"
    over = [o for o, (_, plain, _) in zip(outcomes, pairs, strict=True) if plain["gap"] > NOTABLE_GAP]
    if 0 < len(over) < len(pairs):
        text += f". Lower in {over.count('helped')} of the {len(over)} over-confident runs and in "
        text += f"{outcomes.count('helped') - over.count('helped')} of the other {len(pairs) - len(over)}"
    return f"{text}."
