"""Image and text features of any CLIP, and of a split as a whole; files of tuned text features."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..arguments import checks
from ..io.features import FeatureSet
from ..io.paths import atomic_write, regular
from . import loading
from .adapters import Adapter, adapt, evaluating, scale_and_bias
from .datasets import ImageFolder, torchvision_dataset
from .loading import Images
from .models import load_clip

__all__ = [
    "ImageFolder",
    "encode_dataset",
    "encode_images",
    "encode_split",
    "encode_text",
    "load_clip",
    "load_text_features",
    "save_text_features",
    "torchvision_dataset",
]

Progress = Callable[[int, int], None]  # images done, images in all (0 where a loader does not know)
TEMPLATE = "a photo of a {}."
TEXT_FORMAT = "pyfastcal.text_features/1"


def encode_images(
    model: Any,
    images: Images,
    *,
    batch_size: int = 256,
    num_workers: int = 0,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Image features (N, D), float32, L2-normalised, on the model's device.

    ``model``: open_clip's, or anything with ``encode_image``, a prompt learner too; transformers'
    CLIPModel, SiglipModel and all with ``get_image_features``; any function or module that gives features
    (N, D) of N images. ``images``: a tensor (N, 3, H, W), preprocessed; or a dataset or DataLoader that
    gives such images, alone or first in a tuple, or under "pixel_values" (a DataLoader keeps its own batch
    size and workers).

    The model runs in evaluation mode without gradients where it is, under autocast to the given dtype if
    there is one. ``progress(done, total)`` is called after every batch. ValueError for a model that is none,
    for images of another kind, or none at all."""
    batches = loading.batches(images, batch_size, num_workers)
    return _encode([adapt(model)], batches, loading.size(images), autocast, progress)[0][0]


