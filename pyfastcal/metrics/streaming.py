"""The metrics as ``torchmetrics.Metric`` classes: updated batch by batch, in memory of fixed size.

The state is one int64 tensor of sums (``_layout``): the same bits for any split, order, number of threads or ranks;
ranks are joined by one all-reduce. Metrics that count alike share a state in a ``MetricCollection``.

``update`` takes NumPy arrays too. With ``validate=False`` it checks types, shapes and devices but looks at no number;
nor does it on a GPU, where that would stall. A confidence outside [0, 1] then makes ``compute`` raise.

Whatever is cast (``half``, ``to``, ``set_dtype``), the state stays int64. One that is loaded or set is refused unless
rows can have it.
"""

from typing import Any

import torch
from torch import Tensor

from ..arguments import checks
from . import accumulator
from .calibration_error import NORMS
from .cells import debiased_error, expected_error, maximum_error
from .classwise import ClasswiseCalibrationError as ClasswiseCalibrationError  # one of them
from .layout import Layout
from .stateful import TopLabel, TopLabelNear


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
        ignore_index: rows with this label are left out of every update, as if they had not been given.
        validate: look at the numbers of every update; types, shapes and devices are always checked.
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
        ignore_index: int | None = None,
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        layout = Layout(n_bins, closed, fine=True, n_proximity_bins=n_proximity_bins)
        super().__init__(layout, ignore_index, validate, **kwargs)

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
        ignore_index: rows with this label are left out of every update, as if they had not been given.
        validate: look at the numbers of every update; types, shapes and devices are always checked.
        kwargs: options of ``torchmetrics.Metric``.
    """

    def __init__(
        self,
        n_bins: int = 10,
        *,
        norm: str = "l1",
        closed: str = "left",
        ignore_index: int | None = None,
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(Layout(n_bins, closed), ignore_index, validate, **kwargs)
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
        ignore_index: int | None = None,
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(Layout(n_bins, closed), ignore_index, validate, **kwargs)
        self.weighted = weighted

    def compute(self) -> Tensor:
        return maximum_error(self._read().bins, self.weighted).to(self.state.device)


class EqualWidth(TopLabel):
    """A metric of equal-width bins that has no choices but theirs."""

    def __init__(
        self,
        n_bins: int = 10,
        *,
        closed: str = "left",
        ignore_index: int | None = None,
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(Layout(n_bins, closed), ignore_index, validate, **kwargs)


class DebiasedCalibrationError(EqualWidth):
    """The debiased l2 error, as ``metrics.debiased_ece``, to the bit."""

    def compute(self) -> Tensor:
        return debiased_error(self._read().bins).to(self.state.device)


class SignedGaps(EqualWidth):
    """Mean confidence minus accuracy per bin, (n_bins,), as ``metrics.signed_gaps``: positive where over-confident,
    NaN where empty."""

    plot_lower_bound = -1.0

    def compute(self) -> Tensor:
        return self._read().bins.gap.to(self.state.device)


class AdaptiveCalibrationError(TopLabel):
    """ACE, as ``metrics.adaptive_calibration_error``, of equal-mass bins whose boundaries keep fine cells of
    confidence whole. ``error_bound`` says how far that may be from the exact value."""

    def __init__(
        self, n_bins: int = 10, *, ignore_index: int | None = None, validate: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(Layout(n_bins, fine=True), ignore_index, validate, **kwargs)

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
        ignore_index: int | None = None,
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        n_proximity_bins = checks.integer("n_proximity_bins", n_proximity_bins, 1)
        super().__init__(Layout(n_bins, closed, n_proximity_bins=n_proximity_bins), ignore_index, validate, **kwargs)

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


def _largest_distance(value: Tensor, interval: tuple[float, float]) -> float:
    low, high = interval
    return max(float(value) - low, high - float(value))
