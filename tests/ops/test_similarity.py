"""similarity: the cosines that similarity_confidence consumes, whatever the batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal import ops, reference

from ..devices import kernels_only, run_on
from .cases import KERNEL_DTYPES, assert_within_budget, dtypes, normal, scales, seeds, sizes


@given(
    n=st.sampled_from((0, 1, 7, 50)), c=sizes, d=sizes, dtype=dtypes, seed=seeds, scale=scales, normalize=st.booleans()
)
def test_matches_the_definition(device, n, c, d, dtype, seed, scale, normalize):
    image, text = normal(seed, n, d, scale=scale, dtype=dtype), normal(seed + 1, c, d, scale=scale, dtype=dtype)
    ours = run_on(device, ops.similarity)(image, text, normalize=normalize)
    exact = reference.similarity(image.double(), text.double(), normalize=normalize)
    assert ours.shape == (n, c) and ours.dtype == torch.float32
    if n:
        unit = 1.0 if normalize else scale**2 * d**0.5
        assert_within_budget(ours, reference.similarity(image, text, normalize=normalize), exact, unit=unit)


def test_more_classes_than_a_tile_holds(device):
    image, text = normal(0, 5, 4), normal(1, 65_600, 4)
    ours = run_on(device, ops.similarity)(image, text)
    torch.testing.assert_close(ours, reference.similarity(image, text), rtol=0, atol=1e-6)


def test_float64_stays_float64():
    image, text = normal(0, 5, 4).double(), normal(1, 6, 4).double()
    assert torch.equal(ops.similarity(image, text), reference.similarity(image, text))


def test_is_what_similarity_confidence_consumes(device):
    image, text = normal(0, 80, 24), normal(1, 30, 24)
    expected, prediction = run_on(device, fc.similarity_confidence)(image, text, 20.0)
    probs = (20 * run_on(device, ops.similarity)(image, text)).softmax(1)
    assert torch.equal(probs.argmax(1), prediction)
    torch.testing.assert_close(probs.amax(1), expected, rtol=1e-5, atol=0)


@kernels_only
@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
def test_same_bits_for_any_batch_or_thread_count(device, threads, dtype):
    image, text = normal(5, 501, 70, dtype=dtype), normal(6, 33, 70, dtype=dtype)
    similarity = run_on(device, ops.similarity)
    expected = similarity(image, text)
    assert torch.equal(torch.cat([similarity(part, text) for part in image.split(37)]), expected)
    order = torch.randperm(501, generator=torch.Generator().manual_seed(0))
    assert torch.equal(similarity(image[order], text), expected[order])
    for n in (1, 2, 3):
        threads(n)
        assert torch.equal(similarity(image, text), expected)


@kernels_only
@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
def test_layouts(device, dtype):
    image, text = normal(0, 30, 64, dtype=dtype).to(device), normal(1, 20, 64, dtype=dtype).to(device)
    expected = ops.similarity(image[::2, ::2].contiguous(), text[:, ::2].contiguous())
    assert torch.equal(ops.similarity(image[::2, ::2], text[:, ::2]), expected)


def test_mixed_dtypes(device):
    image, text = normal(0, 30, 64).to(device), normal(1, 20, 64).to(device)
    mixed, wide = ops.similarity(image.bfloat16(), text), ops.similarity(image.bfloat16().float(), text)
    torch.testing.assert_close(mixed, wide, rtol=0, atol=1e-6)


X, T = torch.ones(3, 4), torch.ones(2, 4)
BAD = [
    ("image_features", dict(image_features=X[None], text_features=T), "2 dimensions"),
    ("image_features", dict(image_features=X * torch.nan, text_features=T), "finite"),
    ("text_features", dict(image_features=X, text_features=T[:0]), "empty"),
    ("text_features", dict(image_features=X, text_features=T[:, :3]), "4 columns"),
    ("text_features", dict(image_features=X, text_features=T / 0), "finite"),
    ("text_features", dict(image_features=X, text_features=T.to("meta")), "must be on cpu"),
]


@pytest.mark.parametrize(("name", "arguments", "says"), BAD)
def test_bad_input(capability, name, arguments, says):
    with pytest.raises(ValueError, match=rf"^{name} .*{says}"):
        ops.similarity(**arguments)
