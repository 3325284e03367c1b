"""Bin-mean-shift: a calibrator of its own in each group of proximity."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..arguments import checks
from ..arguments.arrays import accepts_numpy
from ..reference import equal_mass_starts
from .fit_buffers import FitBuffers
from .probability_map import ProbabilityMap, check_probabilities, labelled_probabilities

_MOST_GROUPS = 10_000  # each has a calibrator of its own


class BinMeanShift(FitBuffers):
    """BMS: a bin-based calibrator of its own in each of some equally filled groups of proximity.

    Args:
        calibrator: ``HistogramBinning``, ``IsotonicRegression`` or ``MultiIsotonicRegression``, of which copies are
            fitted.
        n_proximity_bins: number of groups, 1 to 10,000, drawn as in ``metrics.proximity_informed_ece``: equal
            proximities stay together.

    Attributes:
        starts: (n_proximity_bins - 1,) float64, where the second, third ... group begins, minus infinity where ties
            left the ones before it empty; None before ``fit``.
        calibrators: one per group; that of a group which ties left empty stays without a fit, and nothing ever
            falls in it.

    Predictions change where those of the calibrator do.

    Source: "Proximity-Informed Calibration for Deep Neural Networks" (NeurIPS 2023, arXiv 2306.04590).
    """

    starts: Tensor | None
    fit_buffers = ("starts",)

    def __init__(self, calibrator: ProbabilityMap, n_proximity_bins: int = 5) -> None:
        super().__init__()
        if not isinstance(calibrator, ProbabilityMap):
            raise ValueError(
                "calibrator must be a HistogramBinning, IsotonicRegression or MultiIsotonicRegression, "
                f"got {checks.describe(calibrator)}"
            )
        self.n_proximity_bins = checks.integer("n_proximity_bins", n_proximity_bins, 1, _MOST_GROUPS)
        self.calibrators = nn.ModuleList(copy.deepcopy(calibrator) for _ in range(self.n_proximity_bins))

    @property
    def knows_only_its_classes(self) -> bool:
        return self.calibrators[0].knows_only_its_classes

    @accepts_numpy
    @torch.no_grad()
    def fit(
        self, probs: Tensor, labels: Tensor, proximity: Tensor, *, ignore_index: int | None = None
    ) -> "BinMeanShift":
        """Draw the groups and fit a calibrator in each.

        Args:
            probs: (N, C) probabilities, C >= 2; ``labels``: (N,) integers in [0, C).
            proximity: (N,) floating and finite, see ``pyfastcal.proximity``.
            ignore_index: rows with this label are left out.
        """
        labels, probs, proximity = labelled_probabilities(ignore_index, labels, probs, proximity)
        _check_proximity(proximity, probs)
        starts = equal_mass_starts(proximity, self.n_proximity_bins)
        self.starts = starts.masked_fill(starts <= proximity.min(), -torch.inf)  # lower proximities come to it too
        group = self._group(proximity)
        for g, calibrator in enumerate(self.calibrators):
            rows = group == g
            if bool(rows.any()):
                calibrator.fit(probs[rows], labels[rows])
        return self

    @accepts_numpy
    def forward(self, probs: Tensor, proximity: Tensor) -> Tensor:
        """Calibrated probabilities (N, C), in the dtype of ``probs``, by the calibrator of each row's group."""
        self._need_fit()
        check_probabilities("probs", probs)
        _check_proximity(proximity, probs)
        group = self._group(proximity)
        out = torch.empty_like(probs)
        for g, calibrator in enumerate(self.calibrators):
            rows = group == g
            if bool(rows.any()):
                out[rows] = calibrator(probs[rows])
        return out

    def select(self, indices: Tensor | Sequence[int] | Sequence[bool]) -> "BinMeanShift":
        """As of every calibrator, by the calibrators of the groups; one without a fit stays without."""
        if self.knows_only_its_classes:
            self._need_fit()
        narrowed = super().select(indices)
        members = (c.select(indices) if c.is_fitted else c for c in narrowed.calibrators)
        narrowed.calibrators = nn.ModuleList(members)
        return narrowed

    def _group(self, proximity: Tensor) -> Tensor:
        return torch.bucketize(proximity.double().contiguous(), self.starts, right=True)

    def _check_loaded(self, name: str, key: str, loaded: Tensor) -> None:
        checks.vector(key, loaded, self.n_proximity_bins - 1, "group but the first")
        checks.finite(key, loaded.clamp(min=torch.finfo(loaded.dtype).min))

    def extra_repr(self) -> str:
        return f"n_proximity_bins={self.n_proximity_bins}"


def _check_proximity(proximity: Tensor, probs: Tensor) -> None:
    checks.vector("proximity", proximity, len(probs), "row")
    checks.same_device("proximity", proximity, "probs", probs)
    checks.finite("proximity", proximity)
