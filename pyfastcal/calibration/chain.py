"""Several logit-scaling calibrators as one: the product of their factors."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checks, ranges
from ..arguments.arrays import accepts_numpy
from ..arguments.warn import warn_caller
from .distance_aware import DistanceAwareCalibration
from .logit_scaling import LogitScaling
from .temperature import TemperatureScaling

_NEAR_ONE = (0.8, 1.25)  # the temperatures that hold little of what DAC's weights hold


def chain(*calibrators: LogitScaling) -> "Chain":
    """One calibrator of several logit-scaling ones (temperature, DAC, CAC), each fitted on its own:
    ``chain(TemperatureScaling(), DistanceAwareCalibration())``. See ``Chain`` for when not to."""
    return Chain(*calibrators)


class Chain(LogitScaling):
    """The product of the factors of logit-scaling calibrators.

    Every factor is taken from the logits that go in, so the order does not matter; no prediction changes. The product
    lies in [1e-30, 1e30], as each factor does, or it is an error.

    Temperature and DAC go together where the temperature fitted on base classes is near 1. Where tuning made the base
    classes over-confident as well, that temperature already holds what DAC's weights hold, and the product corrects new
    classes twice.

    Args:
        calibrators: at least one ``LogitScaling``; they are fitted on their own, before or after.

    Warns:
        UserWarning: in use, where a temperature outside [0.8, 1.25] meets weights of DAC that are not all 1.
    """

    def __init__(self, *calibrators: LogitScaling) -> None:
        super().__init__()
        if not calibrators:
            raise ValueError("calibrators must hold at least one logit-scaling calibrator, got none")
        for calibrator in calibrators:
            if not isinstance(calibrator, LogitScaling):
                raise ValueError(
                    "calibrators must scale logits (TemperatureScaling, DistanceAwareCalibration, "
                    f"ContrastAwareCalibration, chain), got {type(calibrator).__name__}"
                )
        self.calibrators = nn.ModuleList(calibrators)

    @property
    def contrasts(self) -> bool:  # type: ignore[override]
        return any(calibrator.contrasts for calibrator in self.calibrators)

    def select(self, indices: Tensor | Sequence[int] | Sequence[bool]) -> "Chain":
        """As of every calibrator: the chain of its members, narrowed."""
        narrowed = super().select(indices)
        narrowed.calibrators = nn.ModuleList(calibrator.select(indices) for calibrator in self.calibrators)
        return narrowed

    def _factor(self, logits: Tensor, prediction: Tensor, *contrast: Tensor | float) -> Tensor:
        """The product of the factors."""
        self._warn_of_correcting_twice()
        members = self.calibrators
        return _product([c._factor(logits, prediction, *(contrast if c.contrasts else ())) for c in members])

    @accepts_numpy
    def forward(
        self, logits: Tensor, zeroshot_logits: Tensor | None = None, logit_scale: float | Tensor = 100.0
    ) -> Tensor:
        """Scaled logits, in the dtype and shape of ``logits``; each row's argmax stays where it is.

        Args:
            logits: (N, C), or (C,) of one image, similarities times ``logit_scale``; minus infinity where a class is
                masked.
            zeroshot_logits: likewise, of zero-shot CLIP, where ContrastAwareCalibration is in the chain.
            logit_scale: tau, within [1e-30, 1e20]; only ContrastAwareCalibration asks for it.

        Raises:
            ValueError: as the members; a product of factors outside [1e-30, 1e30].
        """
        if not self.contrasts:
            return self._scaled(logits)
        self._need("zeroshot_logits", zeroshot_logits)
        return self._scaled(logits, zeroshot_logits, logit_scale)

    @accepts_numpy
    def predict_features(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor = 100.0,
        *,
        zeroshot_image_features: Tensor | None = None,
        zeroshot_text_features: Tensor | None = None,
        logit_bias: float | Tensor | None = None,
        normalize: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Calibrated confidence (N,) and prediction (N,) int64 from features, image (N, D) and text (C, D), without the
        N x C logits; the zero-shot features where ContrastAwareCalibration is in the chain. One image (D,) gives both
        0-d. ``logit_scale`` lies in [1e-30, 1e20]."""
        features = image_features, text_features
        if self.contrasts:
            self._need("zeroshot_image_features", zeroshot_image_features)
            self._need("zeroshot_text_features", zeroshot_text_features)
            features += zeroshot_image_features, zeroshot_text_features
        return self._predict(*features, logit_scale=logit_scale, logit_bias=logit_bias, normalize=normalize)

    def feature_weights(self, *features: Tensor, **options: Any) -> tuple[Tensor | None, Tensor | None]:
        self._warn_of_correcting_twice()
        pairs = [c.feature_weights(*(features if c.contrasts else features[:2]), **options) for c in self.calibrators]
        per_class, per_image = ([w for w in weights if w is not None] for weights in zip(*pairs, strict=True))
        return (_product(per_class) if per_class else None), (_product(per_image) if per_image else None)

    def _warn_of_correcting_twice(self) -> None:
        if torch.compiler.is_compiling():
            return
        members = [c for c in self.modules() if isinstance(c, (TemperatureScaling, DistanceAwareCalibration))]
        temperatures = [float(t) for t in _visible(c.temperature for c in members if hasattr(c, "temperature"))]
        weights = list(_visible(c.class_weight for c in members if hasattr(c, "class_weight")))
        far = [t for t in temperatures if not _NEAR_ONE[0] <= t <= _NEAR_ONE[1]]
        if far and any(bool((w != 1).any()) for w in weights):
            why = (
                "tuning made base classes over-confident too, and it may hold what DAC's weights hold once more"
                if far[0] > 1
                else "base classes were under-confident, and it may take back what DAC's weights give new ones"
            )
            warn_caller(
                f"the chain holds DAC and a temperature of {far[0]:.3g}, outside {list(_NEAR_ONE)}: {why}; "
                "compare with each of them alone"
            )

    def _need(self, name: str, x: Tensor | None) -> None:
        if x is None:
            raise ValueError(f"{name} must be given where ContrastAwareCalibration is in the chain, got None")


def _product(factors: list[Tensor]) -> Tensor:
    """In float64, so that no order of the members overflows; in the widest dtype of the factors."""
    if len(factors) == 1:
        return factors[0]
    wide = factors[0]
    for factor in factors[1:]:
        wide = wide.double() * factor.double()
    dtype = functools.reduce(torch.promote_types, (factor.dtype for factor in factors))
    return ranges.factors("the product of the factors", wide).to(dtype)


def _visible(buffers: Iterable[Tensor | None]) -> Iterator[Tensor]:
    return (b for b in buffers if b is not None and checks.values_visible(b))
