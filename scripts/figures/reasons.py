"""Why the eleven tasks show what they show: ``python -m scripts.figures.reasons --jobs 2`` tests the likely reasons.

On the three tasks with most classes CoOp is tuned as in the experiment but for one thing at a time: how long it is
tuned, how many classes there are at the test, how many base classes DAC measures distances to, whether the images that
are tuned on are drawn by the hands of the test. Tasks, seed and values were fixed before the first run. The figures go
to docs/reasons.json, run by run, and as tables into docs/experiments.md; runs that the file has are kept."""

import argparse
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import as_completed
from dataclasses import replace
from typing import Any

import torch

from pyfastcal.clip.prompts import CoOp
from pyfastcal.evaluate import evaluate
from pyfastcal.experiment import BundledTask
from pyfastcal.experiment.cell import feature_set
from pyfastcal.experiment.processes import processes
from pyfastcal.experiment.sources import Material, Part
from pyfastcal.experiment.table import Table, method_name, plain
from pyfastcal.io.features import FeatureSet
from pyfastcal.io.paths import write_text
from scripts.figures.page import DOCS, with_tables

PAGE, FIGURES = DOCS / "experiments.md", DOCS / "reasons.json"
TASKS, SEED, SHOTS = ("faces-hands", "flags", "tools-office"), 0, 16
METHODS = ("conf", "dac", "cac", "cac-fit")
EPOCHS, USUAL = (1, 5, 20, 50, 200), 50  # 200 are published, 50 or little more are as many steps as the experiment has
CLASSES = (5, 10, 20, 40)
DRAWS = 5  # of base classes for DAC
FEW = 8  # images of a class that are tuned on where the hands are compared; the other 12 of the test are tested on
Row = dict[str, Any]


def measured(features: FeatureSet, base: FeatureSet, split: str, methods: Iterable[str] = METHODS) -> Row:
    """Accuracy and confidence without calibration, ECE of each method, accuracy before tuning where "zero-shot" is one;
    fractions."""
    rows = {row["method"]: row for row in evaluate(features, base, list(methods), split=split)}
    found = {key: rows["conf"][key] for key in ("accuracy", "confidence")}
    if "zero-shot" in rows:
        found["accuracy before"] = rows["zero-shot"]["accuracy"]
    return found | {f"ece {method}": row["ece"] for method, row in rows.items()}


def mean(rows: list[Row]) -> Row:
    """Of those that have a number: CAC has none where its weights vanish."""
    values = {key: [row[key] for row in rows if row[key] is not None] for key in rows[0]}
    return {key: sum(found) / len(found) if found else None for key, found in values.items()}


def chosen(features: FeatureSet, classes: torch.Tensor) -> FeatureSet:
    """Those classes alone, with their images."""
    own = torch.isin(features.labels, classes)
    place = torch.empty(len(features.text_features), dtype=torch.int64)
    place[classes] = torch.arange(len(classes))
    texts, zeroshot = (x[classes] for x in (features.text_features, features.zeroshot_text_features))
    parts = {"text_features": texts, "zeroshot_text_features": zeroshot, "classnames": None}
    return replace(features, image_features=features.image_features[own], labels=place[features.labels[own]], **parts)


def in_groups(new: FeatureSet, base: FeatureSet) -> Iterator[tuple[str, Row]]:
    """New classes in groups of so many, each tested among its own; mean over the groups that are full."""
    order = torch.randperm(len(new.text_features), generator=torch.Generator().manual_seed(SEED))
    for count in CLASSES:
        groups = [group for group in order.split(count) if len(group) == count]
        yield f"groups of {count}", mean([measured(chosen(new, group), base, "new") for group in groups])


def of_few_base_classes(new: FeatureSet, base: FeatureSet) -> Iterator[tuple[str, Row]]:
    """All new classes, DAC's distances to so many base classes; mean over random choices of them."""
    generator = torch.Generator().manual_seed(SEED)
    for count in CLASSES:
        banks = [
            chosen(base, torch.randperm(len(base.text_features), generator=generator)[:count]) for _ in range(DRAWS)
        ]
        yield f"base classes {count}", mean([measured(new, bank, "new", ("conf", "dac")) for bank in banks])


def tune(material: Material, train: Part, epochs: int) -> CoOp:
    learner = CoOp(material.clip, material.tokenizer, material.template, epochs=epochs)
    return learner.fit(train.features, train.labels, material.base_classes, seed=SEED)


