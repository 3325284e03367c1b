"""Features of labelled images and class names, by any open_clip model: what ``pyfastcal extract`` does."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .io import FeatureSet

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
        text_features: tuned text features: a file of ``CoOp.save`` or of ``save_text_features``. Without it
            the zero-shot ones stand in both places.
        train: of a torchvision dataset, the training split.

    Raises:
        ValueError: naming what does not fit; ImportError that says what to install.
    """
    from .clip import ImageFolder, encode_dataset, encode_text, load_clip, torchvision_dataset

    network, preprocess, tokenizer = load_clip(model, pretrained, device=device, precision=precision)
    if images.startswith(TORCHVISION):
        name, _, root = images.removeprefix(TORCHVISION).partition(":")
        if not root:
            raise ValueError(f"images must be {TORCHVISION}NAME:ROOT, got {images!r}")
        dataset = torchvision_dataset(name, root, preprocess, train=train)
    else:
        dataset = ImageFolder(images, preprocess)
    names = class_names(dataset, classes)
    zeroshot = encode_text(network, tokenizer, names, template)
    tuned = zeroshot
    if text_features is not None:
        tuned = tuned_text_features(text_features, names, network, tokenizer).to(zeroshot.device)
        if tuned.shape != zeroshot.shape:
            shape = f"must have {zeroshot.shape[1]} columns as those of {model} have"
            raise ValueError(f"{os.fspath(text_features)}: text_features {shape}, got {tuned.shape[1]}")
    features, labels = encode_dataset(
        network, dataset, batch_size=batch_size, num_workers=num_workers, progress=progress
    )
    bias = getattr(network, "logit_bias", None)
    return FeatureSet(
        image_features=features.cpu(),
        text_features=tuned.float().cpu(),
        labels=labels.cpu(),
        logit_scale=float(network.logit_scale.detach().exp()),
        zeroshot_text_features=zeroshot.cpu(),
        logit_bias=None if bias is None else float(bias),
        classnames=names,
        meta={"model": model, "pretrained": pretrained, "template": template, "images": images}
        | {"text_features": None if text_features is None else os.fspath(text_features)},
    ).validate("features")


def class_names(dataset: Any, path: str | os.PathLike | None) -> list[str]:
    """The names of the dataset's classes: from the file, else its own with underscores read as spaces."""
    own = getattr(dataset, "classes", None)
    if path is None:
        if own is None:
            raise ValueError("classes must be given: the dataset does not know the names of its classes")
        return [str(name).replace("_", " ") for name in own]
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{os.fspath(path)}: must be UTF-8 text, one class name per line") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names or (own is not None and len(names) != len(own)):
        wanted = "at least one class name" if own is None else f"{len(own)} class names, one per line"
        raise ValueError(f"{os.fspath(path)}: must have {wanted}, got {len(names)}")
    return names


def tuned_text_features(
    path: str | os.PathLike, names: Sequence[str], model: torch.nn.Module, tokenizer: Callable[..., Tensor]
) -> Tensor:
    """Text features (C, D) of the classes ``names``: made with a saved CoOp, or read where they are saved."""
    from .clip.features import load_text_features
    from .clip.prompts import CoOp

    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            learner = json.loads((file.metadata() or {}).get("pyfastcal", "{}")).get("learner")
    except (SafetensorError, OSError, ValueError):
        learner = None  # load_text_features says what is wrong with the file
    if learner is None:
        return load_text_features(path, names)[0]
    return CoOp.load(path, model, tokenizer).text_features(names)
