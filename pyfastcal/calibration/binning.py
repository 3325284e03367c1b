"""Histogram binning."""

import torch
from torch import Tensor

from .. import ops
from ..arguments import checks
from ..reference import bin_index, uniform_edges
from .probability_map import ONE_VS_REST, ProbabilityMap

_MOST_BINS = 1 << 20  # far more than there are labels to fill them with
_CHUNK = 1 << 22  # probabilities that are binned at a time


class HistogramBinning(ProbabilityMap):
    """HB: a probability becomes the share of rows in its equal-width bin that were of the class (or, for the top label,
    that were right). An empty bin gives its midpoint.

    Args:
        n_bins: bins ``[l, u)`` on [0, 1], the last one closed, as in ``bin_counts``; 1 to 1,048,576.
        strategy: ``"one_vs_rest"`` or ``"top_label"``: see ``ProbabilityMap``. Both can change predictions.

    Attributes:
        share: (C, n_bins) float64, one row for the top label; None before ``fit``.

    Source: "Obtaining calibrated probability estimates from decision trees and naive Bayesian classifiers"
    (Zadrozny and Elkan, ICML 2001).
    """

    share: Tensor | None
    fit_buffers = ("share",)

    def __init__(self, n_bins: int = 10, strategy: str = ONE_VS_REST) -> None:
        super().__init__(strategy)
        self.n_bins = checks.integer("n_bins", n_bins, 1, _MOST_BINS)

    def _fit_maps(self, values: Tensor, is_label: Tensor) -> None:
        rows, maps = values.shape
        middle = (torch.arange(self.n_bins, device=values.device, dtype=torch.float64) + 0.5) / self.n_bins
        step = max(1, _CHUNK // rows)
        shares = []
        for start in range(0, maps, step):
            columns, hits = values[:, start : start + step].T, is_label[:, start : start + step].T
            group = torch.arange(len(columns), device=values.device).repeat_interleave(rows)
            options = {"group": group, "n_groups": len(columns)}
            counts, right, _ = ops.bin_counts(columns.reshape(-1), hits.reshape(-1), self.n_bins, **options)
            shares.append(torch.where(counts > 0, right / counts.double(), middle))
        self.share = torch.cat(shares)

    def _map(self, values: Tensor) -> Tensor:
        cell = bin_index(values, uniform_edges(self.n_bins, values.device))
        return self.share.T.expand(-1, values.shape[1]).gather(0, cell)

    def _check_loaded(self, name: str, key: str, loaded: Tensor) -> None:
        if checks.floating(key, loaded, 2).shape[1] != self.n_bins:
            raise ValueError(f"{key} must have {self.n_bins} columns, one per bin, got {checks.describe(loaded)}")
        checks.unit_interval(key, loaded)

    def extra_repr(self) -> str:
        return f"n_bins={self.n_bins}, {super().extra_repr()}"
