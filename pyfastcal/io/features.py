"""Feature files: the CLIP features of one split, in one safetensors file.

=========================== ======= ========================================================================
key                         shape   what
=========================== ======= ========================================================================
``image_features``          (N, D)  of the tuned model; float32, float16, bfloat16 or float64
``text_features``           (C, D)  of the tuned model, one row per class of the split
``labels``                  (N,)    integers in [0, C): the row of ``text_features`` that is right
``logit_scale``             ()      tau, the factor of the cosine similarities (100 for OpenAI's models)
``zeroshot_text_features``  (C, D0) optional: the same classes before tuning (DAC and CAC need them)
``zeroshot_image_features`` (N, D0) optional: the same images before tuning; without it the image encoder
                                    was not tuned, and D0 = D
``logit_bias``              ()      optional: added to every logit (SigLIP)
=========================== ======= ========================================================================

Metadata (strings, all optional): ``format`` = ``pyfastcal.features/1``; ``classnames``, a JSON list of C
strings; ``meta``, a JSON object with whatever the writer wants to keep (model, split, template ...).
Features need not be normalised. Any program that writes safetensors can write such a file.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..arguments import checks
from .paths import atomic_write, regular
from .text import printable

FORMAT = "pyfastcal.features/1"
REQUIRED = ("image_features", "text_features", "labels", "logit_scale")
OPTIONAL = ("zeroshot_text_features", "zeroshot_image_features", "logit_bias")


@dataclass
class ClassSet:
    """The classes of a split: what does not grow with its images."""

    text_features: Tensor
    logit_scale: float
    zeroshot_text_features: Tensor | None = None
    logit_bias: float | None = None
    classnames: list[str] | None = None

    def to(self, device: torch.device | str) -> "ClassSet":
        """With the tensors on ``device``."""
        texts, zeroshot = self.text_features, self.zeroshot_text_features
        moved = zeroshot if zeroshot is None else zeroshot.to(device)
        return replace(self, text_features=texts.to(device), zeroshot_text_features=moved)

    def validate(self, source: str = "") -> "ClassSet":
        """Raise a one-line ValueError that names ``source`` and the field where anything does not fit."""
        at = f"{source}: " if source else ""
        n = len(checks.matrix(f"{at}text_features", self.text_features, rows=True))
        zeroshot = self.zeroshot_text_features
        if zeroshot is not None:
            checks.matrix(f"{at}zeroshot_text_features", zeroshot)
            _rows(f"{at}zeroshot_text_features", zeroshot, "text_features", n)
            checks.finite(f"{at}zeroshot_text_features", zeroshot)
        checks.finite(f"{at}text_features", self.text_features)
        self.logit_scale = checks.number(f"{at}logit_scale", self.logit_scale, low=0.0, strict=True)
        if self.logit_bias is not None:
            self.logit_bias = checks.number(f"{at}logit_bias", self.logit_bias)
        names = self.classnames
        if names is not None:
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"{at}classnames must be a list of strings, got {checks.describe(names)}")
            if len(names) != n:
                per = f"{n} entries, one per row of text_features"
                raise ValueError(f"{at}classnames must have {per}, got {len(names)}")
        return self


@dataclass
class FeatureSet:
    """The features of one split: N images, C classes, D dimensions. Shapes as in the table above."""

    image_features: Tensor
    text_features: Tensor
    labels: Tensor
    logit_scale: float
    zeroshot_text_features: Tensor | None = None
    zeroshot_image_features: Tensor | None = None
    logit_bias: float | None = None
    classnames: list[str] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def zeroshot_images(self) -> Tensor:
        """The image features before tuning: those after it where the image encoder was not tuned."""
        return self.image_features if self.zeroshot_image_features is None else self.zeroshot_image_features

    @property
    def classes(self) -> ClassSet:
        return ClassSet(**{f.name: getattr(self, f.name) for f in fields(ClassSet)})

    def to(self, device: torch.device | str) -> "FeatureSet":
        """With the tensors on ``device``."""
        return replace(self, **vars(self.classes.to(device)), **self.images_on(device))

    def images_on(self, device: torch.device | str) -> dict[str, Tensor | None]:
        """The fields that grow with the images, on ``device``."""
        found = {key: getattr(self, key) for key in ("image_features", "labels", "zeroshot_image_features")}
        return {key: value if value is None else value.to(device) for key, value in found.items()}

    def validate(self, source: str = "") -> "FeatureSet":
        """Raise a one-line ValueError that names ``source`` and the field where anything does not fit."""
        at = f"{source}: " if source else ""
        images = checks.matrix(f"{at}image_features", self.image_features, rows=True)
        n, dim = images.shape
        checks.matrix(f"{at}text_features", self.text_features, columns=dim, like="image_features", rows=True)
        zs_images, zs_texts = self.zeroshot_image_features, self.zeroshot_text_features
        if zs_images is not None:
            dim = checks.matrix(f"{at}zeroshot_image_features", zs_images).shape[1]
            _rows(f"{at}zeroshot_image_features", zs_images, "image_features", n)
            if zs_texts is None:
                raise ValueError(f"{at}zeroshot_text_features is missing, zeroshot_image_features needs it")
        if zs_texts is not None:
            like = "image_features" if zs_images is None else "zeroshot_image_features"
            checks.matrix(f"{at}zeroshot_text_features", zs_texts, columns=dim, like=like)
        checks.finite(f"{at}image_features", images)
        if zs_images is not None:
            checks.finite(f"{at}zeroshot_image_features", zs_images)
        vars(self).update(vars(self.classes.validate(source)))
        self.labels = checks.labels(f"{at}labels", self.labels, n, len(self.text_features), of="image").long()
        if not isinstance(self.meta, dict):
            raise ValueError(f"{at}meta must be a dictionary, got {checks.describe(self.meta)}")
        return self


def _rows(name: str, x: Tensor, like: str, rows: int) -> None:
    if x.shape[0] != rows:
        raise ValueError(f"{name} must have {rows} rows as {like} has, got {checks.describe(x)}")


def save_features(path: str | os.PathLike, features: FeatureSet) -> Path:
    """Write ``features`` to ``path``; ValueError where they do not fit together. Nothing partial is ever
    left."""
    features.validate()
    tensors = {key: getattr(features, key) for key in (*REQUIRED, *OPTIONAL)}
    for key in ("logit_scale", "logit_bias"):
        if tensors[key] is not None:
            tensors[key] = torch.tensor(tensors[key], dtype=torch.float64)
    tensors = {  # cloned: safetensors refuses tensors that share memory, as tuned and zero-shot features may
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in tensors.items()
        if value is not None
    }
    metadata = {"format": FORMAT, "meta": json.dumps(features.meta)}
    if features.classnames is not None:
        metadata["classnames"] = json.dumps(features.classnames)
    return atomic_write(path, lambda name: save_file(tensors, name, metadata=metadata))


def load_features(path: str | os.PathLike) -> FeatureSet:
    """Read a feature file and check all of it.

    Raises a one-line ValueError that names the file, and the key where it is one key's fault: no such file,
    not a safetensors file, truncated, a key missing, wrong rank or dtype, rows that do not match, labels out
    of range, NaN or infinite values.
    """
    name = os.fspath(path)
    return FeatureSet(**read_fields(name, REQUIRED, (*OPTIONAL, "classnames", "meta"))).validate(name)


def load_classes(path: str | os.PathLike) -> ClassSet:
    """Read the classes alone, from a feature file or from one that has only their keys: ``text_features``,
    ``logit_scale`` and what is optional of ``zeroshot_text_features``, ``logit_bias`` and ``classnames``.

    Raises ValueError as ``load_features`` does.
    """
    name = os.fspath(path)
    optional = "zeroshot_text_features", "logit_bias", "classnames"
    return ClassSet(**read_fields(name, ("text_features", "logit_scale"), optional)).validate(name)


def read_fields(name: str, required: Sequence[str], optional: Sequence[str]) -> dict[str, Any]:
    """Those fields of the safetensors file ``name`` that it has: tensors, mapped into memory rather than
    read; numbers and metadata as Python values, unchecked. ValueError, which names the file, where a
    required one is missing or the file is not whole."""
    regular(name)
    try:
        with safe_open(name, framework="pt") as file:
            keys, metadata = set(file.keys()), file.metadata() or {}
            values: dict[str, Any] = {key: file.get_tensor(key) for key in (*required, *optional) if key in keys}
    except Exception as error:  # whatever a damaged header makes the reader raise
        raise ValueError(f"{name}: not a complete safetensors file ({first_line(error)})") from error
    for key in required:
        if key not in values:
            found = first_line(", ".join(sorted(keys))) if keys else "none"
            raise ValueError(f"{name}: {key} is missing (keys in the file: {found})")
    for key in ("logit_scale", "logit_bias"):
        if key in values:
            if values[key].numel() != 1:
                raise ValueError(f"{name}: {key} must be one number, got {checks.describe(values[key])}")
            values[key] = values[key].item()
    for key in ("classnames", "meta"):
        if key in optional and key in metadata:
            try:
                values[key] = json.loads(metadata[key])
            except (ValueError, RecursionError) as error:  # not JSON; numbers too long to read; nested too deep
                raise ValueError(f"{name}: {key} (metadata) must be JSON: {first_line(error)}") from error
    return values


def first_line(said: object) -> str:
    """What an error says, or other words out of a file, as one printable line of bounded length."""
    lines = str(said).splitlines() or [""]
    return printable(lines[0][:200]) or type(said).__name__
