"""What the bundled small CLIPs do: ``python scripts/small_clip_figures.py`` writes docs/small_clips.json.

The model card's tables are made from that file (``--card`` writes them into docs/small_clips.md), and a
test measures the zero-shot figures again."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from pyfastcal.clip import SmallCLIP, encode_text, load_small, tasks
from pyfastcal.clip.features import encode_images
from pyfastcal.clip.prompts import CoOp
from pyfastcal.clip.tasks import digits, world
from pyfastcal.metrics import expected_calibration_error

DOCS = Path(__file__).parents[1] / "docs"
SEEDS = range(5)
DOMAINS = {
    "digits": {"digits": {}},
    "shapes": {
        "blurry, noisy": {},  # the task's default
        **{style: {"styles": (style,)} for style in world.STYLE_NAMES},
    },
}


def figures_of(images: Tensor, texts: Tensor, labels: Tensor, scale: float) -> dict[str, float]:
    """Accuracy, mean confidence and ECE (10 bins), in per cent."""
    confidence, prediction = (scale * images @ texts.T).softmax(1).max(1)
    correct = prediction == labels
    ece = expected_calibration_error(confidence, correct)
    values = {"accuracy": correct.float().mean(), "confidence": confidence.mean(), "ece": ece}
    return {key: 100 * float(value) for key, value in values.items()}


def zero_shot(clip: SmallCLIP, task: tasks.Task) -> dict[str, dict[str, float]]:
    """Figures of the base and the new classes' test images, each among its own classes."""
    scale, found = float(clip.model.logit_scale.exp()), {}
    parts = {"base": (task.base_classes, task.base_test), "new": (task.new_classes, task.new_test)}
    for name, (classnames, split) in parts.items():
        texts = encode_text(clip.model, clip.tokenizer, classnames, task.template)
        found[name] = figures_of(encode_images(clip.model, split.images), texts, split.labels, scale)
    return found


def coop(clip: SmallCLIP, task: tasks.Task, seed: int) -> dict[str, dict[str, float]]:
    """The same after tuning CoOp on the base classes."""
    learner = CoOp(clip, template=task.template).fit(*task.train, task.base_classes, seed=seed)
    parts = {"base": (task.base_classes, task.base_test), "new": (task.new_classes, task.new_test)}
    return {
        name: figures_of(
            learner.image_features(split.images),
            learner.text_features(classnames),
            split.labels,
            learner.logit_scale,
        )
        for name, (classnames, split) in parts.items()
    }


def mean(runs: Iterable[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Mean over runs of every figure, to a tenth."""
    runs = list(runs)
    return {
        part: {key: round(sum(run[part][key] for run in runs) / len(runs), 1) for key in runs[0][part]}
        for part in runs[0]
    }


def zero_shot_means(name: str, domain: str) -> dict[str, dict[str, float]]:
    """Zero-shot figures of a task in a domain, mean over the seeds."""
    clip = load_small(name)
    return mean(zero_shot(clip, tasks.load(name, seed=seed, **DOMAINS[name][domain])) for seed in SEEDS)


def ten_digits() -> dict[str, float]:
    """All ten digits against each other, all 1797 images; and the accuracy of each digit."""
    clip, task = load_small("digits"), tasks.load("digits")
    texts = encode_text(clip.model, clip.tokenizer, digits.CLASS_NAMES, digits.TEMPLATE)
    images, labels = [], []
    for split, names in zip(task[4:], (task.base_classes,) * 3 + (task.new_classes,), strict=True):
        images.append(encode_images(clip.model, split.images))
        labels.append(torch.tensor([digits.CLASS_NAMES.index(name) for name in names])[split.labels])
    features, label = torch.cat(images), torch.cat(labels)
    scale = float(clip.model.logit_scale.exp())
    found = figures_of(features, texts, label, scale)
    right = (features @ texts.T).argmax(1) == label
    each = {name: 100 * right[label == i].float().mean().item() for i, name in enumerate(digits.CLASS_NAMES)}
    return {key: round(value, 1) for key, value in (found | each).items()}


def measure() -> dict:
    """Everything the card tells."""
    found: dict = {"seeds": list(SEEDS), "ten digits": ten_digits(), "zero-shot": {}, "coop": {}}
    for name, domains in DOMAINS.items():
        found["zero-shot"][name] = {domain: zero_shot_means(name, domain) for domain in domains}
        clip = load_small(name)
        found["coop"][name] = mean(coop(clip, tasks.load(name, seed=seed), seed) for seed in SEEDS)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the bundled small CLIPs.")
    parser.add_argument("--out", type=Path, default=DOCS / "small_clips.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    text = json.dumps(measure(), indent=2)
    print(text)
    args.out.write_text(text + "\n")
