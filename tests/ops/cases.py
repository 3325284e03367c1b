"""What the op tests share: sizes at the kernels' borders, dtypes, and the error budget."""

import torch
from hypothesis import strategies as st
from torch import Tensor

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# around the 16 lanes, the tiles of 6 and 12 rows, panels of 16 and 32, and the blocks made of them
BORDERS = (1, 2, 5, 6, 7, 12, 13, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 97)

# CAC's alpha, k, lambda1 and lambda2, as its ops take them
CONTRAST_CONSTANTS = tuple(torch.tensor(x, dtype=torch.float64) for x in (1.1, 15.0, 0.9, 1.0))

sizes = st.sampled_from(BORDERS)
dtypes = st.sampled_from(KERNEL_DTYPES)
seeds = st.integers(0, 2**31 - 1)
scales = st.sampled_from((1e-3, 1.0, 30.0))


def normal(seed: int, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale).to(dtype)


def weights(seed: int, n: int) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed + 1)) + 0.5


def assert_within_budget(
    ours: Tensor,
    naive: Tensor,
    exact: Tensor,
    *,
    factor: float = 2.0,
    ulps: float = 4.0,
    unit: float = 2.0**-126,
) -> None:
    """Our largest error against fp64 stays below ``factor`` times the one of plain torch at the same dtype, plus a few
    ulps of fp32 for what torch got right by luck; ``unit``: the size of what ``exact`` is a difference of."""
    assert torch.isfinite(ours).all()
    allowed = factor * (naive.double() - exact).abs().max() + ulps * 2.0**-23 * exact.abs().max().clamp_min(unit)
    error = (ours.double() - exact).abs().max()
    assert error <= allowed, f"error {error:.3g} exceeds the budget {allowed:.3g}"
