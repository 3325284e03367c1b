"""The demo: tune CoOp on the base classes of a small open-vocabulary task, calibrate base and new classes,
compare.

Nothing is decided beforehand: whether tuning made the model over-confident and where a calibrator helped is
read off the numbers of each run.
"""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..arguments import checks
from ..clip.prompts import CoOp
from ..clip.tasks.images import pixels
from ..evaluate.split import evaluate_split
from ..io.features import FeatureSet, save_features
from ..io.progress import Progress, Steps
from ..report import Report, Run, environment
from .bundled_tasks import BUNDLED, small_clip, task_of
from .cell import epochs_of

TASK = "animals"  # chosen before any result, for being pleasant to look at
RUNS = {"small": 5, "drawings": 2}  # of a task of that group: about as long
METHODS = ("zero-shot", "conf", "dac", "cac", "cac-fit")


def run(
    task: str = TASK,
    seeds: Iterable[int] | None = None,
    *,
    shots: int = 16,
    methods: Sequence[str] = METHODS,
    n_bins: int = 10,
    progress: Progress | None = None,
    **tuning: Any,
) -> Report:
    """Run the demo and return its :class:`Report` (table, findings and figures are made from it).

    ``task``: one of the experiment's ``BUNDLED``. ``seeds``: one run each, with its own choice of base classes (those
    of drawings are fixed), of the ``shots`` training images per class, and start of the tuning; None: 0, 1 ...,
    as many as take some minutes. ``tuning``: keyword arguments of :class:`pyfastcal.clip.prompts.CoOp` (``epochs``:
    without it the experiment's). Raises ValueError for an unknown task or no seeds, ImportError that says what to
    install where the optional packages are missing.
    """
    checks.choice("task", task, tuple(BUNDLED))
    seeds = range(RUNS[BUNDLED[task].group]) if seeds is None else tuple(seeds)
    if not seeds:
        raise ValueError("seeds must name at least one seed")
    runs, all_runs = [], Steps(progress, "all runs", len(seeds))
    for seed in seeds:
        with one_thread():
            splits, images = features_and_images(task, seed, shots=shots, progress=progress, **tuning)
        base = splits.pop("validation")
        step = Steps(progress, f"seed {seed}: calibrate and measure", len(methods) * len(splits))
        evaluations = [
            evaluate_split(features, base, methods, n_bins, split=name, progress=step)
            for name, features in splits.items()
        ]
        runs.append(Run(f"seed {seed}", tuple(evaluations), {} if runs else images))  # one run's are looked at
        all_runs()
    return Report(
        title=f"pyfastcal demo: {task}",
        runs=runs,
        n_bins=n_bins,
        description=_description(task, runs, shots),
        environment=environment() | {"Seeds": ", ".join(map(str, seeds))},
    )


def features_of(
    task: str, seed: int, *, shots: int = 16, progress: Progress | None = None, **tuning: Any
) -> dict[str, FeatureSet]:
    """Tune CoOp on the base classes of one run. Features of ``validation`` (held-out images of base classes),
    ``base`` (their test images) and ``new`` (classes that tuning never saw)."""
    return features_and_images(task, seed, shots=shots, progress=progress, **tuning)[0]


def features_and_images(
    task: str, seed: int, *, shots: int = 16, progress: Progress | None = None, **tuning: Any
) -> tuple[dict[str, FeatureSet], dict[str, Tensor]]:
    """:func:`features_of`, and what they are of: images (N, H, W, 3) uint8, by the same names."""
    step = Steps(progress, f"seed {seed}: load the model, make the images", 2)
    clip = small_clip(BUNDLED[task].models[0])
    step()
    data = task_of(task, clip, seed, shots)
    step()
    epochs = epochs_of(CoOp, len(data.train.labels), BUNDLED[task].most_steps)
    learner = CoOp(clip, template=data.template, **{"epochs": epochs} | tuning)
    tune = functools.partial(progress, f"seed {seed}: tune CoOp") if progress else None
    learner.fit(*data.train, data.base_classes, seed=seed, progress=tune)
    parts = {"validation": data.validation, "base": data.base_test, "new": data.new_test}
    step = Steps(progress, f"seed {seed}: encode the images", len(parts))
    splits = {}
    for name, (images, labels) in parts.items():
        classnames = list(data.new_classes if name == "new" else data.base_classes)
        splits[name] = FeatureSet(
            image_features=learner.image_features(images),
            text_features=learner.text_features(classnames),
            labels=labels,
            logit_scale=learner.logit_scale,
            zeroshot_text_features=learner.zeroshot_text_features(classnames),
            classnames=classnames,
            meta={"task": task, "seed": seed, "split": name, "learner": "CoOp", "shots": shots},
        )
        step()
    return splits, {name: pixels(images) for name, (images, _) in parts.items()}


def save_all_features(folder: str | os.PathLike, report: Report) -> Path:
    """Write the feature files of every run, ``TASK-seedN-SPLIT.safetensors``, and return the folder."""
    for run in report.runs:
        sets = {e.split: e.features for e in run.evaluations} | {"validation": run.evaluations[0].base}
        for split, features in sets.items():
            stem = f"{features.meta['task']}-seed{features.meta['seed']}"
            save_features(Path(folder, f"{stem}-{split}.safetensors"), features)
    return Path(folder)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Models as small as these gain nothing from more, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _description(task: str, runs: list[Run], shots: int) -> list[str]:
    base, new = (len(runs[0].split(name).features.text_features) for name in ("base", "new"))
    times = f"In each of {len(runs)} runs" if len(runs) > 1 else "In one run"
    differ = "Images and start" if BUNDLED[task].group == "drawings" else "Classes, images and start"
    return [
        f"Task: {BUNDLED[task].about}.",
        f"{times} CoOp learned its prompt on {shots} images of each of {base} base classes; the {new} new "
        f"classes are ones it never saw. {differ} differ between runs. The CLIP "
        "is a small one trained for this demo: its figures say nothing about large models.",
    ]
