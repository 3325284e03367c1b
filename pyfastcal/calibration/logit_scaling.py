"""What the logit-scaling calibrators share: one positive factor per row in, the same predictions out."""

import torch
from torch import Tensor, nn

from .. import checks, ops
from .._numpy import accepts_numpy


class LogitScaling(nn.Module):
    """Base of the calibrators that multiply each row of logits by one positive factor.

    A subclass says in ``factor`` what the factor (N,) of each row is. Such a calibrator never changes a
    prediction, and a sequence of them is the product of their factors (see ``chain``).
    """

    contrasts = False  # whether the factor depends on the scores of zero-shot CLIP too

    def factor(self, logits: Tensor, *inputs: Tensor | float) -> Tensor:
        """The factor (N,) of each row of ``logits`` (N, C); ``inputs`` where it contrasts: the zero-shot logits
        and the logit scale."""
        raise NotImplementedError

    def feature_weights(
        self,
        image_features: Tensor,
        text_features: Tensor,
        *zeroshot_features: Tensor,
        logit_scale: float | Tensor,
        normalize: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The factor from features: a weight per class (C,) and one per image (N,), None where it has none;
        ``zeroshot_features``: image and text, where it contrasts."""
        raise NotImplementedError

    @accepts_numpy
    def predict_features(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor = 100.0,
        *,
        logit_bias: float | Tensor | None = None,
        normalize: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Calibrated confidence (N,) and prediction (N,) int64 from image features (N, D) and text features (C, D) of
        the classes that ``fit`` saw, without the N x C logits: see ``pyfastcal.similarity_confidence``."""
        return self._predict(
            image_features, text_features, logit_scale=logit_scale, logit_bias=logit_bias, normalize=normalize
        )

    def _predict(
        self,
        *features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: float | Tensor | None,
        normalize: bool,
    ) -> tuple[Tensor, Tensor]:
        """``features``: image and text, and where it contrasts those of zero-shot CLIP."""
        scale = check_scale("logit_scale", logit_scale)
        class_weight, sample_weight = self.feature_weights(*features, logit_scale=scale, normalize=normalize)
        return ops.similarity_confidence(
            *features[:2],
            scale,
            logit_bias=logit_bias,
            class_weight=class_weight,
            sample_weight=sample_weight,
            normalize=normalize,
        )


def scale_logits(logits: Tensor, factor: Tensor, prediction: Tensor | None = None) -> Tensor:
    """``factor[i] * logits[i]``, in the dtype of ``logits``, with every row's argmax where it was
    (``prediction``, if the caller has it already).

    Rounding can make two close logits equal, and argmax would then take the first of them. The prediction is
    lifted by a unit in the last place where that happens.
    """
    prediction = (logits.argmax(dim=1) if prediction is None else prediction)[:, None]
    scaled, top = (_times(x, factor) for x in (logits, logits.gather(1, prediction)))
    lifted = top + top.abs() * torch.finfo(logits.dtype).eps
    kept = scaled.argmax(dim=1, keepdim=True) == prediction
    return scaled.scatter_(1, prediction, torch.where(kept, top, lifted))


def _times(rows: Tensor, factor: Tensor) -> Tensor:
    precision = torch.promote_types(rows.dtype, factor.dtype)
    return (rows.to(precision) * factor[:, None].to(precision)).to(rows.dtype)


def check_logits(name: str, logits: Tensor) -> Tensor:
    checks.matrix(name, logits)
    checks.finite(name, logits)
    return logits


def check_pair(name: str, zeroshot: Tensor, like: str, tuned: Tensor) -> None:
    """The same scores of the zero-shot model: as ``check_logits``, of the same shape and device."""
    checks.same_shape(name, checks.floating(name, zeroshot, 2), like, tuned)
    checks.same_device(name, zeroshot, like, tuned)
    checks.finite(name, zeroshot)


def check_scale(name: str, scale: float | Tensor) -> float | Tensor:
    """A finite positive number; a tensor passes unread while torch.compile traces."""
    if isinstance(scale, Tensor) and torch.compiler.is_compiling():
        return scale
    return checks.number(name, scale, low=0.0, strict=True)
