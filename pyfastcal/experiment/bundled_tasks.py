"""The tasks that come with the package, in groups, each with the small CLIPs it can be run on."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..arguments import checks
from ..clip import SmallCLIP, encode_images, load_small, tasks
from ..clip.small import NAMES
from ..evaluate.checkpoint import fingerprint
from ..io.progress import Progress
from .sources import Material, Part, folder_name


class Bundled(NamedTuple):
    """``family`` and ``options``: what :func:`pyfastcal.clip.tasks.load` makes it of; ``models``: names of bundled
    CLIPs, the task's own first, the other backbones behind it; ``group``: a name that stands for several tasks;
    ``most_steps``: where learners stop, None: as published; ``about``: in a few words."""

    family: str
    options: dict[str, Any]
    models: tuple[str, ...]
    group: str
    about: str
    most_steps: int | None = None


# The rendered world, as the bundled CLIP knows it best and shifted; the style "negative" is left out: there
# the class names, which tell the colours before inverting, are wrong.
STYLES = ("clean", "dark", "blurry", "noisy", "faded")
SHAPES = "rendered coloured and textured shapes, for a small CLIP pre-trained on other domains"
# On the largest of the tasks of drawings that is CoOp's number of epochs for its largest data set, 50; the published
# steps of all learners would take five hours a seed on two cores, of which ProDA's are four.
MOST_STEPS = 1500
DRAWN = tuple(name for name in NAMES if name.startswith("drawings"))
BUNDLED: dict[str, Bundled] = {
    "digits": Bundled(
        *("digits", {}, ("digits",), "small"),
        about="handwritten digits (scikit-learn), for a small CLIP pre-trained on warped glyphs of fonts",
    ),
    "shapes": Bundled("shapes", {}, ("shapes",), "small", SHAPES),
    **{
        f"shapes-{style}": Bundled("shapes", {"styles": (style,)}, ("shapes",), "small", f"{SHAPES}, all {style}")
        for style in STYLES
    },
    **{
        name: Bundled(
            *(name, {}, DRAWN, "drawings"),
            about=f"{name.replace('-', ' and ')}, drawn by people, for a small CLIP pre-trained on other drawings",
            most_steps=MOST_STEPS,
        )
        for name in tasks.DRAWINGS
    },
}  # a new task needs no more than its line here: groups, --tasks and --models, and the demo follow


@dataclass(frozen=True)
class BundledTask:
    """One of ``BUNDLED`` on one of its models, its own if none is named: a seed draws the images, and the classes
    where the task does not fix them."""

    name: str
    model: str = ""
    small = True

    def __post_init__(self) -> None:
        models = BUNDLED[checks.choice("name", self.name, tuple(BUNDLED))].models
        object.__setattr__(self, "model", checks.choice("model", self.model or models[0], models))

    @property
    def folder(self) -> str:
        """The model's name is in it where it is not the task's own."""
        own = self.model == BUNDLED[self.name].models[0]
        return self.name if own else folder_name(self.name, self.model)

    def clip(self) -> tuple[Any, Callable[..., Tensor]]:
        small = small_clip(self.model)
        return small.model, small.tokenizer

    @property
    def most_steps(self) -> int | None:
        return BUNDLED[self.name].most_steps

    def identity(self) -> dict[str, Any]:
        about = {"bundled": self.name, "model": self.model, "weights": digest(small_clip(self.model).model)}
        return about | {"most_steps": self.most_steps}

    def load(self, seed: int, shots: int, progress: Progress | None = None) -> Material:
        return _material(self.name, self.model, seed, shots)


def bundled(names: Sequence[str], models: Sequence[str] | None = None) -> list[BundledTask]:
    """The bundled tasks by name, each once; the name of a group stands for its tasks, ``all`` for all. ``models``: the
    CLIPs to run them on, None for each task's own; ``all`` stands for every one that a task has.

    ValueError at an unknown task, at a model that none of the tasks has, and at a task that has none of the models."""
    several = groups()
    for name in names:
        checks.choice("tasks", name, tuple(dict.fromkeys(("all", *BUNDLED, *several))))
    chosen = list(dict.fromkeys(task for name in names for task in several.get(name, (name,))))
    if models is None:
        return [BundledTask(name) for name in chosen]
    there = tuple(dict.fromkeys(model for name in chosen for model in BUNDLED[name].models))
    for model in models:
        checks.choice("models", model, ("all", *there))
    wanted = there if "all" in models else models
    sources = [BundledTask(name, model) for model in there if model in wanted for name in chosen if _has(name, model)]
    for name in chosen:
        if not any(source.name == name for source in sources):
            raise ValueError(f"models must have one for each task, got {', '.join(models)}, none of which {name} has")
    return sources


def groups() -> dict[str, tuple[str, ...]]:
    """The names that stand for several tasks."""
    found: dict[str, tuple[str, ...]] = {"all": tuple(BUNDLED)}
    for name, task in BUNDLED.items():
        found[task.group] = (*found.get(task.group, ()), name)
    return found


def _has(name: str, model: str) -> bool:
    return model in BUNDLED[name].models


small_clip = functools.lru_cache(load_small)


@functools.lru_cache(maxsize=len(NAMES))
def digest(model: nn.Module) -> str:
    """Of its weights, so that cells made with others are told apart."""
    return fingerprint(model.state_dict())[:16]


@functools.lru_cache(maxsize=2)
def task_of(name: str, clip: SmallCLIP, seed: int, shots: int) -> tasks.Task:
    """Its images and classes for a model."""
    family, options = BUNDLED[name].family, BUNDLED[name].options
    return tasks.load(family, seed=seed, shots=shots, **size_for(clip, family), **options)


def size_for(clip: SmallCLIP, family: str) -> dict[str, int]:
    """Options of ``tasks.load``: drawings are painted in the size that the model takes."""
    return {"image_size": clip.image_size} if family in tasks.DRAWINGS else {}


@functools.lru_cache(maxsize=2)  # an experiment goes task by task
def _material(name: str, model: str, seed: int, shots: int) -> Material:
    clip = small_clip(model)
    task = task_of(name, clip, seed, shots)

    def part(split: tasks.Split) -> Part:
        return Part(split.images, encode_images(clip.model, split.images), split.labels)

    parts = map(part, (task.train, task.validation, task.base_test, task.new_test))
    return Material(clip.model, clip.tokenizer, task.template, task.base_classes, task.new_classes, *parts)
