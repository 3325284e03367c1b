"""Contrast-aware calibration: "Contrast-Aware Calibration for Fine-Tuned CLIP" (arXiv 2501.19060v3)."""

import warnings
from typing import Any

import torch
from torch import Tensor

from .. import checks, ops, reference
from .._numpy import accepts_numpy
from .contrast_fit import fit_contrast
from .logit_scaling import LogitScaling, check_logits, check_pair, check_scale, scale_logits

_READINGS = ("similarity", "probability")
_SMALLEST = 1e-3  # a weight below it wipes out all confidence: the inputs were on another scale
_USUAL = (0.5, 1.5)


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

    ``z_i = mean_c |p[i, c] - p0[i, c]|``, ``gamma = alpha exp(-k z)``, and gamma squared where it lies
    outside [``lambda1``, ``lambda2``].

    Args:
        similarity: cosine similarities (N, C) of the tuned model, before the logit scale;
            ``zeroshot_similarity``: (N, C), of zero-shot CLIP for the same classes.
        on: what p is. ``"similarity"``: the cosine similarities, the reading that fits the paper's own
            tables; ``"probability"``: the softmax of ``logit_scale`` times them, the other reading its
            wording allows.

    Returns:
        (N,), float32 (float64 for float64 similarities).

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
    scale = check_scale("logit_scale", logit_scale)
    weight = reference.contrast_weight(similarity, zeroshot_similarity, **constants, on=on, logit_scale=scale)
    return _checked("similarity", "cosine similarities, before the logit scale", weight)


class ContrastAwareCalibration(LogitScaling):
    """CAC: scale a row's logits by how far tuning moved its scores from zero-shot CLIP. Needs no fitting.

    Args:
        alpha, k, lambda1, lambda2: constants of ``contrast_weight``. The defaults are the middle of the
            paper's ablations on ViT-B/16. They depend on the geometry of the features and on the number of
            classes; for another model ``fit`` finds alpha and k.
        on: ``"similarity"`` or ``"probability"``: see ``contrast_weight``.

    The constants are buffers, so that a state dict carries them; ``fitted`` says whether ``fit`` set them.
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
    ) -> "ContrastAwareCalibration":
        """Choose alpha and k (with ``fit_lambda`` lambda1 and lambda2 too) for the least negative
        log-likelihood on a labelled split of the base classes.

        Args:
            logits: (N, C), similarities times ``logit_scale``, tuned; ``zeroshot_logits``: (N, C), zero-shot.
            labels: (N,) integers in [0, C).

        The paper gives no procedure; on the split it is given, the result is never worse than the constants
        the module holds or than leaving the logits as they are.
        """
        scale = self._check("logits", logits, zeroshot_logits, logit_scale)
        checks.not_empty("logits", logits)
        labels = checks.labels("labels", labels, len(logits), logits.shape[1])
        checks.same_device("labels", labels, "logits", logits)
        z = self._distance(logits, zeroshot_logits, scale)
        constants = {name: float(getattr(self, name)) for name in ("alpha", "k", "lambda1", "lambda2")}
        for name, value in fit_contrast(logits, labels, z, constants, fit_lambda=fit_lambda).items():
            getattr(self, name).fill_(value)
        self.fitted.fill_(True)
        return self

    def factor(self, logits: Tensor, zeroshot_logits: Tensor, logit_scale: float | Tensor = 100.0) -> Tensor:
        """The weight (N,) of each row of ``logits`` (N, C)."""
        name = f"cosine similarities times logit_scale={_shown(logit_scale)}"
        return self._weight("logits", name, self._distance(logits, zeroshot_logits, logit_scale))

    @accepts_numpy
    def forward(self, logits: Tensor, zeroshot_logits: Tensor, logit_scale: float | Tensor = 100.0) -> Tensor:
        """Scaled logits (N, C), in the dtype of ``logits``; each row's argmax stays where it is.

        Args:
            logits: (N, C), similarities times ``logit_scale``, tuned; ``zeroshot_logits``: (N, C), zero-shot.

        Raises:
            ValueError, and warns: as ``contrast_weight``.
        """
        scale = self._check("logits", logits, zeroshot_logits, logit_scale)
        return scale_logits(logits, self.factor(logits, zeroshot_logits, scale))

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
        features are the image features."""
        features = image_features, text_features, zeroshot_image_features, zeroshot_text_features
        return self._predict(*features, logit_scale=logit_scale, logit_bias=logit_bias, normalize=normalize)

    def feature_weights(
        self, image_features: Tensor, text_features: Tensor, *zeroshot_features: Tensor, **options: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        z = ops.contrast_distance(image_features, text_features, *zeroshot_features, on=self.on, **options)
        return None, self._weight("image_features", "features on the unit sphere", z)

    def _check(self, name: str, logits: Tensor, zeroshot_logits: Tensor, logit_scale: float | Tensor) -> float | Tensor:
        check_logits(name, logits)
        check_pair(f"zeroshot_{name}", zeroshot_logits, name, logits)
        return check_scale("logit_scale", logit_scale)

    def _distance(self, logits: Tensor, zeroshot_logits: Tensor, scale: float | Tensor) -> Tensor:
        return reference.distance_of_logits(logits, zeroshot_logits, on=self.on, logit_scale=scale)

    def _weight(self, name: str, should: str, z: Tensor) -> Tensor:
        weight = reference.weight_of_distance(z, self.alpha, self.k, self.lambda1, self.lambda2)
        known = torch.compiler.is_compiling() or bool(self.fitted)
        return _checked(name, should, weight, warn=not known)

    def extra_repr(self) -> str:
        names = ("alpha", "k", "lambda1", "lambda2")
        return ", ".join(f"{name}={float(getattr(self, name)):.4g}" for name in names) + f", on={self.on!r}"


def _check_constants(alpha: float, k: float, lambda1: float, lambda2: float) -> dict[str, float]:
    lambda1 = checks.number("lambda1", lambda1, low=0.0)
    return {
        "alpha": checks.number("alpha", alpha, low=0.0, strict=True),
        "k": checks.number("k", k, low=0.0),
        "lambda1": lambda1,
        "lambda2": checks.number("lambda2", lambda2, low=lambda1),
    }


def _checked(name: str, should: str, weight: Tensor, *, warn: bool = True) -> Tensor:
    """``weight``, after the guard against vanishing weights and the warning about unusual ones."""
    if not checks.values_visible(weight) or not len(weight):
        return weight
    median, vanishing = float(weight.median()), int((weight < _SMALLEST).sum())
    if vanishing:
        raise ValueError(
            f"{name} must be {should}, got contrast weights below {_SMALLEST} (least "
            f"{float(weight.min()):.2g}) in {vanishing} of {len(weight)} rows: "
            "check the scale of both inputs, or lower k"
        )
    if warn and not _USUAL[0] <= median <= _USUAL[1]:
        warnings.warn(
            f"the median contrast weight is {median:.1g}, outside {list(_USUAL)}: the constants may not suit "
            "this model; ContrastAwareCalibration.fit finds alpha and k on a labelled base split",
            stacklevel=4,
        )
    return weight


def _shown(scale: float | Tensor) -> str:
    return "a tensor" if torch.compiler.is_compiling() else f"{float(scale):g}"