def encode_dataset(
    model: Any,
    dataset: Dataset | DataLoader,
    *,
    batch_size: int = 256,
    num_workers: int = 0,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """As :func:`encode_images`, of a dataset or DataLoader of (image, label), or of mappings with
    "pixel_values" and "labels": features (N, D) and labels (N,) int64, both on the model's device."""
    batches = loading.batches(dataset, batch_size, num_workers)
    (features,), labels = _encode([adapt(model)], batches, loading.size(dataset), autocast, progress)
    return features, _labelled(labels)


def encode_split(
    model: Any,
    dataset: Dataset | DataLoader,
    classnames: Sequence[str],
    tokenizer: Callable[..., Any] | None = None,
    template: str | Sequence[str] | None = None,
    *,
    batch_size: int = 256,
    num_workers: int = 0,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
    meta: dict[str, Any] | None = None,
    skipped: list[str] | None = None,
) -> FeatureSet:
    """All that a feature file holds of one split, on the CPU: see :class:`pyfastcal.io.FeatureSet`.

    ``model``: as for :func:`encode_images`, with a text side and a logit scale; or a tuned prompt learner,
    whose features before tuning become the zero-shot ones. Of another model the zero-shot text features
    stand in both places. ``tokenizer`` and ``template``: as for :func:`encode_text`; a learner brings its
    own. ``dataset``: labelled, see :func:`encode_dataset`; ``meta``: anything JSON can hold, to keep with
    them; ``skipped``: a list that takes the reasons of images that cannot be read, which are left out; without it
    the first of them is a ValueError."""
    names, learner = check_classnames(classnames), hasattr(model, "zeroshot_text_features")
    if learner:
        tokenizer, template = tokenizer or model.tokenizer, template or model.template
    clip = model.clip if learner else model
    zeroshot = encode_text(clip, tokenizer, names, template or TEMPLATE, batch_size=batch_size, autocast=autocast)
    texts = model.text_features(names) if learner else zeroshot
    both = learner and model.tunes_images
    adapters = [adapt(model), adapt(clip)] if both else [adapt(clip)]
    batches = loading.batches(dataset, batch_size, num_workers, skipped)
    features, labels = _encode(adapters, batches, loading.size(dataset), autocast, progress, skipped)
    scale, bias = scale_and_bias(model)
    return FeatureSet(
        image_features=features[0].cpu(),
        text_features=texts.cpu(),
        labels=_labelled(labels).cpu(),
        logit_scale=scale,
        zeroshot_text_features=zeroshot.cpu(),
        zeroshot_image_features=features[1].cpu() if both else None,
        logit_bias=bias,
        classnames=names,
        meta=dict(meta or {}),
    ).validate("features")


def _labelled(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError("dataset must give (image, label), got images without labels")
    return labels


@torch.no_grad()
def _encode(
    adapters: Sequence[Adapter],
    batches: Iterable[tuple[Tensor, Any]],
    total: int,
    autocast: torch.dtype | None,
    progress: Progress | None,
    skipped: Sequence[str] | None = None,
) -> tuple[list[Tensor], Tensor | None]:
    """The features of each model, and the labels: one pass over the images for all."""
    features: list[list[Tensor]] = [[] for _ in adapters]
    labels: list[Tensor] = []
    done = told = 0
    with contextlib.ExitStack() as stack:
        for adapter in adapters:
            stack.enter_context(evaluating(adapter.host))
        if autocast is not None:
            stack.enter_context(torch.autocast(adapters[0].device.type, dtype=autocast))
        for batch, label in batches:
            checks.floating("images", batch, 4)
            for adapter, rows in zip(adapters, features, strict=True):
                rows.append(F.normalize(adapter.image(adapter.place(batch)).float(), dim=-1))
            if label is not None:
                labels.append(torch.as_tensor(label).to(features[0][-1].device, torch.int64))
            done += len(batch)
            if progress is not None:
                progress(told := done + len(skipped or ()), total)
        if progress is not None and skipped and told < done + len(skipped):  # none of the last batch could be read
            progress(done + len(skipped), total)
    if not done:
        raise ValueError(f"images must not be empty, got none{f' that can be read: {skipped[0]}' if skipped else ''}")
    return [torch.cat(rows) for rows in features], torch.cat(labels) if labels else None


@torch.no_grad()
def encode_text(
    model: Any,
    tokenizer: Callable[..., Any] | None,
    classnames: Sequence[str],
    template: str | Sequence[str] = TEMPLATE,
    *,
    batch_size: int = 256,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """Zero-shot text features (C, D), float32, L2-normalised, on the model's device: one row per class name.

    ``model``: as for :func:`encode_images`; ``tokenizer``: texts -> ids (N, L), or transformers' tokenizer
    or processor; None for a model that is a function of texts. Each of the templates takes the name at
    its ``{}``, underscores read as spaces; the features of several are averaged and normalised again, as in CLIP
    (Radford et al. 2021, section 3.1.4). ValueError for no names, no templates, and a template without ``{}``."""
    names, adapter = check_classnames(classnames), adapt(model)
    templates = [template] if isinstance(template, str) else list(template)
    if not templates:
        raise ValueError("template must be a template or a list of them, got an empty list")
    checks.integer("batch_size", batch_size, 1)
    context = contextlib.nullcontext() if autocast is None else torch.autocast(adapter.device.type, autocast)
    mean = 0.0
    with evaluating(adapter.host), context:
        for one in templates:
            texts = [check_template("template", one).replace("{}", as_words(name)) for name in names]
            chunks = [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
            rows = [adapter.text(adapter.tokens(tokenizer, chunk)).float() for chunk in chunks]
            mean = mean + F.normalize(torch.cat(rows), dim=-1) / len(templates)
    return F.normalize(mean, dim=-1)  # type: ignore[arg-type]


def check_template(name: str, template: Any) -> str:
    """A string with one ``{}`` for the class name."""
    if not isinstance(template, str) or template.count("{}") != 1:
        raise ValueError(f"{name} must be a text with one {{}} for the class name, got {template!r}")
    return template


def as_words(name: str) -> str:
    """A class name as prompts say it: underscores are spaces, as in the published trainers."""
    return name.replace("_", " ")


def check_classnames(classnames: Any) -> list[str]:
    """At least one class name, all of them texts."""
    if isinstance(classnames, str) or not all(isinstance(n, str) and as_words(n).strip() for n in classnames):
        raise ValueError(f"classnames must be a list of names, got {classnames!r}")
    if not len(classnames):
        raise ValueError("classnames must not be empty, got no names")
    return list(classnames)


def save_text_features(path: str | os.PathLike, features: Tensor, classnames: Sequence[str], **meta: Any) -> None:
    """Write tuned text features (C, D), such as ``CoOp.text_features(classnames)``, with their class
    names, to a safetensors file; ``meta``, anything JSON can hold, says where they come from."""
    checks.matrix("features", features, rows=True)
    checks.finite("features", features)
    names = check_classnames(classnames)
    if len(names) != len(features):
        raise ValueError(f"classnames must have {len(features)} entries, one per row of features, got {len(names)}")
    metadata = {"format": TEXT_FORMAT, "classnames": json.dumps(names), "meta": json.dumps(meta)}
    tensors = {"text_features": features.detach().cpu().clone(memory_format=torch.contiguous_format)}
    atomic_write(path, lambda name: save_file(tensors, name, metadata=metadata))


def load_text_features(path: str | os.PathLike, classnames: Sequence[str] | None = None) -> tuple[Tensor, list[str]]:
    """Read ``(features (C, D), classnames)``; given ``classnames``, the rows of those, in that order (a name's
    underscores may be spaces in the file, and the other way round: features are the same).

    ValueError, naming the file, for a file that cannot be read, lacks a key or a class."""
    where = regular(path)
    try:
        with safe_open(where, framework="pt") as file:
            metadata = file.metadata() or {}
            if "text_features" not in file.keys() or "classnames" not in metadata:  # noqa: SIM118 (not a dict)
                raise ValueError(f"{where}: text_features and classnames must be in the file")
            features, names = file.get_tensor("text_features"), json.loads(metadata["classnames"])
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{where}: not a complete file of text features ({error})") from error
    checks.finite(f"{where}: text_features", checks.matrix(f"{where}: text_features", features, rows=True))
    if len(names) != len(features):
        raise ValueError(f"{where}: classnames must have {len(features)} entries, got {len(names)}")
    if classnames is None:
        return features, names
    rows = {as_words(name): i for i, name in enumerate(names)} | {name: i for i, name in enumerate(names)}
    missing = [name for name in check_classnames(classnames) if name not in rows and as_words(name) not in rows]
    if missing:
        raise ValueError(f"{where}: text_features lacks the class {missing[0]!r} (it has {', '.join(names)})")
    return features[[rows.get(name, rows.get(as_words(name))) for name in classnames]], list(classnames)
