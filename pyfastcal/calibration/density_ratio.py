"""Density-ratio calibration."""

import math

import torch
from torch import Tensor

from .. import ops
from ..arguments import checks, ranges
from ..arguments.arrays import accepts_numpy
from ..arguments.keywords import by_name
from .fit_buffers import FitBuffers
from .probability_map import check_probabilities, labelled_probabilities, share_rest


class DensityRatioCalibration(FitBuffers):
    """DEN: the chance that a prediction is right, by Bayes from the densities of (confidence, proximity) among right
    and among wrong predictions.

    ``p(right | z) = f1(z) N1 / (f1(z) N1 + f0(z) N0)`` for ``z = (confidence, proximity)``, where f1 and f0 are
    Gaussian product-kernel estimates over the N1 right and N0 wrong predictions of the fit, with a bandwidth of
    ``1.06 std N^(-1/6)`` along each axis (the normal reference, as statsmodels' ``KDEMultivariate``).

    Attributes:
        right, wrong: (N1, 2), (N0, 2), the points of the fit; bandwidth: (2, 2) float64, of the right ones in its first
            row; None before ``fit``.

    Source: "Proximity-Informed Calibration for Deep Neural Networks" (NeurIPS 2023, arXiv 2306.04590).
    """

    right: Tensor | None
    wrong: Tensor | None
    bandwidth: Tensor | None
    fit_buffers = ("right", "wrong", "bandwidth")

    @accepts_numpy
    @torch.no_grad()
    def fit(
        self, probs: Tensor, labels: Tensor, proximity: Tensor, *, ignore_index: int | None = None
    ) -> "DensityRatioCalibration":
        """Keep the points and choose the bandwidths.

        Args:
            probs: (N, C) probabilities, C >= 2; ``labels``: (N,) integers in [0, C).
            proximity: (N,) floating, within [-1e30, 1e30], see ``pyfastcal.proximity``.
            ignore_index: rows with this label are left out.

        Raises:
            ValueError: naming the argument; among others where there are no two right and two wrong predictions that
                differ in confidence and in proximity: no bandwidth of at least 1e-30 can be had of them.
        """
        labels, probs, proximity = labelled_probabilities(ignore_index, labels, probs, proximity)
        confidence, prediction = probs.max(dim=1)
        points = _points(confidence, proximity)
        is_right = prediction == labels
        self.right, self.wrong = points[is_right], points[~is_right]
        self.bandwidth = torch.stack([_normal_reference("right", self.right), _normal_reference("wrong", self.wrong)])
        return self

    @accepts_numpy
    def forward(self, probs: Tensor, proximity: Tensor) -> Tensor:
        """Calibrated probabilities (N, C), in the dtype of ``probs``: the predicted class has the chance that it is
        right, the others share the rest in proportion. So another class can come out on top where that chance is low;
        ``confidence`` keeps to the prediction. No gradient passes: the densities have none."""
        self._need_fit()
        check_probabilities("probs", probs)
        confidence, prediction = probs.detach().max(dim=1)
        return share_rest(probs.detach(), prediction, self.confidence(confidence, proximity=proximity))

    @by_name("proximity")
    @accepts_numpy
    def confidence(self, confidence: Tensor, proximity: Tensor) -> Tensor:
        """The chance (N,) that a prediction with this confidence (N,) and proximity (N,) is right, in the dtype of
        ``confidence`` (float32 at least); without a gradient. ``proximity`` by name: both may lie in [0, 1], and a swap
        would go unnoticed."""
        self._need_fit()
        checks.unit_interval("confidence", checks.floating("confidence", confidence, 1))
        points = _points(confidence, proximity)
        checks.same_device("confidence", points, "the fit", self.right)
        f1, f0 = (ops.log_density(points, x, h) for x, h in zip((self.right, self.wrong), self.bandwidth, strict=True))
        odds = math.log(len(self.right) / len(self.wrong)) + (f1 - f0)
        return (1 / (1 + (-odds).exp())).to(points.dtype)  # torch's sigmoid has other bits at the end of a tensor

    def _check_loaded(self, name: str, key: str, loaded: Tensor) -> None:
        if checks.matrix(key, loaded, rows=True).shape[1] != 2:
            raise ValueError(f"{key} must have 2 columns, got {checks.describe(loaded)}")
        if name == "bandwidth":
            ranges.factors(key, loaded)
        else:
            ranges.bounded(key, loaded)

    def extra_repr(self) -> str:
        return f"right={len(self.right)}, wrong={len(self.wrong)}" if self.is_fitted else ""


def _points(confidence: Tensor, proximity: Tensor) -> Tensor:
    """(N, 2), float32 at least."""
    checks.vector("proximity", proximity, len(confidence), "row")
    checks.same_device("proximity", proximity, "probs", confidence)
    ranges.bounded("proximity", proximity)  # so that squares of distances in bandwidths are finite
    wide = torch.promote_types(torch.promote_types(confidence.dtype, proximity.dtype), torch.float32)
    return torch.stack([confidence.to(wide), proximity.to(wide)], dim=1)


def _normal_reference(what: str, points: Tensor) -> Tensor:
    """``1.06 std n^(-1/6)`` of each column (2,), float64; the standard deviation is that of the points themselves."""
    spread = points.double().std(dim=0, correction=0) if len(points) else points.new_zeros(2, dtype=torch.float64)
    bandwidth = 1.06 * spread * max(1, len(points)) ** (-1 / 6)
    for axis, deviation, width in zip(("confidence", "proximity"), spread.tolist(), bandwidth.tolist(), strict=True):
        if not width >= ranges.SMALLEST:
            raise ValueError(
                f"probs must have at least two {what} predictions that differ in {axis}, got {len(points)} {what} "
                f"predictions with a standard deviation of {deviation:g}"
            )
    return bandwidth
