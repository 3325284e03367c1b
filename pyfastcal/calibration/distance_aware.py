"""Distance-aware calibration: "Open-Vocabulary Calibration for Fine-tuned CLIP", ICML 2024, arXiv
2402.04655."""

from typing import Any

import torch
from torch import Tensor

from .. import checks
from .._numpy import accepts_numpy
from ..proximity import textual_deviation
from .fit_buffers import FitBuffers
from .logit_scaling import LogitScaling, check_logits, scale_logits


class DistanceAwareCalibration(FitBuffers, LogitScaling):
    """DAC: scale a row's logits by the textual deviation of the class it predicts.

    Args:
        k: neighbours in the proximity to the base classes.
        base_threshold: a class this close to a tuned base class is one, and keeps its logits.
        normalize: whether ``fit`` L2-normalises text features: see ``pyfastcal.textual_deviation``.

    Attributes:
        class_weight: gamma (C,), set by ``fit`` or ``load_state_dict``; None before.

    The order of the classes must be the same in ``fit`` and in use.
    """

    class_weight: Tensor | None
    fit_buffers = ("class_weight",)

    def __init__(self, k: int = 5, base_threshold: float = 0.05, *, normalize: bool = True) -> None:
        super().__init__()
        self.k = checks.integer("k", k, 1)
        self.base_threshold = checks.number("base_threshold", base_threshold, low=0.0)
        self.normalize = normalize

    @accepts_numpy
    @torch.no_grad()
    def fit(
        self,
        tuned: Tensor,
        zeroshot: Tensor,
        base_tuned: Tensor | None = None,
        base_zeroshot: Tensor | None = None,
    ) -> "DistanceAwareCalibration":
        """Compute ``class_weight`` from text features: see ``pyfastcal.textual_deviation``. Needs no
        image."""
        self.class_weight = textual_deviation(
            tuned,
            zeroshot,
            base_tuned,
            base_zeroshot,
            k=self.k,
            base_threshold=self.base_threshold,
            normalize=self.normalize,
        )
        return self

    def factor(self, logits: Tensor) -> Tensor:
        """``class_weight[argmax]`` (N,) of each row of ``logits`` (N, C)."""
        return self._factor(logits, logits.argmax(dim=1))

    @accepts_numpy
    def forward(self, logits: Tensor) -> Tensor:
        """Scaled logits (N, C), in the dtype of ``logits``; each row's argmax stays where it is.

        Raises:
            ValueError: ``logits`` is not a finite (N, C) matrix of the classes that ``fit`` saw.
        """
        check_logits("logits", logits)
        prediction = logits.argmax(dim=1)
        return scale_logits(logits, self._factor(logits, prediction), prediction)

    def feature_weights(
        self, image_features: Tensor, text_features: Tensor, **options: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        checks.matrix("text_features", text_features)
        return self._weight("text_features", len(text_features), text_features), None

    def _factor(self, logits: Tensor, prediction: Tensor) -> Tensor:
        return self._weight("logits", logits.shape[1], logits)[prediction]

    def _weight(self, name: str, n_classes: int, like: Tensor) -> Tensor:
        self._need_fit()
        if n_classes != len(self.class_weight):
            raise ValueError(
                f"{name} must have the {len(self.class_weight)} classes of the fit, "
                f"got {n_classes}: {checks.describe(like)}"
            )
        checks.same_device(name, like, "class_weight", self.class_weight)
        return self.class_weight

    def _check_loaded(self, name: str, key: str, loaded: Tensor) -> None:
        checks.positive(key, checks.floating(key, loaded, 1))

    def extra_repr(self) -> str:
        raw = "" if self.normalize else ", normalize=False"
        return f"k={self.k}, base_threshold={self.base_threshold}{raw}"
