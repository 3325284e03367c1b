"""``compat="clip_calibration"``: bins as the published DAC repository draws them
(github.com/ml-stat-Sustech/CLIP_Calibration).

It differs from the definitions here in four ways. Equal-width edges are float64, not float32. In its ECE the
confidences of exactly 1.0 count in the weight of the last bin but not in its means. Equal-mass edges are
linearly interpolated quantiles, and bins narrower than 1e-8 are joined: scikit-learn's default when it was
published, below version 1.9, whose own default are other quantiles. Its MCE is the weighted one.
"""

import numpy as np
import torch
from torch import Tensor

from ..arguments import checks
from ..reference import bin_index
from .cells import Cells, count_cells, maximum_error, ordered_sum

COMPAT = (None, "clip_calibration")


def uniform_bins(values: Tensor, n_bins: int) -> Tensor:
    """Bin (N,) int64 among ``n_bins`` of equal width, edges in float64 as NumPy spaces them."""
    return bin_index(values, _edges(np.linspace(0, 1, n_bins + 1), values))


def quantile_bins(values: Tensor, n_bins: int) -> Tensor:
    """Bin (N,) int64 among at most ``n_bins`` whose edges are linearly interpolated quantiles."""
    edges = np.percentile(values.detach().double().cpu().numpy(), np.linspace(0, 100, n_bins + 1))
    edges = edges[np.ediff1d(edges, to_begin=np.inf) > 1e-8]
    return bin_index(values, _edges(edges, values))


def expected_error(confidence: Tensor, correct: Tensor, n_bins: int) -> Tensor:
    """ECE with the confidences of exactly 1.0 out of the means and in the weights."""
    certain = confidence == 1
    group = torch.where(certain, n_bins, uniform_bins(confidence, n_bins))
    cells = count_cells(confidence, correct, 1, group=group, n_groups=n_bins + 1)
    weight = cells.count[:-1].clone()
    weight[-1] += cells.count[-1]
    kept = Cells(*(values[:-1] for values in cells))
    return ordered_sum((weight * kept.gap.abs()).nan_to_num(0.0)) / cells.total


def maximum_published_error(confidence: Tensor, correct: Tensor, n_bins: int) -> Tensor:
    """MCE: the largest gap times its bin's share of the rows."""
    group = uniform_bins(confidence, n_bins)
    return maximum_error(count_cells(confidence, correct, 1, group=group, n_groups=n_bins), weighted=True)


def check_compat(compat: str | None, **only: tuple[object, object]) -> bool:
    """Whether ``compat`` is asked for; ``only``: options (given, the one value it goes with)."""
    checks.choice("compat", compat, COMPAT)
    for name, (given, required) in only.items():
        if compat and given != required:
            raise ValueError(f"{name} must be {required!r} with compat={compat!r}, got {given!r}")
    return compat is not None


def _edges(edges: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(edges)).to(like.device)
