"""What the bundled small CLIPs do: ``python -m scripts.figures.small_clips`` measures the model card's figures.

They go to docs/small_clips.json, run by run, and as tables into docs/small_clips.md. A test measures some
of them again and makes sure that the card tells what the file holds."""

import argparse
import json

import torch

from pyfastcal import DistanceAwareCalibration
from pyfastcal.clip import SmallCLIP, encode_images, encode_text, load_small, tasks
from pyfastcal.clip.prompts import CoOp
from pyfastcal.clip.tasks import digits, world
from pyfastcal.experiment import BUNDLED
from pyfastcal.experiment.bundled_tasks import DRAWN, size_for
from pyfastcal.experiment.cell import epochs_of
from scripts.figures.page import DOCS, with_tables
from scripts.figures.zero_shot import Figures, classified, figures, parts, zero_shot

CARD, FIGURES = DOCS / "small_clips.md", DOCS / "small_clips.json"
SEEDS = tuple(range(5))
DOMAINS: dict[str, dict[str, tuple[str, dict]]] = {  # of each model: tasks and their options, the demo's first
    "digits": {"handwritten": ("digits", {})},
    "shapes": {
        "blurry, noisy": ("shapes", {}),
        **{style: ("shapes", {"styles": (style,)}) for style in world.STYLE_NAMES},
    },
    **{model: {name: (name, {}) for name in tasks.DRAWINGS} for model in DRAWN},
}
TUNED = ("digits", "shapes", "drawings")  # the other backbones are tuned in the experiment


def tuned(clip: SmallCLIP, task: tasks.Task, seed: int) -> dict[str, Figures]:
    """Figures of the same classes after CoOp learned its prompt on the base ones, and the ECE that DAC leaves."""
    epochs = epochs_of(CoOp, len(task.train.labels), BUNDLED[task.name].most_steps)
    coop = CoOp(clip, template=task.template, epochs=epochs).fit(*task.train, task.base_classes, seed=seed)
    base = task.base_classes
    bank = dict(base_tuned=coop.text_features(base), base_zeroshot=coop.zeroshot_text_features(base))
    found = {}
    for part, (classnames, split) in parts(task).items():
        images, texts = coop.image_features(split.images), coop.text_features(classnames)
        dac = DistanceAwareCalibration().fit(tuned=texts, zeroshot=coop.zeroshot_text_features(classnames), **bank)
        calibrated = figures(*dac.predict_features(images, texts, coop.logit_scale), split.labels)
        found[part] = classified(images, texts, split.labels, coop.logit_scale) | {"DAC ece": calibrated["ece"]}
    return found


def ten_digits() -> Figures:
    """All 1797 images among all ten digits, and the accuracy of each digit."""
    clip, task = load_small("digits"), tasks.load("digits")
    texts = encode_text(clip.model, clip.tokenizer, digits.CLASS_NAMES, digits.TEMPLATE)
    images, labels = [], []
    for split, names in zip(task[4:], (task.base_classes,) * 3 + (task.new_classes,), strict=True):
        images.append(encode_images(clip.model, split.images))
        labels.append(torch.tensor([digits.CLASS_NAMES.index(name) for name in names])[split.labels])
    features, label = torch.cat(images), torch.cat(labels)
    right = (features @ texts.T).argmax(1) == label
    each = {name: round(100 * right[label == i].float().mean().item(), 1) for i, name in enumerate(digits.CLASS_NAMES)}
    return classified(features, texts, label, clip.model.logit_scale.exp().item()) | each


def measure() -> dict:
    """Everything that the card tells."""
    found: dict = {"ten digits": ten_digits(), "zero-shot": {}, "CoOp": {}}
    for name, domains in DOMAINS.items():
        clip = load_small(name)
        found["zero-shot"][name] = {
            domain: [zero_shot(clip, loaded(clip, *of, seed)) for seed in SEEDS] for domain, of in domains.items()
        }
        if name in TUNED:
            first = next(iter(domains.values()))
            found["CoOp"][name] = [tuned(clip, loaded(clip, *first, seed), seed) for seed in SEEDS]
    return found


def loaded(clip: SmallCLIP, task: str, options: dict, seed: int) -> tasks.Task:
    return tasks.load(task, seed=seed, **size_for(clip, task), **options)


def tables(found: dict) -> dict[str, str]:
    """The card's tables, by their markers."""
    ten = found["ten digits"]
    each = [f"| {name.removeprefix('digit ')} | {ten[name]} |" for name in digits.CLASS_NAMES]
    zero = [
        f"| {name} | {domain} | {_row(runs, 'base')} | {_row(runs, 'new')} |"
        for name, domains in found["zero-shot"].items()
        for domain, runs in domains.items()
    ]
    coop = [
        f"| {name} | {seed} | {_row([run], 'base')} | {_row([run], 'new')} | {run['new']['DAC ece']:.1f} |"
        for name, runs in found["CoOp"].items()
        for seed, run in zip(SEEDS, runs, strict=True)
    ]
    three = "accuracy / confidence / ECE"
    return {
        "ten digits": "\n".join(
            [
                f"Accuracy {ten['accuracy']}, mean confidence {ten['confidence']}, ECE {ten['ece']}.",
                "",
                "| digit | accuracy |",
                "| --- | --- |",
                *each,
            ]
        ),
        "zero-shot": "\n".join(
            [f"| model | domain | base: {three} | new: {three} |", "| --- | --- | --- | --- |", *zero]
        ),
        "CoOp": "\n".join(
            [
                f"| task | seed | base: {three} | new: {three} | new: ECE with DAC |",
                "| --- | --- | --- | --- | --- |",
                *coop,
                "",
                *(_effect_of_dac(name, runs) for name, runs in found["CoOp"].items()),
            ]
        ),
    }


def _effect_of_dac(name: str, runs: list[dict[str, Figures]]) -> str:
    changes = [run["new"]["DAC ece"] - run["new"]["ece"] for run in runs]
    lower, mean = sum(change < 0 for change in changes), sum(changes) / len(changes)
    return f"- {name}: DAC lowers the ECE of new classes in {lower} of {len(runs)} runs; mean change {mean:+.1f}."


def _row(runs: list[dict[str, Figures]], part: str) -> str:
    keys = ("accuracy", "confidence", "ece")
    return " / ".join(f"{sum(run[part][key] for run in runs) / len(runs):.1f}" for key in keys)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the bundled small CLIPs and write the model card's tables.")
    parser.add_argument("--tables-only", action="store_true", help="write the tables of the figures that are there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.tables_only:
        FIGURES.write_text(json.dumps(measure(), indent=1) + "\n")
    CARD.write_text(with_tables(CARD.read_text(), tables(json.loads(FIGURES.read_text()))))


if __name__ == "__main__":
    main()
