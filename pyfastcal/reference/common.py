"""What the twins share: the working precision, unit vectors, and the rules that put a value in a bin."""

import torch
from torch import Tensor

FIXED_POINT = 2.0**32  # confidences are summed as int64 multiples of 2^-32: exact in any order


def working(x: Tensor) -> Tensor:
    """``x`` in the precision sums run in: float64 stays, everything narrower becomes float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(a: Tensor, b: Tensor, normalize: bool = True) -> tuple[Tensor, Tensor]:
    """Rows of both in the working precision of the wider one, if ``normalize`` divided by their L2 norm or, where that
    is shorter, by 1e-12, as ``torch.nn.functional.normalize`` does (so a row of zeros stays)."""
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return tuple(_normalized(x).to(wide) if normalize else x.to(wide) for x in (a, b))


def _normalized(x: Tensor) -> Tensor:
    wide = x.dtype == torch.float64
    x = x.double()  # which holds the square of any narrower number, but not of its own largest
    scale = torch.ones_like(x[..., :1])
    if wide:
        scale = torch.where(x.detach().abs().amax(-1, keepdim=True) > 1e100, scale * 2.0**-600, scale)
        x = x * scale
    return x / x.norm(dim=-1, keepdim=True).maximum(1e-12 * scale)


def uniform_edges(n_bins: int, device: torch.device | None = None) -> Tensor:
    """Edges (n_bins + 1,) of equal-width bins on [0, 1]: i / n_bins in float64, rounded to float32."""
    return (torch.arange(n_bins + 1, dtype=torch.float64, device=device) / n_bins).float()


def bin_index(values: Tensor, edges: Tensor, closed: str = "left") -> Tensor:
    """Bin (N,) int64 of each value among B = len(edges) - 1 bins.

    ``closed="left"``: bins [l, u), the last one closed; ``"right"``: (l, u], the first one closed. Values
    beyond the outer edges fall in the outer bins. Both sides are compared in float64, which holds either.
    """
    inner = edges[1:-1].double().contiguous()
    return torch.bucketize(values.double().contiguous(), inner, right=closed == "left")


def equal_mass_starts(values: Tensor, n_groups: int) -> Tensor:
    """Where the groups of ``equal_mass_groups`` begin, but for the first: (n_groups - 1,) float64."""
    ranks = torch.arange(1, n_groups, device=values.device) * len(values) // n_groups
    return values.sort().values[ranks].double()


def equal_mass_groups(values: Tensor, n_groups: int) -> Tensor:
    """Group (N,) int64 in [0, n_groups) of each value, the groups as equally filled as ties allow.

    Group g starts at the value of rank floor(g N / n_groups), and a value belongs to the last group whose
    start does not exceed it. Equal values are therefore never split, and the order of the rows cannot matter.
    Without ties the sizes differ by at most one; a run of equal values that spans several starts goes to the
    last of them, and the groups it jumps over stay empty.
    """
    starts = equal_mass_starts(values, n_groups)
    return torch.bucketize(values.double().contiguous(), starts, right=True)
