"""Whether what a checkpoint says can be: a file with a right checksum may still be no checkpoint that was ever written.
Each check raises a ValueError without the name of the file."""

from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ..arguments import checks
from ..metrics.accumulator import Accumulator

MOST = 1 << 40  # images; no sum over cells of so many leaves int64


def check_about(about: Any, methods: set[str], shards: int) -> None:
    """The metadata: ``run``, ``identity``, ``images``, and by method ``settings``, ``warned`` and ``failed``."""
    for key, kind in {"run": str, "identity": dict, "settings": dict, "warned": dict, "failed": dict}.items():
        if not isinstance(about.get(key), kind):
            raise ValueError(f"{key} must be a {kind.__name__}, got {checks.describe(about.get(key))}")
    checks.integer("images", about.get("images"), 0, MOST)
    for key in ("settings", "warned", "failed"):
        for method, value in about[key].items():
            if method not in methods:
                raise ValueError(f"{key} must be of the methods {', '.join(sorted(methods))}, got {method!r}")
            if not isinstance(value, dict):
                raise ValueError(f"{key} must hold a dictionary for {method}, got {checks.describe(value)}")
    for settings in about["settings"].values():
        if not all(isinstance(x, (int, float)) and isfinite(x) for x in settings.values()):
            raise ValueError(f"settings must be finite numbers, got {settings}")
    for key in ("warned", "failed"):
        for told in about[key].values():
            if set(told) != {"shard", "text", "shards"} or not isinstance(told["text"], str):
                raise ValueError(f"{key} must hold shard, text and shards, got {told}")
            checks.integer(f"{key} shard", told["shard"], 0, shards - 1)
            checks.integer(f"{key} shards", told["shards"], 1, shards)


def check_tensors(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """All that are ``wanted``, of the dtype and the shape wanted, and no others."""
    if tensors.keys() != wanted.keys():
        differ = ", ".join(sorted(tensors.keys() ^ wanted.keys()))
        raise ValueError(f"must hold {', '.join(sorted(wanted))}, differs in {differ}")
    for key, tensor in tensors.items():
        if tensor.dtype != wanted[key].dtype or tensor.shape != wanted[key].shape:
            raise ValueError(f"{key} must be {checks.describe(wanted[key])}, got {checks.describe(tensor)}")


def check_done(done: Tensor, images: int) -> None:
    """Shards have at least one image each, and images come from shards."""
    shards = int(done.view(torch.uint8).bool().sum())
    if bool((done.view(torch.uint8) > 1).any()):
        raise ValueError("done must be zeros and ones")
    if images < shards or (images and not shards):
        raise ValueError(f"images must be those of {shards} shards, got {images}")


def check_sums(method: str, sums: Accumulator, images: int, complete: bool) -> None:
    """Those of all the ``images`` if ``complete``, of some of them else, and of rows at all."""
    state, layout = sums.state, sums._layout
    layout.verify(state, f"the sums of {method}")
    rows = int(state[0])
    if not (rows == images if complete else 0 <= rows <= images) or layout.counted(state) != rows:
        raise ValueError(f"the sums of {method} must be of {images} images, got {rows}")
