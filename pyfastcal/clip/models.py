"""Loading a CLIP by name: open_clip's, and the small ones that come with pyfastcal."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments.devices import usable
from ..io.paths import regular
from .open_clip_import import import_open_clip
from .small import load_small

SMALL_PREFIX = "pyfastcal/"


def load_clip(
    model_name: str,
    pretrained: str | None = None,
    *,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
) -> tuple[nn.Module, Callable[[Any], Tensor], Callable[..., Tensor]]:
    """``(model, preprocess, tokenizer)``, the model in evaluation mode, its parameters frozen.

    ``model_name``: ``"pyfastcal/digits"``, ``"pyfastcal/shapes"``, or any name that open_clip takes, with
    a tag or a file of weights as ``pretrained`` (``"ViT-B-16", "laion2b_s34b_b88k"``), or
    ``"hf-hub:..."`` and ``"local-dir:..."``, which bring their own. ``precision``: as open_clip has it
    ("fp32", "fp16", "bf16"). ValueError for names and weights that open_clip does not know, and for a device that is
    not there; no model is ever left with random weights."""
    device = usable(device)
    if model_name.startswith(SMALL_PREFIX):
        small = load_small(model_name.removeprefix(SMALL_PREFIX))
        return small.model.to(device), small.preprocess, small.tokenizer
    open_clip = import_open_clip()
    if ":" not in model_name:
        if model_name not in open_clip.list_models():
            raise ValueError(f"model_name must be one of open_clip.list_models(), got {model_name!r}")
        if not pretrained:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(model_name)) or "none known"
            raise ValueError(f"pretrained must be a file or a tag of {model_name} (known: {tags}), got {pretrained!r}")
        if os.path.exists(pretrained):
            regular(pretrained)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            model_name, pretrained=pretrained, device=device, precision=precision, require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(model_name)
    except (RuntimeError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())
        weights = f" (pretrained {pretrained!r})" if pretrained else ""
        raise ValueError(f"model_name: {model_name!r}{weights} did not load: {reason}") from error
    return model.eval().requires_grad_(False), preprocess, tokenizer
