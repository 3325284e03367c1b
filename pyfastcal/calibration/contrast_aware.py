"""Contrast-aware calibration: CAC's weight, and the calibrator."""

from typing import Any

import torch
from torch import Tensor

from .. import ops, reference
from ..arguments import checks, ranges
from ..arguments.arrays import accepts_numpy
from ..arguments.keywords import by_name
from ..arguments.warn import warn_caller
from ..ops.entry import are_plain, defined_by
from ..ops.predict_by_contrast import predict_by_contrast
from ..ops.scale_by_contrast import scale_by_contrast
from ..ops.scale_logits import scale_logits
from .contrast_fit import fit_contrast
from .fit_rows import labelled
from .logit_scaling import LogitScaling, check_pair

_READINGS = ("similarity", "probability")
_SMALLEST = 1e-3  # a weight below it wipes out all confidence: the inputs were on another scale
_USUAL = (0.5, 1.5)
_NARROW = (torch.float32, torch.float16, torch.bfloat16)


@defined_by(reference.contrast_weight)
@accepts_numpy
def contrast_weight(
    similarity: Tensor,
    zeroshot_similarity: Tensor,
    *,
    alpha: float = 1.1,
    k: float = 15.0,
    lambda1: float = 0.9,
    lambda2: float = 1.0,
    on: str = "similarity",
    logit_scale: float | Tensor = 100.0,
) -> Tensor:
    """CAC's weight of each image, from how far its tuned scores lie from its zero-shot scores.

    Definition: ``reference.contrast_weight``.

    Args:
        similarity: cosine similarities (N, C) of the tuned model, before the logit scale.
        zeroshot_similarity: (N, C), of zero-shot CLIP for the same classes.
        alpha: within [0.001, 1e6].
        k: within [0, 1e30].
        lambda1, lambda2: 0 <= lambda1 <= lambda2 <= 1e30.
        on: ``"similarity"``, the reading that fits the paper's own tables; ``"probability"``, the other reading that
            its wording allows.
        logit_scale: tau, within [1e-30, 1e20]; only probabilities depend on it.

    Returns:
        (N,), float32 (float64 for float64 similarities). Section 3 of arXiv 2501.19060.

    Raises:
        ValueError: naming the argument; among others where a weight falls below 0.001, as it does when logits
            after the logit scale are passed for similarities.

    Warns:
        UserWarning: where the median weight leaves [0.5, 1.5]. The default constants were chosen on ViT-B/16.
    """
    checks.matrix("similarity", similarity)
    checks.finite("similarity", similarity)
    check_pair("zeroshot_similarity", zeroshot_similarity, "similarity", similarity)
    checks.choice("on", on, _READINGS)
    constants = _check_constants(alpha, k, lambda1, lambda2)
    scale = ranges.logit_scale("logit_scale", logit_scale)
    weight = reference.contrast_weight(similarity, zeroshot_similarity, **constants, on=on, logit_scale=scale)
    return _checked("similarity", "cosine similarities, before the logit scale", weight)


