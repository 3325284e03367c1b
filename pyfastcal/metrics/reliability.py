"""Where the calibration error sits: signed gaps and the reliability curve."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..arguments import checks
from ..arguments.arrays import accepts_numpy
from ..reference import uniform_edges
from .cells import Cells, count_cells


@accepts_numpy
def signed_gaps(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> Tensor:
    """Mean confidence minus accuracy at each confidence level, (n_bins,) float64: positive where
    over-confident, NaN where no confidence falls in the bin."""
    return count_cells(confidence, correct, n_bins).gap


class ReliabilityCurve(NamedTuple):
    """One entry per bin; ``edges`` has one more. Means are NaN where the bin is empty."""

    edges: Tensor  # (B + 1,) float32
    count: Tensor  # (B,) int64
    confidence: Tensor  # (B,) float64, mean
    accuracy: Tensor  # (B,) float64
    lower: Tensor  # (B,) float64, bounds of the bootstrap band around the accuracy
    upper: Tensor  # (B,) float64


@accepts_numpy
def reliability_curve(
    confidence: Tensor,
    correct: Tensor,
    n_bins: int = 10,
    *,
    closed: str = "left",
    n_bootstrap: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> ReliabilityCurve:
    """Accuracy against mean confidence over equal-width bins, with a percentile bootstrap band.

    The rows are resampled ``n_bootstrap`` times (0: no band, NaN bounds) and the band holds the middle
    ``level`` of each bin's accuracies. Resampling rows is a multinomial draw over (bin, right or wrong), so
    it costs nothing per row and does not depend on their order. A bin that is all right, or all wrong, has
    a band of no width: the bootstrap cannot see what did not occur.
    """
    cells = count_cells(confidence, correct, n_bins, closed=closed)
    return curve_of(cells, n_bootstrap=n_bootstrap, level=level, seed=seed)


def curve_of(cells: Cells, *, n_bootstrap: int = 1000, level: float = 0.95, seed: int = 0) -> ReliabilityCurve:
    """The reliability curve of counted equal-width bins."""
    most = checks.MOST_CELLS // len(cells.count)
    n_bootstrap = checks.integer("n_bootstrap", n_bootstrap, 0, most, f"{len(cells.count)} bins")
    level = checks.number("level", level, low=0.0, high=1.0)
    seed = checks.integer("seed", seed, 0)
    lower, upper = _band(cells, n_bootstrap, level, seed)
    edges = uniform_edges(len(cells.count), cells.count.device)
    return ReliabilityCurve(edges, cells.count, cells.mean_confidence, cells.accuracy, lower, upper)


def _band(cells: Cells, n_bootstrap: int, level: float, seed: int) -> tuple[Tensor, Tensor]:
    total = int(cells.total)
    if n_bootstrap == 0 or total == 0:
        nothing = torch.full_like(cells.excess, torch.nan)
        return nothing, nothing.clone()
    occurred = torch.stack([cells.correct, cells.count - cells.correct]).reshape(-1).cpu().numpy()
    draws = np.random.default_rng(seed).multinomial(total, occurred / total, size=n_bootstrap)
    right, wrong = torch.from_numpy(draws).view(n_bootstrap, 2, -1).unbind(1)
    accuracy = right / (right + wrong).double()  # NaN where a resample leaves the bin empty
    tail = (1 - level) / 2
    bounds = accuracy.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    lower, upper = bounds.to(cells.count.device)
    return lower, upper
