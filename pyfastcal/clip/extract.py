"""Features of labelled images and class names, by any open_clip model: what ``pyfastcal extract`` does."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..io.features import FeatureSet
from ..io.paths import regular
from .datasets import ImageFolder, torchvision_dataset
from .features import as_words, check_template, encode_split, load_text_features
from .models import load_clip
from .prompts import files, load, load_published

TORCHVISION = "torchvision:"
TEMPLATE = "a photo of a {}."


def extract(
    images: str,
    model: str,
    pretrained: str | None = None,
    *,
    classes: str | os.PathLike | None = None,
    template: str | Sequence[str] = TEMPLATE,
    text_features: str | os.PathLike | None = None,
    train: bool = False,
    skip_bad: bool = False,
    batch_size: int = 256,
    num_workers: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> FeatureSet:
    """Encode a dataset.

    Args:
        images: a folder with a sub-folder per class, or ``torchvision:NAME:ROOT`` for one of its datasets.
        model, pretrained, precision: as :func:`pyfastcal.clip.load_clip`; ``"pyfastcal/digits"`` is bundled.
        classes: a text file with one class name per line, in the order of the labels (of folders: their
            alphabetical order). Default: the folders' or the dataset's names, underscores read as spaces.
        template: the zero-shot prompt, or several of them, whose features are averaged.
        text_features: what was tuned: a file of a prompt learner's ``save``, a checkpoint of its published
            trainer (``.../model.pth.tar-50``), or a file of ``save_text_features``. Without it the zero-shot
            text features stand in both places; a learner that tunes the image tower brings image features, too.
        train: of a torchvision dataset, the training split.
        skip_bad: go on without the images that cannot be read, the reasons in ``meta["skipped"]``; else the first
            is an error. :class:`pyfastcal.clip.ImageFolder` has the limits on what is read.

    Raises:
        ValueError: naming what does not fit; ImportError that says what to install.
    """
    for one in [template] if isinstance(template, str) else template:
        check_template("template", one)
    network, preprocess, tokenizer = load_clip(model, pretrained, device=device, precision=precision)
    if images.startswith(TORCHVISION):
        name, _, root = images.removeprefix(TORCHVISION).partition(":")
        if not root:
            raise ValueError(f"images must be {TORCHVISION}NAME:ROOT, got {images!r}")
        dataset = torchvision_dataset(name, root, preprocess, train=train)
    else:
        dataset = ImageFolder(images, preprocess)
    names = class_names(dataset, classes)
    learner = None if text_features is None else tuned_learner(text_features, network, tokenizer, template)
    tuned = None if text_features is None or learner else load_text_features(text_features, names)[0]
    meta = {"model": model, "pretrained": pretrained, "template": template, "images": images}
    meta["text_features"] = None if text_features is None else os.fspath(text_features)
    skipped: list[str] | None = [] if skip_bad else None
    options = {"batch_size": batch_size, "num_workers": num_workers, "progress": progress, "skipped": skipped}
    features = encode_split(learner or network, dataset, names, tokenizer, template, meta=meta, **options)
    if skipped:
        features.meta["skipped"] = skipped
    if tuned is not None:
        columns = features.image_features.shape[1]
        if tuned.shape[1] != columns:
            shape = f"must have {columns} columns as those of {model} have"
            raise ValueError(f"{os.fspath(text_features)}: text_features {shape}, got {tuned.shape[1]}")
        features.text_features = tuned.float()
    return features.validate("features")


def class_names(dataset: Any, path: str | os.PathLike | None) -> list[str]:
    """The names of the dataset's classes: from the file, else its own with underscores read as spaces."""
    own = getattr(dataset, "classes", None)
    if path is None:
        if own is None:
            raise ValueError("classes must be given: the dataset does not know the names of its classes")
        return [as_words(str(name)) for name in own]
    names = read_names(path)
    if not names or (own is not None and len(names) != len(own)):
        wanted = "at least one class name" if own is None else f"{len(own)} class names, one per line"
        raise ValueError(f"{os.fspath(path)}: must have {wanted}, got {len(names)}")
    return names


def read_names(path: str | os.PathLike) -> list[str]:
    """The lines of a text file of class names, but for empty ones. ValueError, naming the file, if it is none."""
    try:
        lines = Path(regular(path)).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{os.fspath(path)}: must be UTF-8 text, one class name per line") from None
    return [line.strip() for line in lines if line.strip()]


def tuned_learner(
    path: str | os.PathLike, model: nn.Module, tokenizer: Callable[..., Any], template: str | Sequence[str] = TEMPLATE
) -> Any:
    """The prompt learner in a file, over ``model``; None where the file is one of text features. ``template``: what a
    published trainer's context started from, the first of several."""
    if ".pth" in Path(path).name:
        return load_published(
            path, model, tokenizer, template if isinstance(template, str) else next(iter(template), TEMPLATE)
        )
    return load(path, model, tokenizer) if files.learner_of(path) else None
