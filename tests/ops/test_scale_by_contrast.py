"""scale_by_contrast: the bits of ContrastAwareCalibration's own steps; what it refuses they are left to."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal.ops import extension
from pyfastcal.ops.scale_by_contrast import scale_by_contrast

from .cases import CONTRAST_CONSTANTS as CONSTANTS
from .cases import dtypes, normal, seeds, sizes
from .test_checked import ops_of

pytestmark = pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")


def pair(n=3, c=8, seed=0, dtype=torch.float32, moved=1.0):
    logits = normal(seed, n, c, scale=10.0)
    return logits.to(dtype), (logits + moved * normal(seed + 1, n, c)).to(dtype)


@given(
    n=st.sampled_from((1, 2, 3, 40)),
    c=sizes,
    dtype=dtypes,
    zeroshot_dtype=dtypes,
    seed=seeds,
    scale=st.sampled_from((30.0, 100.0, 1e3)),
    moved=st.sampled_from((0.0, 0.5, 2.0)),
    one=st.booleans(),
)
def test_the_bits_of_many_steps(capability, n, c, dtype, zeroshot_dtype, seed, scale, moved, one):
    cac = fc.ContrastAwareCalibration()
    logits, zeroshot = pair(1 if one else n, c, seed, dtype, moved)
    zeroshot = zeroshot.to(zeroshot_dtype)
    if one:
        logits, zeroshot = logits[0], zeroshot[0]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        expected = cac._scaled(logits, zeroshot, scale)
    ours = scale_by_contrast(logits, zeroshot, scale, CONSTANTS)
    if told or logits.dtype is torch.float64 or zeroshot.dtype is torch.float64:
        assert ours is None
    else:
        assert ours.dtype == expected.dtype
        assert torch.equal(ours, expected)


def test_many_rows_and_many_classes():
    """On threads, of torch's sum too."""
    for n, c in ((1, 40_000), (3, 20_000), (5000, 2), (700, 100)):
        logits, zeroshot = pair(n, c)
        expected = fc.ContrastAwareCalibration()._scaled(logits, zeroshot, 100.0)
        assert torch.equal(scale_by_contrast(logits, zeroshot, 100.0, CONSTANTS), expected)


def test_the_calibrator_takes_one_op():
    logits, zeroshot = pair()
    cac = fc.ContrastAwareCalibration()
    assert ops_of(cac, logits, zeroshot) == ["pyfastcal::scale_by_contrast"]
    assert torch.equal(cac(logits, zeroshot), cac._scaled(logits, zeroshot, 100.0))
    assert torch.equal(cac(logits[1], zeroshot[1]), cac(logits, zeroshot)[1])
    cac.alpha.fill_(1.0)
    assert torch.equal(cac(logits, zeroshot), cac._scaled(logits, zeroshot, 100.0))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
@pytest.mark.parametrize("which", [0, 1])
def test_an_error_is_the_calibrator_s(value, which):
    cac, both = fc.ContrastAwareCalibration(), pair()
    both[which][1] = value
    assert scale_by_contrast(*both, 100.0, CONSTANTS) is None
    with pytest.raises(ValueError, match=r"^(logits|zeroshot_logits) must "):
        cac(*both)


def test_what_is_not_plain_is_left_to_many_steps():
    logits, zeroshot = pair(moved=0.1)
    for other in (
        logits.double(),
        logits.T.contiguous().T,
        logits.clone().requires_grad_(),
        logits[:2],
        logits[:, :-1],
    ):
        assert scale_by_contrast(other, zeroshot, 100.0, CONSTANTS) is None
        assert scale_by_contrast(zeroshot, other, 100.0, CONSTANTS) is None
    masked = logits.clone()
    masked[0, 0] = -torch.inf
    assert scale_by_contrast(masked, zeroshot, 100.0, CONSTANTS) is None
    assert fc.ContrastAwareCalibration()(masked, zeroshot)[0, 0] == -torch.inf
    for scale in (0.0, -1.0, torch.nan, 1e30, torch.tensor(100.0), 100):
        assert scale_by_contrast(logits, zeroshot, scale, CONSTANTS) is None
    for i in range(4):
        constants = list(CONSTANTS)
        constants[i] = constants[i].float()
        assert scale_by_contrast(logits, zeroshot, 100.0, tuple(constants)) is None
    assert scale_by_contrast(logits[0], zeroshot[:1], 100.0, CONSTANTS) is None
    assert scale_by_contrast(logits[:0], zeroshot[:0], 100.0, CONSTANTS) is None
    assert scale_by_contrast(None, zeroshot, 100.0, CONSTANTS) is None


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_what_is_to_be_told_is_left_to_many_steps(rows):
    """A median weight that is unusual; one of many may be."""
    logits = normal(0, 5, 8)
    far = logits + torch.tensor([[8.0]] * rows + [[1.0]] * (5 - rows))
    assert (scale_by_contrast(logits, far, 100.0, CONSTANTS) is None) == (rows > 2)
    assert scale_by_contrast(logits, logits + 40, 100.0, CONSTANTS) is None
