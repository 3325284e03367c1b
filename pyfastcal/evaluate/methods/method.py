"""What a calibration method of an evaluation is, and what the methods share.

A method is one function: ``fit(classes, base)`` does what is done once, with the classes of the split and the base
file, and returns ``apply(features, near)``, which makes a :class:`Calibrated` of images of those classes, be they the
whole split or a shard of it. A row of the result depends on its own image alone, so that a split gives the same in
memory, in shards and on several machines. Where a method cannot apply, ``fit`` (or ``apply``) raises
:class:`NotApplicable` with the reason, and its row shows that reason in place of numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from ... import ops
from ...calibration.proximity import proximity
from ...io.features import ClassSet, FeatureSet

PROXIMITY_NEIGHBOURS = 5


class NotApplicable(Exception):
    """Why a method cannot be used on these features."""


@dataclass(frozen=True)
class Calibrated:
    """What a method makes of a split: (N,) confidences and predictions, the (N,) factor of every row of
    logits, the (C,) weight per class where there is one, and the constants it was used with. ``scores``: NLL and
    Brier score of every image, (N,) each, of methods that are not a factor."""

    confidence: Tensor
    prediction: Tensor
    factor: Tensor | None = None
    class_weight: Tensor | None = None
    source: tuple[Tensor, Tensor] | None = None  # image and text features, where they are not the tuned ones
    settings: dict[str, float] = field(default_factory=dict)
    observed: dict[str, float] = field(default_factory=dict)  # of these images, so that shards differ in it
    scores: dict[str, Tensor] | None = None


# images of the classes fitted on, and the (N,) proximity of each to the base images (None: it cannot be had)
Apply = Callable[[FeatureSet, Tensor | None], Calibrated]
Fit = Callable[[ClassSet, FeatureSet | None], Apply]


def check_base(base: FeatureSet, classes: ClassSet) -> None:
    """ValueError unless the base file is of the model that the classes are of."""
    for key in ("image_features", "text_features"):
        mine, theirs = classes.text_features.shape[1], getattr(base, key).shape[1]
        if mine != theirs:
            raise ValueError(f"base {key} must have {mine} columns as those of the features have, got {theirs}")


def labelled(base: FeatureSet | None, what: str = "") -> FeatureSet:
    if base is None:
        raise NotApplicable(f"{what}fitted on labelled base classes: give a base file")
    return base


def zeroshot_texts(classes: ClassSet, of: str = "of these classes") -> Tensor:
    if classes.zeroshot_text_features is None:
        raise NotApplicable(f"the zeroshot_text_features {of} are needed")
    return classes.zeroshot_text_features


def image_proximity(features: FeatureSet, base: FeatureSet | None) -> Tensor | None:
    bank, own = (features, True) if base is None else (base, False)
    if len(bank.image_features) - own < PROXIMITY_NEIGHBOURS:
        return None
    return proximity(features.image_features, bank.image_features, PROXIMITY_NEIGHBOURS, exclude_self=own)


def logits_of(images: Tensor, texts: Tensor, logit_scale: float) -> Tensor:
    """(N, C); the logit bias is left out: the same for all classes, it changes no probability."""
    return logit_scale * ops.similarity(images, texts)
