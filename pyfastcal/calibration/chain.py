"""Several logit-scaling calibrators as one: the product of their factors."""

from typing import Any

from torch import Tensor, nn

from .._numpy import accepts_numpy
from .logit_scaling import LogitScaling, check_logits, check_pair, check_scale, scale_logits


def chain(*calibrators: LogitScaling) -> "Chain":
    """One calibrator of several logit-scaling ones (temperature, DAC, CAC), each fitted on its own:
    ``chain(TemperatureScaling(), DistanceAwareCalibration())``."""
    return Chain(*calibrators)


class Chain(LogitScaling):
    """The product of the factors of logit-scaling calibrators.

    Every factor is taken from the logits that go in, so the order does not matter; no prediction changes.

    Args:
        calibrators: at least one ``LogitScaling``; they are fitted on their own, before or after.
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

    def factor(self, logits: Tensor, *zeroshot: Tensor | float) -> Tensor:
        """The product of the factors (N,) of each row of ``logits`` (N, C)."""
        factors = [c.factor(logits, *zeroshot) if c.contrasts else c.factor(logits) for c in self.calibrators]
        return _product(factors)

    @accepts_numpy
    def forward(
        self, logits: Tensor, zeroshot_logits: Tensor | None = None, logit_scale: float | Tensor = 100.0
    ) -> Tensor:
        """Scaled logits (N, C), in the dtype of ``logits``; each row's argmax stays where it is.

        Args:
            logits: (N, C), similarities times ``logit_scale``.
            zeroshot_logits: (N, C), of zero-shot CLIP, where ContrastAwareCalibration is in the chain.
        """
        check_logits("logits", logits)
        if not self.contrasts:
            return scale_logits(logits, self.factor(logits))
        self._need("zeroshot_logits", zeroshot_logits)
        check_pair("zeroshot_logits", zeroshot_logits, "logits", logits)
        scale = check_scale("logit_scale", logit_scale)
        return scale_logits(logits, self.factor(logits, zeroshot_logits, scale))

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
        N x C logits; the zero-shot features where ContrastAwareCalibration is in the chain."""
        features = image_features, text_features
        if self.contrasts:
            self._need("zeroshot_image_features", zeroshot_image_features)
            self._need("zeroshot_text_features", zeroshot_text_features)
            features += zeroshot_image_features, zeroshot_text_features
        return self._predict(*features, logit_scale=logit_scale, logit_bias=logit_bias, normalize=normalize)

    def feature_weights(self, *features: Tensor, **options: Any) -> tuple[Tensor | None, Tensor | None]:
        pairs = [c.feature_weights(*(features if c.contrasts else features[:2]), **options) for c in self.calibrators]
        per_class, per_image = ([w for w in weights if w is not None] for weights in zip(*pairs, strict=True))
        return (_product(per_class) if per_class else None), (_product(per_image) if per_image else None)

    def _need(self, name: str, x: Tensor | None) -> None:
        if x is None:
            raise ValueError(f"{name} must be given where ContrastAwareCalibration is in the chain, got None")


def _product(factors: list[Tensor]) -> Tensor:
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product
