"""Distance-aware calibration: DAC."""

from typing import Any

import torch
from torch import Tensor

from ..arguments import checks, ranges
from ..arguments.arrays import accepts_numpy
from ..arguments.keywords import by_name
from ..ops.scale_logits import scale_logits
from .fit_buffers import FitBuffers
from .logit_scaling import LogitScaling
from .proximity import MOST_NEIGHBOURS, textual_deviation


class DistanceAwareCalibration(FitBuffers, LogitScaling):
    """DAC: scale a row's logits by the textual deviation of the class it predicts.

    Args:
        k: neighbours in the proximity to the base classes, at least 1.
        base_threshold: a class this close to a tuned base class is one, and keeps its logits; any finite number of at
            least 0.
        normalize: whether ``fit`` L2-normalises text features: see ``pyfastcal.textual_deviation``.

    Attributes:
        class_weight: gamma (C,), set by ``fit`` (within [exp(-2), exp(2)]) or ``load_state_dict`` (within
            [1e-30, 1e30]); None before.

    It lowers the confidence of classes that tuning moved away from the base classes, whether or not the model is
    over-confident on them: see docs/calibrators.md. The order of the classes must be the same in ``fit`` and in use;
    ``select`` gives the calibrator of some of them.

    Source: "Open-Vocabulary Calibration for Fine-tuned CLIP" (ICML 2024, arXiv 2402.04655), section 4.
    """

    class_weight: Tensor | None
    fit_buffers = ("class_weight",)

    def __init__(self, k: int = 5, base_threshold: float = 0.05, *, normalize: bool = True) -> None:
        super().__init__()
        self.k = checks.integer("k", k, 1, MOST_NEIGHBOURS)
        self.base_threshold = checks.number("base_threshold", base_threshold, low=0.0)
        self.normalize = normalize

    @property
    def class_buffers(self) -> tuple[str, ...]:
        return self.fit_buffers

    @by_name("tuned")
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
        image. All by name: swapped, tuned and zero-shot features would give wrong weights and no error."""
        self.class_weight = textual_deviation(
            tuned=tuned,
            zeroshot=zeroshot,
            base_tuned=base_tuned,
            base_zeroshot=base_zeroshot,
            k=self.k,
            base_threshold=self.base_threshold,
            normalize=self.normalize,
        )
        return self

    def forward(self, logits: Tensor) -> Tensor:
        """Scaled logits, in the dtype and shape of ``logits``; each row's argmax stays where it is.

        Args:
            logits: (N, C), or (C,) of one image; minus infinity where a class is masked.

        Raises:
            ValueError: ``logits`` are not of the classes that ``fit`` saw; NaN, plus infinity, a row with no class
                left; a product that is too large for the dtype.
        """
        scaled = scale_logits(logits, class_weight=self._buffers["class_weight"])  # attributes of a module are slow
        return self._scaled(logits) if scaled is None else scaled

    def feature_weights(
        self, image_features: Tensor, text_features: Tensor, **options: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        checks.matrix("text_features", text_features)
        return self._weight("text_features", len(text_features), text_features), None

    def _factor(self, logits: Tensor, prediction: Tensor) -> Tensor:
        """``class_weight[prediction]``."""
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
        ranges.factors(key, checks.floating(key, loaded, 1))

    def extra_repr(self) -> str:
        raw = "" if self.normalize else ", normalize=False"
        return f"k={self.k}, base_threshold={self.base_threshold}{raw}"