class ContrastAwareCalibration(LogitScaling):
    """CAC: scale a row's logits by how far tuning moved its scores from zero-shot CLIP. Needs no fitting.

    Args:
        alpha, k, lambda1, lambda2: constants of ``contrast_weight``, in the ranges given there. The defaults are the
            middle of the paper's ablations on ViT-B/16. They depend on the geometry of the features and on the number
            of classes; for another model ``fit`` finds alpha and k. z is in cosines, a hundredth of ViT-B/16's logits:
            for a CLIP of logit scale s, without labels, ``k=15 * s / 100`` keeps the published units
            (docs/experiments.md shows what it does).
        on: ``"similarity"`` or ``"probability"``: see ``contrast_weight``.

    The constants are buffers, so that a state dict carries them; ``fitted`` says whether ``fit`` set them.

    Source: "Contrast-Aware Calibration for Fine-Tuned CLIP" (arXiv 2501.19060v3), section 3.
    """

    alpha: Tensor
    k: Tensor
    lambda1: Tensor
    lambda2: Tensor
    fitted: Tensor
    contrasts = True

    def __init__(
        self,
        alpha: float = 1.1,
        k: float = 15.0,
        lambda1: float = 0.9,
        lambda2: float = 1.0,
        on: str = "similarity",
    ) -> None:
        super().__init__()
        for name, value in _check_constants(alpha, k, lambda1, lambda2).items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self.register_buffer("fitted", torch.tensor(False))
        self.on = checks.choice("on", on, _READINGS)

    @by_name("zeroshot_logits")
    @accepts_numpy
    @torch.no_grad()
    def fit(
        self,
        logits: Tensor,
        zeroshot_logits: Tensor,
        labels: Tensor,
        logit_scale: float | Tensor = 100.0,
        *,
        fit_lambda: bool = False,
        ignore_index: int | None = None,
    ) -> "ContrastAwareCalibration":
        """Choose alpha and k (with ``fit_lambda`` lambda1 and lambda2 too) for the least negative
        log-likelihood on a labelled split of the base classes.

        Args:
            logits: (N, C), similarities times ``logit_scale``, tuned, finite; ``zeroshot_logits``: (N, C), zero-shot,
                by name: swapped, they would give the constants of another model and no error.
            labels: (N,) integers in [0, C).
            ignore_index: rows with this label are left out.

        The paper gives no procedure; on the split it is given, the result is never worse than the constants
        the module holds or than leaving the logits as they are.
        """
        checks.finite("logits", checks.matrix("logits", logits, rows=True))
        check_pair("zeroshot_logits", zeroshot_logits, "logits", logits)
        scale = ranges.logit_scale("logit_scale", logit_scale)
        labels, logits, zeroshot_logits = labelled(ignore_index, labels, logits, zeroshot_logits)
        labels = checks.labels("labels", labels, len(logits), logits.shape[1])
        checks.same_device("labels", labels, "logits", logits)
        z = self._distance(logits, zeroshot_logits, scale)
        ranges.bounded("logits", logits)
        ranges.bounded("logits / logit_scale", z)
        constants = {name: float(getattr(self, name)) for name in ("alpha", "k", "lambda1", "lambda2")}
        for name, value in fit_contrast(logits, labels, z, constants, fit_lambda=fit_lambda).items():
            getattr(self, name).fill_(value)
        self.fitted.fill_(True)
        return self

    def _factor(
        self, logits: Tensor, prediction: Tensor, zeroshot_logits: Tensor, logit_scale: float | Tensor = 100.0
    ) -> Tensor:
        """``contrast_weight`` of each row."""
        name = f"cosine similarities times logit_scale={_shown(logit_scale)}"
        return self._weight("logits", name, self._distance(logits, zeroshot_logits, logit_scale))

    def _plain_weight(self, logits: Tensor, zeroshot_logits: Tensor, scale: float | Tensor) -> Tensor | None:
        """``_factor`` of plain arguments whose checks cost little; None where it is to be made, or refused, step by
        step."""
        if logits is None or zeroshot_logits is None or torch.compiler.is_compiling():
            return None
        if type(scale) is not float or not are_plain(logits, zeroshot_logits):
            return None
        if logits.shape != zeroshot_logits.shape or logits.ndim not in (1, 2) or not logits.numel():
            return None
        if logits.dtype not in _NARROW or zeroshot_logits.dtype not in _NARROW or not 1e-30 <= scale <= 1e20:
            return None
        one = logits.ndim == 1
        rows, zeroshot_rows = (logits[None], zeroshot_logits[None]) if one else (logits, zeroshot_logits)
        z = self._distance(rows, zeroshot_rows, scale)
        weight = reference.weight_of_distance(z, self.alpha, self.k, self.lambda1, self.lambda2)
        least, most = (float(x) for x in weight.aminmax())
        if not (_USUAL[0] <= least and most <= _USUAL[1]):  # as where there is NaN
            return None
        return weight[0] if one else weight

    @accepts_numpy
    def forward(self, logits: Tensor, zeroshot_logits: Tensor, logit_scale: float | Tensor = 100.0) -> Tensor:
        """Scaled logits, in the dtype and shape of ``logits``; each row's argmax stays where it is, so that the result
        tells which of the two models came first.

        Args:
            logits: (N, C), or (C,) of one image, similarities times ``logit_scale``, tuned; minus infinity where a
                class is masked: z is the mean over the others.
            zeroshot_logits: likewise, zero-shot; finite where ``logits`` are.
            logit_scale: tau, within [1e-30, 1e20].

        Raises:
            ValueError, and warns: as ``contrast_weight``; a product that is too large for the dtype.
        """
        if self.on == "similarity":
            found = scale_by_contrast(logits, zeroshot_logits, logit_scale, self._constants())
        else:
            weight = self._plain_weight(logits, zeroshot_logits, logit_scale)
            found = None if weight is None else scale_logits(logits, sample_weight=weight)
        if found is not None:
            return found
        return self._scaled(logits, zeroshot_logits, logit_scale)

    @accepts_numpy
    def predict_features(
        self,
        image_features: Tensor,
        text_features: Tensor,
        zeroshot_image_features: Tensor,
        zeroshot_text_features: Tensor,
        logit_scale: float | Tensor = 100.0,
        *,
        logit_bias: float | Tensor | None = None,
        normalize: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Calibrated confidence (N,) and prediction (N,) int64 from the features of both models, image (N, D)
        and text (C, D), without the N x C logits. Where only the prompt was tuned, the zero-shot image
        features are the image features. One image (D,), in both, gives 0-d results. ``logit_scale``
        lies in [1e-30, 1e20]."""
        features = image_features, text_features, zeroshot_image_features, zeroshot_text_features
        constants = self._constants()
        found = predict_by_contrast(features, logit_scale, logit_bias, constants, on=self.on, normalize=normalize)
        if found is not None:
            return found
        return self._predict(*features, logit_scale=logit_scale, logit_bias=logit_bias, normalize=normalize)

    def feature_weights(
        self, image_features: Tensor, text_features: Tensor, *zeroshot_features: Tensor, **options: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        z = ops.contrast_distance(image_features, text_features, *zeroshot_features, on=self.on, **options)
        return None, self._weight("image_features", "features on the unit sphere", z)

    def _constants(self) -> tuple[Tensor | None, ...]:
        held = self._buffers  # attributes of a module are slow
        return held["alpha"], held["k"], held["lambda1"], held["lambda2"]

    def _distance(self, logits: Tensor, zeroshot_logits: Tensor, scale: float | Tensor) -> Tensor:
        """z (N,), over the classes that are not masked."""
        if checks.values_visible(logits) and (not len(logits) or float(logits.detach().min()) > -torch.inf):
            return reference.distance_of_logits(logits, zeroshot_logits, on=self.on, logit_scale=scale)
        masked = logits == -torch.inf
        neither = -torch.inf if self.on == "probability" else 0.0
        tuned, zeroshot = (x.masked_fill(masked, neither) for x in (logits, zeroshot_logits))
        z = reference.distance_of_logits(tuned, zeroshot, on=self.on, logit_scale=scale)
        return z * (
            logits.shape[1] / (~masked).sum(dim=1).to(z.dtype)
        )  # the mean of all classes, into that of those left

    def _weight(self, name: str, should: str, z: Tensor) -> Tensor:
        weight = reference.weight_of_distance(z, self.alpha, self.k, self.lambda1, self.lambda2)
        known = torch.compiler.is_compiling() or bool(self.fitted)
        return _checked(name, should, weight, warn=not known)

    def extra_repr(self) -> str:
        names = ("alpha", "k", "lambda1", "lambda2")
        return ", ".join(f"{name}={float(getattr(self, name)):.4g}" for name in names) + f", on={self.on!r}"


def _check_constants(alpha: float, k: float, lambda1: float, lambda2: float) -> dict[str, float]:
    lambda1 = checks.number("lambda1", lambda1, low=0.0, high=ranges.LARGEST)
    return {
        "alpha": checks.number("alpha", alpha, low=_SMALLEST, high=1e6),  # its square is a factor
        "k": checks.number("k", k, low=0.0, high=ranges.LARGEST),
        "lambda1": lambda1,
        "lambda2": checks.number("lambda2", lambda2, low=lambda1, high=ranges.LARGEST),
    }


def _checked(name: str, should: str, weight: Tensor, *, warn: bool = True) -> Tensor:
    """``weight``, after the guard against vanishing weights and the warning about unusual ones."""
    if not checks.values_visible(weight) or not len(weight):
        return weight
    weights = weight.detach()
    median, vanishing = float(weights.median()), int((~(weights >= _SMALLEST)).sum())  # NaN too: z has no number
    if vanishing:
        raise ValueError(
            f"{name} must be {should}, got contrast weights below {_SMALLEST} (least "
            f"{float(weights.min()):.2g}) in {vanishing} of {len(weight)} rows: "
            "check the scale of both inputs, or lower k"
        )
    if warn and not _USUAL[0] <= median <= _USUAL[1]:
        warn_caller(
            f"the median contrast weight is {median:.1g}, outside {list(_USUAL)}: the constants may not suit "
            "this model; ContrastAwareCalibration.fit finds alpha and k on a labelled base split"
        )
    return weight


def _shown(scale: float | Tensor) -> str:
    return "a tensor" if torch.compiler.is_compiling() else f"{float(scale):g}"
