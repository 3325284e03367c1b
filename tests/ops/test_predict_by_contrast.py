"""predict_by_contrast: the bits of ContrastAwareCalibration's own three steps; what it refuses they are left to."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal.ops import extension
from pyfastcal.ops.predict_by_contrast import predict_by_contrast

from .cases import CONTRAST_CONSTANTS as CONSTANTS
from .cases import dtypes, normal, seeds, sizes
from .test_checked import ops_of

pytestmark = pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")

OPTIONS = {"on": "similarity", "normalize": True}


def features(n=3, c=8, d=40, seed=0, dtype=torch.float32, moved=0.02, same=False):
    """Of two models whose features lie near one another."""
    tuned = [torch.nn.functional.normalize(normal(seed + i, rows, d)) for i, rows in enumerate((n, c))]
    zeroshot = [x + moved * normal(seed + 2 + i, *x.shape) for i, x in enumerate(tuned)]
    image, text, image0, text0 = (x.to(dtype) for x in (*tuned, *zeroshot))
    return image, text, image if same else image0, text0


def three_steps(cac, tensors, scale=100.0, logit_bias=None, normalize=True):
    return cac._predict(*tensors, logit_scale=scale, logit_bias=logit_bias, normalize=normalize)


@given(
    n=st.sampled_from((1, 2, 9, 70)),
    c=sizes,
    d=st.sampled_from((1, 17, 40, 300)),
    dtype=dtypes,
    seed=seeds,
    moved=st.sampled_from((0.0, 0.02, 0.3)),
    on=st.sampled_from(("similarity", "probability")),
    same=st.booleans(),
    normalize=st.booleans(),
    bias=st.booleans(),
    one=st.booleans(),
)
def test_the_bits_of_three_steps(capability, n, c, d, dtype, seed, moved, on, same, normalize, bias, one):
    cac = fc.ContrastAwareCalibration(on=on)
    tensors = list(features(1 if one else n, c, d, seed, dtype, moved, same))
    if one:
        tensors[0], tensors[2] = tensors[0][0], tensors[2][0]
    logit_bias = normal(seed + 9, c) if bias else None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            expected = three_steps(cac, tensors, 30.0, logit_bias, normalize)
        except ValueError:  # a weight that vanishes
            expected = None
    ours = predict_by_contrast(tuple(tensors), 30.0, logit_bias, CONSTANTS, on=on, normalize=normalize)
    if told or expected is None or dtype is torch.float64:
        assert ours is None
    else:
        for x, y in zip(ours, expected, strict=True):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)


def test_the_calibrator_takes_one_op():
    tensors, cac = features(), fc.ContrastAwareCalibration()
    assert ops_of(cac.predict_features, *tensors, 50.0) == ["pyfastcal::predict_by_contrast"]
    for x, y in zip(*(cac.predict_features(*tensors, scale) for scale in (50.0, torch.tensor(50.0))), strict=True):
        assert torch.equal(x, y)
    cac.alpha.fill_(1.0)
    for x, y in zip(cac.predict_features(*tensors), three_steps(cac, tensors), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
@pytest.mark.parametrize("which", range(4))
def test_an_error_is_the_calibrator_s(value, which):
    tensors = features()
    tensors[which][1] = value
    assert predict_by_contrast(tensors, 100.0, None, CONSTANTS, on="similarity", normalize=False) is None
    with pytest.raises(ValueError, match=r"image_features|text_features"):
        fc.ContrastAwareCalibration().predict_features(*tensors, normalize=False)


def test_what_is_not_plain_is_left_to_three_steps():
    image, text, image0, text0 = tensors = features()
    for other in (
        (image.double(), text, image0, text0),
        (image, text, image0, text0.clone().requires_grad_()),
        (image[0], text, image0, text0),
        (image, text, image0[:2], text0),
        (image, text[:, :-1], image0, text0),
        (image, text, image0, text0[:-1]),
        (image[:0], text, image0[:0], text0),
        (None, text, image0, text0),
    ):
        assert predict_by_contrast(other, 100.0, None, CONSTANTS, **OPTIONS) is None
    for scale in (0.0, -1.0, torch.nan, 1e30, 100, None, torch.tensor([100.0])):
        assert predict_by_contrast(tensors, scale, None, CONSTANTS, **OPTIONS) is None
    for bias in (torch.full((8,), torch.nan), torch.zeros(7), torch.zeros(8, dtype=torch.int64), 0.5):
        assert predict_by_contrast(tensors, 100.0, bias, CONSTANTS, **OPTIONS) is None
    for normalize in ("yes", [1]):
        found = predict_by_contrast(tensors, 100.0, None, CONSTANTS, on="similarity", normalize=normalize)
        assert found is None
    for i in range(4):
        constants = list(CONSTANTS)
        constants[i] = constants[i].float()
        assert predict_by_contrast(tensors, 100.0, None, tuple(constants), **OPTIONS) is None


def test_what_is_to_be_told_is_left_to_three_steps():
    tensors = features(moved=1.0)  # far apart: an unusual weight
    assert predict_by_contrast(tensors, 100.0, None, CONSTANTS, **OPTIONS) is None
    with pytest.warns(UserWarning, match="median"):
        fc.ContrastAwareCalibration().predict_features(*features(moved=0.3))
