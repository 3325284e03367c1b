"""Isotonic regression, and its form for many classes."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..arguments import checks
from ..installation.extras import require
from .probability_map import ONE_VS_REST, PER_CLASS, SHARED, TOP_LABEL, ProbabilityMap

_BEYOND = 2.0  # where the knots that fill up a row lie: past every probability
_FAITHFUL = 1e-9  # of the uncalibrated probability, added to the calibrated one: what ties keeps its order


class IsotonicRegression(ProbabilityMap):
    """IR: the monotone map of least squares from probability to the chance of the class (or, for the top label, of
    being right); linear between its knots, constant beyond them. Fitted by scikit-learn to the probabilities' ranks, so
    that even the closest are told apart.

    Args:
        strategy: ``"one_vs_rest"`` or ``"top_label"``: see ``ProbabilityMap``. Both can change predictions.

    Attributes:
        x, y: (C, K) float64, the knots of each map, one row for the top label; None before ``fit``. Maps with fewer
            than K knots are filled up with knots at x = 2.

    Source: "Transforming classifier scores into accurate multiclass probability estimates" (Zadrozny and Elkan,
    KDD 2002).
    """

    x: Tensor | None
    y: Tensor | None
    fit_buffers = ("x", "y")
    strategies = (TOP_LABEL, ONE_VS_REST)

    def __init__(self, strategy: str = ONE_VS_REST) -> None:
        super().__init__(strategy)

    def _fit_maps(self, values: Tensor, is_label: Tensor) -> None:
        isotonic = require("sklearn.isotonic", "isotonic")
        columns = zip(values.T.double().cpu(), is_label.T.double().cpu(), strict=True)
        knots = []
        for value, hit in columns:
            # Of ranks: scikit-learn takes numbers for equal that differ by less than 1e-15 (float32: 1e-6).
            distinct, rank = value.unique(return_inverse=True)
            fitted = isotonic.IsotonicRegression().fit(rank.double().numpy(), hit.numpy())
            kept = torch.from_numpy(fitted.X_thresholds_).long()
            knots.append((distinct[kept], torch.from_numpy(fitted.y_thresholds_)))
        most = 1 + max(len(x) for x, _ in knots)
        self.x, self.y = (
            torch.stack([fill(k, most) for k in column]).to(values.device, torch.float64)
            for fill, column in zip((_fill_x, _fill_y), zip(*knots, strict=True), strict=True)
        )

    def _map(self, values: Tensor) -> Tensor:
        one = len(self.x) == 1
        values = values.double().reshape(1, -1) if one else values.T.double().contiguous()
        right = torch.searchsorted(self.x, values, right=True).clamp(1, self.x.shape[1] - 1)
        x0, x1, y0, y1 = (k.gather(1, i) for k in (self.x, self.y) for i in (right - 1, right))
        mapped = y0 + ((values - x0) / (x1 - x0)).clamp(0, 1) * (y1 - y0)
        return mapped.view(-1, 1) if one else mapped.T.contiguous()  # the order of a row's sum depends on its strides

    def _check_loaded(self, name: str, key: str, loaded: Tensor) -> None:
        checks.finite(key, checks.floating(key, loaded, 2))


class MultiIsotonicRegression(IsotonicRegression):
    """MIR: isotonic regression of the probabilities of all classes together. A billionth of the uncalibrated
    probability is added, as published, so that the map is strictly monotone.

    Args:
        strategy: ``"shared"``: one map for the probabilities of all classes, which changes no prediction and applies to
            any classes; ``"per_class"``: one map each, which can change predictions.

    Source: "Mix-n-Match" (ICML 2020, arXiv 2003.07329).
    """

    strategies = (SHARED, PER_CLASS)

    def __init__(self, strategy: str = SHARED) -> None:
        super().__init__(strategy)

    def _normalise(self, mapped: Tensor, probs: Tensor) -> Tensor:
        mapped = mapped + _FAITHFUL * probs.double()
        out = (mapped / mapped.sum(dim=1, keepdim=True)).to(probs.dtype)
        if self.strategy == PER_CLASS:
            return out
        # rounding to the dtype of the input can make the prediction equal to another class: lift it above
        prediction = probs.argmax(dim=1, keepdim=True)
        top = out.gather(1, prediction)
        kept = out.argmax(dim=1, keepdim=True) == prediction
        return out.scatter(1, prediction, torch.where(kept, top, top + top * torch.finfo(out.dtype).eps))


def _fill_x(x: Tensor, size: int) -> Tensor:
    return pad(x, (0, size - len(x)), value=_BEYOND)


def _fill_y(y: Tensor, size: int) -> Tensor:
    return torch.cat([y, y[-1:].expand(size - len(y))])
