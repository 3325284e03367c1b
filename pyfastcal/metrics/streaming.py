"""The metrics as ``torchmetrics.Metric`` classes: updated batch by batch, in memory of fixed size.

The state is one int64 tensor of sums (``_layout``): the same bits for any split, order, number of threads or ranks;
ranks are joined by one all-reduce. Metrics that count alike share a state in a ``MetricCollection``.

``update`` takes NumPy arrays too. With ``validate=False`` it checks no argument; nor does it look at values on a GPU,
where that would stall. A confidence outside [0, 1] then makes ``compute`` raise.
"""

from typing import Any

import torch
from torch import Tensor

from .. import checks
from .._numpy import accepts_numpy
from . import _limbs, accumulator
from ._cells import (
    Cells,
    absolute_excess,
    add_classes,
    debiased_error,
    expected_error,
    maximum_error,
)
from ._layout import Layout
from ._stateful import Sums, TopLabel, TopLabelNear
from .calibration_error import NORMS


class CalibrationMetrics(TopLabelNear):
    """Everything in one pass: a dictionary of ``accuracy``, mean ``confidence``, ``ece``, ``ace``, ``mce``,
    ``mce_weighted`` and ``piece``, each 0-d float64.

    ECE, MCE, accuracy and confidence are the values of the functional forms, to the bit. ACE and PIECE are those of
    equal-mass bins whose boundaries keep fine cells whole: ``error_intervals`` gives the numbers between which the
    exact values lie, ``metrics.stored_stream`` the exact values in further passes. PIECE is NaN unless all rows came
    with their proximity.

    Args:
        n_bins: equal-width bins of ECE, MCE and PIECE, and equal-mass bins of ACE.
        n_proximity_bins: equal-mass groups of PIECE; None leaves it out and makes the state three times smaller.
        closed: ``"left"``: bins [l, u), the last one closed; ``"right"``: (l, u], the first one closed.
        validate: check the arguments of every update.
        kwargs: options of ``torchmetrics.Metric``.

    Example::

        metrics = fc.CalibrationMetrics()
        for images, labels in loader:
            confidence, prediction = dac.predict_features(encode(images), text_features, logit_scale)
            metrics.update(confidence, prediction, labels)
        metrics.compute()["ece"]
    """

    def __init__(
        self,
        n_bins: int = 10,
        *,
        n_proximity_bins: int | None = 10,
        closed: str = "left",
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        layout = Layout(n_bins, closed, fine=True, n_proximity_bins=n_proximity_bins)
        super().__init__(layout, validate, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        values = accumulator.summary(self._layout, self._read())
        return {name: value.to(self.state.device) for name, value in values.items()}

    def error_intervals(self) -> dict[str, tuple[float, float]]:
        """``ace`` and ``piece`` (where there is one): numbers between which the exact value is proven to lie. Where
        ranks are joined, all must call it."""
        return accumulator.intervals(self._layout, self._read_synced())


class CalibrationError(TopLabel):
    """ECE, as ``metrics.expected_calibration_error``, to the bit.

    Args:
        n_bins: equal-width bins.
        norm: ``"l1"``: ``sum_b n_b/N |acc_b - conf_b|``; ``"l2"``: the root of the weighted mean square; ``"max"``.
        closed: ``"left"``: bins [l, u), the last one closed; ``"right"``: (l, u], the first one closed.
        validate: check the arguments of every update.
        kwargs: options of ``torchmetrics.Metric``.
    """

    def __init__(
        self, n_bins: int = 10, *, norm: str = "l1", closed: str = "left", validate: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(Layout(n_bins, closed), validate, **kwargs)
        self.norm = checks.choice("norm", norm, NORMS)

    def compute(self) -> Tensor:
        return expected_error(self._read().bins, self.norm).to(self.state.device)


class MaximumCalibrationError(TopLabel):
    """MCE, as ``metrics.maximum_calibration_error``, to the bit; ``weighted``: ``max_b n_b/N |acc_b - conf_b|``."""

    def __init__(
        self,
        n_bins: int = 10,
        *,
        weighted: bool = False,
        closed: str = "left",
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(Layout(n_bins, closed), validate, **kwargs)
        self.weighted = weighted

    def compute(self) -> Tensor:
        return maximum_error(self._read().bins, self.weighted).to(self.state.device)


class DebiasedCalibrationError(TopLabel):
    """The debiased l2 error, as ``metrics.debiased_ece``, to the bit."""

    def __init__(self, n_bins: int = 10, *, closed: str = "left", validate: bool = True, **kwargs: Any) -> None:
        super().__init__(Layout(n_bins, closed), validate, **kwargs)

    def compute(self) -> Tensor:
        return debiased_error(self._read().bins).to(self.state.device)


class SignedGaps(TopLabel):
    """Mean confidence minus accuracy per bin, (n_bins,), as ``metrics.signed_gaps``: positive where over-confident,
    NaN where empty."""

    plot_lower_bound = -1.0

    def __init__(self, n_bins: int = 10, *, closed: str = "left", validate: bool = True, **kwargs: Any) -> None:
        super().__init__(Layout(n_bins, closed), validate, **kwargs)

    def compute(self) -> Tensor:
        return self._read().bins.gap.to(self.state.device)


class AdaptiveCalibrationError(TopLabel):
    """ACE, as ``metrics.adaptive_calibration_error``, of equal-mass bins whose boundaries keep fine cells of
    confidence whole. ``error_bound`` says how far that may be from the exact value."""

    def __init__(self, n_bins: int = 10, *, validate: bool = True, **kwargs: Any) -> None:
        super().__init__(Layout(n_bins, fine=True), validate, **kwargs)

    def compute(self) -> Tensor:
        return accumulator.adaptive_error(self._layout, self._read()).to(self.state.device)

    def error_interval(self) -> tuple[float, float]:
        """Numbers between which the exact value is proven to lie. Where ranks are joined, all must call it."""
        return accumulator.intervals(self._layout, self._read_synced())["ace"]

    def error_bound(self) -> float:
        """``|streamed - exact|`` is no larger."""
        counts = self._read_synced()
        return _largest_distance(
            accumulator.adaptive_error(self._layout, counts), accumulator.intervals(self._layout, counts)["ace"]
        )


class ProximityInformedECE(TopLabelNear):
    """PIECE, as ``metrics.proximity_informed_ece``, of equal-mass groups whose boundaries keep fine cells of proximity
    whole. ``error_bound`` says how far that may be from the exact value. NaN unless all rows came with their
    proximity."""

    def __init__(
        self,
        n_bins: int = 10,
        n_proximity_bins: int = 10,
        *,
        closed: str = "left",
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        n_proximity_bins = checks.integer("n_proximity_bins", n_proximity_bins, 1)
        super().__init__(Layout(n_bins, closed, n_proximity_bins=n_proximity_bins), validate, **kwargs)

    def compute(self) -> Tensor:
        return accumulator.proximity_informed_error(self._layout, self._read()).to(self.state.device)

    def error_interval(self) -> tuple[float, float]:
        """Numbers between which the exact value is proven to lie, NaN if a row had no proximity. Where ranks are
        joined, all must call it."""
        return accumulator.intervals(self._layout, self._read_synced()).get("piece", (torch.nan, torch.nan))

    def error_bound(self) -> float:
        """``|streamed - exact|`` is no larger; NaN if a row had no proximity."""
        counts = self._read_synced()
        interval = accumulator.intervals(self._layout, counts).get("piece", (torch.nan, torch.nan))
        return _largest_distance(accumulator.proximity_informed_error(self._layout, counts), interval)


class ClasswiseCalibrationError(Sums):
    """``mean_c ECE(probs[:, c], labels == c)``, as ``metrics.classwise_ece``, to the bit.

    Args:
        n_classes: number C of columns of ``probs``.
        n_bins: equal-width bins of every class.
        average: False gives the error of each class, (C,).
        closed, validate, kwargs: as in ``CalibrationError``.
    """

    def __init__(
        self,
        n_classes: int,
        n_bins: int = 10,
        *,
        average: bool = True,
        closed: str = "left",
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        n_classes = checks.integer("n_classes", n_classes, 1)
        n_bins = checks.integer("n_bins", n_bins, 1)
        closed = checks.choice("closed", closed, ("left", "right"))
        name = f"counts_classwise_{closed}_{n_classes}_{n_bins}"
        super().__init__(name, 1 + 4 * n_classes * n_bins, validate, **kwargs)
        self.n_classes, self.n_bins, self.closed, self.average = n_classes, n_bins, closed, average

    @accepts_numpy
    def update(self, probs: Tensor, labels: Tensor) -> None:
        """Add rows: ``probs`` (N, C) floating in [0, 1], which need not sum to 1; ``labels`` (N,) integers in
        [0, C)."""
        if self.validate:
            labels = _checked_labels(probs, labels, self.n_classes)
            if probs.device != self.state.device:
                raise ValueError(f"probs must be on {self.state.device} as the counts are, got {probs.device}")
        state = self._writable()
        add_classes(state[1:].view(4, -1), probs, labels, self.n_bins, self.closed, validate=self.validate)
        state[:1] += len(probs)

    def compute(self) -> Tensor:
        state = self.state.cpu()
        rows, cells = int(state[0]), Cells.of(state[1:].view(4, -1))
        if lost := rows * self.n_classes - int(cells.total):
            raise ValueError(f"probs must lie in [0, 1], got {lost} that did not")
        if self.average:
            error = absolute_excess(cells) / cells.total
        else:
            error = cells.excess.abs().view(self.n_classes, -1).sum(1) / rows
        return error.to(self.state.device)

    def plot(self, val: Any = None, ax: Any = None) -> tuple[Any, Any]:
        """torchmetrics' plot of ``val``, or of the value so far."""
        return self._plot(val, ax)

    def _carry(self) -> None:
        table = self.state[1:].view(4, -1)
        _limbs.carry(table[_limbs.WHOLE], table[_limbs.LOW])


def _checked_labels(probs: Any, labels: Any, n_classes: int) -> Tensor:
    """``labels``, and ``probs`` is as it should be but for its values, at which the kernel looks."""
    if checks.matrix("probs", probs).shape[1] != n_classes:
        raise ValueError(f"probs must have {n_classes} columns, one per class, got {checks.describe(probs)}")
    labels = checks.labels("labels", labels, len(probs), n_classes)
    checks.same_device("labels", labels, "probs", probs)
    return labels


def _largest_distance(value: Tensor, interval: tuple[float, float]) -> float:
    low, high = interval
    return max(float(value) - low, high - float(value))