def by_epochs(task: str, epochs: int) -> dict[str, Row]:
    """CoOp so long; after the usual number of epochs, besides, the numbers of classes."""
    material = BundledTask(task).load(SEED, SHOTS)
    learner = tune(material, material.train, epochs)
    base = feature_set(learner, material.validation, material.base_classes)
    new = feature_set(learner, material.new_test, material.new_classes)
    found = {"base": measured(feature_set(learner, material.base_test, material.base_classes), base, "base")}
    found["new"] = measured(new, base, "new")
    if epochs == USUAL:
        found |= dict(in_groups(new, base)) | dict(of_few_base_classes(new, base))
    return found


def by_hands(task: str, hands: str) -> dict[str, Row]:
    """CoOp on images of the hands of the test ("same") or, as in the experiment, of others ("other")."""
    material = BundledTask(task).load(SEED, SHOTS)
    test = material.base_test
    train = {"same": test.few(FEW), "other": material.train.few(FEW)}[hands]
    learner = tune(material, train, USUAL)
    base = feature_set(learner, material.validation, material.base_classes)
    tested = {"base": feature_set(learner, test.of_each(slice(FEW, None)), material.base_classes)}
    tested["new"] = feature_set(learner, material.new_test, material.new_classes)
    return {split: measured(features, base, split, ("zero-shot", *METHODS)) for split, features in tested.items()}


def cells() -> dict[str, tuple]:
    """What there is to measure, by its name in the file."""
    long = {f"{task}/{epochs} epochs": (by_epochs, task, epochs) for task in TASKS for epochs in reversed(EPOCHS)}
    return long | {f"{task}/{hands} hands": (by_hands, task, hands) for task in TASKS for hands in ("other", "same")}


def measure(found: dict[str, dict[str, Row]], jobs: int) -> None:
    """All that ``found`` lacks; the file is written after each."""
    left = {name: cell for name, cell in cells().items() if name not in found}
    with processes(jobs) as pool:
        pending = {pool.submit(*cell): name for name, cell in left.items()}
        for future in as_completed(pending):
            rows = future.result()
            found[pending[future]] = {
                name: {key: None if x is None else round(100 * x, 2) for key, x in row.items()}
                for name, row in rows.items()
            }
            whole = {name: found[name] for name in cells() if name in found}
            write_text(FIGURES, json.dumps(whole, indent=1) + "\n")


def tables(found: dict[str, dict[str, Row]]) -> dict[str, str]:
    """By their markers in the page; means over the tasks, in per cent."""

    def of(cell: str, part: str) -> Row:
        return mean([found[f"{task}/{cell}"][part] for task in TASKS])

    def table(name: str, heads: Iterable[str], rows: dict[str, list[Row]], keys: Iterable[str]) -> str:
        cells = {
            head: [plain(None if row[key] is None else (row[key], None), 1) for row in several for key in keys]
            for head, several in rows.items()
        }
        return Table(name, "", "", list(heads), list(cells.items())).markdown()

    state, errors, usual = ("accuracy", "confidence"), tuple(f"ece {method}" for method in METHODS), f"{USUAL} epochs"
    titles = [*state, *(f"ECE {method_name(method)}" for method in METHODS)]
    both = ("base", "new")
    whole = {"all": [of(usual, "new")]}
    hands = {"other": "other hands than the test's", "same": "the test's hands"}
    made = [
        (
            "reason epochs",
            [f"{split}: {title}" for split in both for title in titles],
            {f"{n}": [of(f"{n} epochs", split) for split in both] for n in EPOCHS},
            state + errors,
        ),
        ("reason classes", titles, {f"{n}": [of(usual, f"groups of {n}")] for n in CLASSES} | whole, state + errors),
        (
            "reason base classes",
            titles[2:4],
            {f"{n}": [of(usual, f"base classes {n}")] for n in CLASSES} | whole,
            errors[:2],
        ),
        (
            "reason hands",
            [f"{split}: {title}" for split in both for title in ("accuracy ZS", *titles[:4])],
            {text: [of(f"{which} hands", split) for split in both] for which, text in hands.items()},
            ("accuracy before", *state, *errors[:2]),
        ),
    ]
    return {name: table(name, *rest) for name, *rest in made}


def main() -> None:
    parser = argparse.ArgumentParser(description="Test likely reasons of the experiment's results.")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with one thread")
    args = parser.parse_args()
    found = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    measure(found, args.jobs)
    PAGE.write_text(with_tables(PAGE.read_text(), tables(found)))


if __name__ == "__main__":
    main()
