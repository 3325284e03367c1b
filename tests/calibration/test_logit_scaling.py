"""Scaling a row by one positive factor never moves its argmax, whatever the rounding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyfastcal.calibration.logit_scaling import scale_logits

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@given(st.integers(0, 2**32 - 1), st.sampled_from(DTYPES), st.floats(0.05, 20.0))
def test_neighbouring_logits_keep_their_order_at_the_top(seed, dtype, factor):
    generator = torch.Generator().manual_seed(seed)
    top = (torch.rand(64, 1, generator=generator) * 60 - 30).to(dtype)
    below = torch.nextafter(top, torch.full_like(top, -torch.inf))
    logits = torch.cat([below, top, below, top], dim=1)  # a neighbour ahead of the first of two equal tops
    scaled = scale_logits(logits, torch.full((64,), factor))
    assert scaled.dtype == dtype
    assert torch.equal(scaled.argmax(1), torch.ones(64, dtype=torch.int64))


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(1, 6), st.sampled_from(DTYPES))
def test_every_row_is_multiplied_by_its_factor(seed, n, n_classes, dtype):
    generator = torch.Generator().manual_seed(seed)
    logits = (10 * torch.randn(n, n_classes, generator=generator)).to(dtype)
    factor = torch.rand(n, generator=generator) + 0.5
    exact = logits.double() * factor.double()[:, None]
    torch.testing.assert_close(
        scale_logits(logits, factor).double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-300
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_factor_of_one_is_the_identity(dtype):
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits[:, 3] = logits[:, 5]  # ties stay ties
    assert torch.equal(scale_logits(logits, torch.ones(50)), logits)


def test_gradients_pass():
    logits = torch.arange(12.0).view(4, 3).requires_grad_()
    scale_logits(logits, torch.full((4,), 2.0)).sum().backward()
    torch.testing.assert_close(logits.grad, torch.full((4, 3), 2.0))
