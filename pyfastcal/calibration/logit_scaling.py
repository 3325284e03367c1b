"""What the logit-scaling calibrators share: one positive factor per row in, the same predictions out."""

import torch
from torch import Tensor

from .. import ops
from ..arguments import checks, ranges
from ..arguments.arrays import accepts_numpy
from .calibrator import Calibrator


class LogitScaling(Calibrator):
    """Base of the calibrators that multiply each row of logits by one positive factor.

    A subclass says in ``_factor`` what the factor (N,) of each row is. Such a calibrator never changes a
    prediction, and a sequence of them is the product of their factors (see ``chain``).

    A logit may be minus infinity: a class that is masked, whose probability is 0. It stays minus infinity, and a row is
    calibrated as if its masked classes were not there. Factors lie in [1e-30, 1e30], so does their product, and with
    the logit scale in [1e-30, 1e20]; what leaves that, or takes a logit out of the range of its dtype, is an error.

    Gradients pass from what ``forward`` gives to the logits, through the factor where it depends on them; what was
    fitted is constant.
    """

    contrasts = False  # whether the factor depends on the scores of zero-shot CLIP too

    def factor(self, logits: Tensor, *contrast: Tensor | float) -> Tensor:
        """The factor (N,) of each row of ``logits`` (N, C); ``contrast`` where it contrasts: the zero-shot logits
        and the logit scale."""
        return self._factor(logits, logits.argmax(dim=1), *contrast)

    def _factor(self, logits: Tensor, prediction: Tensor, *contrast: Tensor | float) -> Tensor:
        """``factor``; ``prediction`` (N,) is the argmax of ``logits``."""
        raise NotImplementedError  # abstract: each calibrator has its own

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
        raise NotImplementedError  # abstract: each calibrator has its own

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
        the classes that ``fit`` saw, without the N x C logits: see ``pyfastcal.similarity_confidence``. One image (D,)
        gives both 0-d. ``logit_scale`` lies in [1e-30, 1e20]."""
        return self._predict(
            image_features, text_features, logit_scale=logit_scale, logit_bias=logit_bias, normalize=normalize
        )

    @accepts_numpy
    def _scaled(self, logits: Tensor, zeroshot_logits: Tensor | None = None, *scale: float | Tensor) -> Tensor:
        """What ``forward`` does, with logits (N, C), or (C,) of one image, arrays too; zero-shot logits and the logit
        scale where the calibrator contrasts."""
        contrast: tuple = () if zeroshot_logits is None else (zeroshot_logits, *scale)
        one = isinstance(logits, Tensor) and logits.ndim == 1
        rows = logits[None] if one else logits
        largest = ranges.scores("logits", checks.matrix("logits", rows))
        if zeroshot_logits is not None:
            zeroshot_rows = _like("zeroshot_logits", zeroshot_logits, "logits", logits)
            check_pair("zeroshot_logits", zeroshot_rows, "logits", rows)
            contrast = (zeroshot_rows, *(ranges.logit_scale("logit_scale", x) for x in scale))
        prediction = rows.argmax(dim=1)
        factor = self._factor(rows, prediction, *contrast)
        scaled = scale_logits(rows, factor, prediction)
        ranges.scaled(scaled, rows, largest, factor)
        return scaled[0] if one else scaled

    def _predict(
        self,
        image_features: Tensor,
        text_features: Tensor,
        *zeroshot_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: float | Tensor | None,
        normalize: bool,
    ) -> tuple[Tensor, Tensor]:
        """``zeroshot_features``: image and text of zero-shot CLIP, where the calibrator contrasts."""
        scale = ranges.logit_scale("logit_scale", logit_scale)
        one = isinstance(image_features, Tensor) and image_features.ndim == 1
        features = image_features[None] if one else image_features, text_features
        if zeroshot_features:
            zeroshot_images, zeroshot_texts = zeroshot_features
            images = _like("zeroshot_image_features", zeroshot_images, "image_features", image_features)
            features += images, zeroshot_texts
        class_weight, sample_weight = self.feature_weights(*features, logit_scale=scale, normalize=normalize)
        confidence, prediction = ops.similarity_confidence(
            *features[:2],
            scale,
            logit_bias=logit_bias,
            class_weight=class_weight,
            sample_weight=sample_weight,
            normalize=normalize,
        )
        return (confidence[0], prediction[0]) if one else (confidence, prediction)


def scale_logits(logits: Tensor, factor: Tensor, prediction: Tensor | None = None) -> Tensor:
    """``factor[i] * logits[i]``, in the dtype of ``logits``, with every row's argmax where it was
    (``prediction``, if the caller has it already).

    Rounding can make two close logits equal, and argmax would then take the first of them. The prediction is
    lifted by a unit in the last place where that happens.
    """
    prediction = (logits.argmax(dim=1) if prediction is None else prediction)[:, None]
    masked = None
    if factor.requires_grad:  # whose gradient minus infinity would make NaN
        masked = logits == -torch.inf
        logits = logits.masked_fill(masked, 0)
    scaled, top = (_times(x, factor) for x in (logits, logits.gather(1, prediction)))
    if masked is not None:
        scaled = scaled.masked_fill(masked, -torch.inf)
    limits = torch.finfo(logits.dtype)
    lifted = top + (top.abs() * limits.eps).clamp(min=limits.smallest_normal)  # the second where all became 0
    kept = scaled.argmax(dim=1, keepdim=True) == prediction
    return scaled.scatter_(1, prediction, torch.where(kept, top, lifted))


def _times(rows: Tensor, factor: Tensor) -> Tensor:
    precision = torch.promote_types(rows.dtype, torch.float32)
    return (rows.to(precision) * factor[:, None].to(precision)).to(rows.dtype)


def _like(name: str, zeroshot: Tensor, like: str, tuned: Tensor) -> Tensor:
    """A row of its own (1, ...) where ``tuned`` is one image; of as many dimensions as that."""
    if isinstance(zeroshot, Tensor) and isinstance(tuned, Tensor) and tuned.ndim == 1:
        checks.tensor(name, zeroshot, 1)
        return zeroshot[None]
    return zeroshot


def check_pair(name: str, zeroshot: Tensor, like: str, tuned: Tensor) -> None:
    """The same scores of the zero-shot model: of the shape and on the device of the tuned ones, finite where those
    are."""
    checks.same_shape(name, checks.floating(name, zeroshot, 2), like, tuned)
    checks.same_device(name, zeroshot, like, tuned)
    if not checks.values_visible(zeroshot) or bool(zeroshot.detach().sum().isfinite()):
        return
    checks.finite(name, zeroshot.detach().masked_fill(tuned == -torch.inf, 0))
