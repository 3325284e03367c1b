"""Prompt learners: the tuned models whose confidences pyfastcal calibrates.

:class:`PromptLearner` is what they share; each learner is the few lines in which it differs, named after
its paper. docs/learners.md compares them."""

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from . import files
from .cocoop import CoCoOp
from .coop import CoOp
from .kgcoop import KgCoOp
from .learner import PromptLearner
from .maple import MaPLe
from .placement import Prompts
from .proda import ProDA
from .prograd import ProGrad
from .promptsrc import PromptSRC
from .published import load_published

__all__ = [
    "LEARNERS",
    "CoCoOp",
    "CoOp",
    "KgCoOp",
    "MaPLe",
    "ProDA",
    "ProGrad",
    "PromptLearner",
    "PromptSRC",
    "Prompts",
    "load",
    "load_published",
]

LEARNERS: dict[str, type[PromptLearner]] = {
    learner.__name__: learner for learner in (CoOp, CoCoOp, ProDA, KgCoOp, MaPLe, ProGrad, PromptSRC)
}


def load(path: str | os.PathLike, clip: Any, tokenizer: Callable[..., Tensor] | None = None) -> PromptLearner:
    """Read what any learner's ``save`` wrote; ``clip`` must be the model that was tuned.

    ValueError, naming the file, where it is something else or does not fit the model."""
    return files.load(path, LEARNERS, clip, tokenizer)
