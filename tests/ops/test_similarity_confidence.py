"""similarity_confidence: features in, the confidence of the logits that were never made."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal import reference

from ..devices import kernels_only, run_on
from .cases import KERNEL_DTYPES, assert_within_budget, dtypes, normal, scales, seeds, sizes, weights


def agree(ours, image, text, scale=20.0, **options):
    """Predictions that only rounding parts from the largest logit; confidences within the budget of torch's fp32."""
    exact_options = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    exact, prediction = reference.similarity_confidence(image.double(), text.double(), scale, **exact_options)
    naive, naive_prediction = reference.similarity_confidence(image, text, scale, **options)
    rows = (image.double(), text.double())
    if options.get("normalize", True):
        rows = tuple(torch.nn.functional.normalize(x, dim=1) for x in rows)
    logits = scale * rows[0] @ rows[1].T + exact_options.get("logit_bias", 0.0)
    largest = float(logits.abs().max().clamp_min(1.0))
    behind = logits.amax(1) - logits.gather(1, ours[1][:, None])[:, 0]
    assert behind.max() <= 16 * 2.0**-23 * largest
    both = (ours[1] == prediction) & (naive_prediction == prediction)
    if both.any():
        # a rounding error of a logit, in proportion to its size, moves the softmax by up to as much
        assert_within_budget(ours[0][both], naive[both], exact[both], unit=largest)


@given(
    n=st.sampled_from((0, 1, 6, 7, 50, 101)),
    c=sizes,
    d=sizes,
    dtype=dtypes,
    seed=seeds,
    scale=scales,
    weighted=st.booleans(),
    normalize=st.booleans(),
)
def test_matches_the_definition(device, n, c, d, dtype, seed, scale, weighted, normalize):
    image, text = normal(seed, n, d, scale=scale, dtype=dtype), normal(seed + 1, c, d, dtype=dtype)
    w = {"class_weight": weights(seed, c), "sample_weight": weights(seed + 7, n)} if weighted else {}
    ours = run_on(device, fc.similarity_confidence)(image, text, 5.0, normalize=normalize, **w)
    assert ours[0].dtype == torch.float32 and ours[0].shape == (n,)
    if n:
        agree(ours, image, text, 5.0, normalize=normalize, **w)


def test_more_classes_than_a_sweep_holds(device):
    image, text = normal(0, 5, 8), normal(1, 65_536 + 40, 8)
    image[2] = text[65_550]  # the maximum in the last tile
    for w in ({}, {"class_weight": weights(0, len(text))}):
        ours = run_on(device, fc.similarity_confidence)(image, text, 30.0, **w)
        agree(ours, image, text, 30.0, **w)
        assert ours[1][2] == 65_550


def test_bias_per_class_and_for_all(device):
    image, text, bias = normal(0, 30, 20), normal(1, 11, 20), normal(2, 11)
    agree(run_on(device, fc.similarity_confidence)(image, text, 20.0, logit_bias=bias), image, text, logit_bias=bias)
    plain = run_on(device, fc.similarity_confidence)(image, text, 20.0)
    for same_for_all in (-10.0, torch.tensor(-10.0)):
        biased = run_on(device, fc.similarity_confidence)(image, text, 20.0, logit_bias=same_for_all)
        torch.testing.assert_close(biased[0], plain[0])


def test_agrees_with_confidence_of_the_logits(device):
    image, text, gamma = normal(0, 64, 96), normal(1, 40, 96), weights(2, 40)
    unit = torch.nn.functional.normalize
    logits = 100.0 * unit(image, dim=1) @ unit(text, dim=1).T
    fused = run_on(device, fc.similarity_confidence)(image, text, 100.0, class_weight=gamma)
    plain = run_on(device, fc.confidence)(logits, class_weight=gamma)
    assert torch.equal(fused[1], plain[1])
    torch.testing.assert_close(fused[0], plain[0], rtol=1e-4, atol=0)


def test_scale_as_a_tensor(device):
    image, text = normal(0, 6, 8), normal(1, 3, 8)
    ours = run_on(device, fc.similarity_confidence)(image, text, torch.tensor(50.0))
    assert torch.equal(ours[0], run_on(device, fc.similarity_confidence)(image, text, 50.0)[0])


@pytest.mark.parametrize("size", [1e-10, 1.0, 1e18, 1e30])
def test_length_of_the_features_does_not_matter(device, size):
    image, text = normal(0, 20, 32), normal(1, 7, 32)
    expected = run_on(device, fc.similarity_confidence)(image, text)
    image = image.clone()
    image[5:] *= size
    ours = run_on(device, fc.similarity_confidence)(image, text * size)
    torch.testing.assert_close(ours[0], expected[0], rtol=2e-5, atol=0)
    assert torch.equal(ours[1], expected[1])


@pytest.mark.parametrize("length", [1e-40, 1e-13, 3e-12, 1.0, 1e30, 3e38])
@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e6])
@pytest.mark.parametrize("weight", [1e-10, 1.0, 1e7])
def test_every_argument_in_its_range_gives_a_confidence(device, length, scale, weight):
    image, text = torch.eye(3) * length, torch.eye(3, dtype=torch.float32)[:2] * length
    w = {name: torch.full((n,), weight, dtype=torch.float64) for name, n in (("class_weight", 2), ("sample_weight", 3))}
    for bias in (None, torch.tensor([1e30, -1e30], dtype=torch.float64)):
        ours = run_on(device, fc.similarity_confidence)(image, text, scale, logit_bias=bias, **w)
        exact, prediction = reference.similarity_confidence(image.double(), text.double(), scale, logit_bias=bias, **w)
        assert length < 1e-12 or torch.equal(ours[1], prediction)  # products of such may round to 0
        torch.testing.assert_close(ours[0], exact.float(), rtol=1e-5, atol=0)


def test_the_largest_scale_of_the_shortest_features(device):
    """Whose product fp32 just holds."""
    image, text = torch.cat([torch.zeros(2, 8), normal(0, 6, 8) * 1e-12]), normal(1, 4, 8)
    for bias in (None, torch.tensor([1.0, -2.0, 1e30, 0.0])):
        ours = run_on(device, fc.similarity_confidence)(image, text, 1e20, logit_bias=bias)
        exact, prediction = reference.similarity_confidence(image.double(), text.double(), 1e20, logit_bias=bias)
        torch.testing.assert_close(ours[0], exact.float(), rtol=1e-6, atol=0)
        assert torch.equal(ours[1], prediction)


def test_one_image(device):
    image, text = normal(0, 3, 8), normal(1, 4, 8)
    whole = run_on(device, fc.similarity_confidence)(image, text, sample_weight=torch.tensor([1.0, 2.0, 3.0]))
    one = run_on(device, fc.similarity_confidence)(image[1], text, sample_weight=torch.tensor(2.0))
    assert one[0].shape == one[1].shape == ()
    torch.testing.assert_close(one, (whole[0][1], whole[1][1]), rtol=1e-5, atol=0)


def test_zero_features_are_undecided(device):
    confidence, prediction = run_on(device, fc.similarity_confidence)(torch.zeros(2, 8), normal(1, 4, 8))
    assert prediction.tolist() == [0, 0] and confidence.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("exponent", [-125, -60, 60, 120])
def test_length_of_bf16_features_does_not_matter(device, exponent):
    """Down to numbers that bf16 instructions take for zero."""
    image, text = normal(0, 40, 50, dtype=torch.bfloat16), normal(1, 7, 50, dtype=torch.bfloat16)
    image[5:] *= 2.0**exponent
    text[3:] *= 2.0**exponent
    ours = run_on(device, fc.similarity_confidence)(image, text)
    exact, prediction = reference.similarity_confidence(image.double(), text.double())
    torch.testing.assert_close(ours[0], exact.float(), rtol=2e-5, atol=0)
    assert exponent < 0 or torch.equal(ours[1], prediction)  # products of such may round to 0


@kernels_only
@given(n=st.integers(1, 130), seed=seeds, dtype=dtypes)
def test_a_row_does_not_depend_on_its_batch(device, n, seed, dtype):
    image, text = normal(seed, 130, 40, dtype=dtype), normal(seed + 1, 33, 40, dtype=dtype)
    whole = run_on(device, fc.similarity_confidence)(image, text, 50.0)
    part = run_on(device, fc.similarity_confidence)(image[-n:], text, 50.0)
    assert torch.equal(whole[0][-n:], part[0]) and torch.equal(whole[1][-n:], part[1])


@kernels_only
@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
@pytest.mark.parametrize(("d", "apart"), [(64, 64), (64, 65), (31, 31), (100, 104)])
@pytest.mark.parametrize("normalize", [True, False])
def test_few_rows_have_the_bits_of_a_batch(device, dtype, d, apart, normalize):
    """Also where class rows lie at odd places, and are of a length that products in fp32 cannot be scaled by."""
    image, text = normal(0, 100, d, dtype=dtype), torch.zeros(49, apart, dtype=dtype)
    text[:, :d] = normal(1, 49, d, dtype=dtype)
    if normalize and dtype != torch.float16:
        text[::5] *= 1e-25
        text[1::5] *= 1e25
    op = run_on(device, fc.similarity_confidence)
    whole = op(image, text[:, :d], 5.0, normalize=normalize)
    for n in (1, 2, 5, 9, 17):
        part = op(image[:n], text[:, :d], 5.0, normalize=normalize)
        assert torch.equal(whole[0][:n], part[0]) and torch.equal(whole[1][:n], part[1])


@kernels_only
def test_same_bits_on_any_number_of_threads(device, threads):
    image, text = normal(0, 300, 64), normal(1, 100, 64)
    expected = run_on(device, fc.similarity_confidence)(image, text)[0]
    for n in (1, 2, 5):
        threads(n)
        assert torch.equal(run_on(device, fc.similarity_confidence)(image, text)[0], expected)


@kernels_only
def test_layouts(device):
    x, t = normal(0, 30, 64).to(device), normal(1, 20, 64).to(device)
    expected = fc.similarity_confidence(x[::2, ::2].contiguous(), t[:, ::2].contiguous())[0]
    assert torch.equal(fc.similarity_confidence(x[::2, ::2], t[:, ::2])[0], expected)


def test_mixed_dtypes(device):
    image, text = normal(0, 30, 64), normal(1, 20, 64)
    mixed = run_on(device, fc.similarity_confidence)(image.bfloat16(), text)
    agree(mixed, image.bfloat16().float(), text, 100.0)


X, T = torch.ones(3, 4), torch.ones(5, 4)
NAN = torch.full((1, 4), float("nan"))
BAD = [
    ("image_features", dict(image_features=X[None], text_features=T), "2 dimensions"),
    ("image_features", dict(image_features=X.int(), text_features=T), "floating"),
    ("image_features", dict(image_features=torch.cat([X, NAN]), text_features=T), "4 NaN"),
    ("text_features", dict(image_features=X, text_features=T[:, :3]), "4 columns as image_features"),
    ("text_features", dict(image_features=X, text_features=T[:0]), "empty"),
    ("text_features", dict(image_features=X, text_features=torch.cat([T, NAN])), "NaN"),
    ("text_features", dict(image_features=X, text_features=T.to("meta")), "must be on cpu"),
    ("logit_scale", dict(image_features=X, text_features=T, logit_scale=0.0), "greater than 0, .*got 0"),
    ("logit_scale", dict(image_features=X, text_features=T, logit_scale=float("inf")), "finite"),
    ("logit_scale", dict(image_features=X, text_features=T, logit_scale="big"), "number"),
    ("logit_scale", dict(image_features=X, text_features=T, logit_scale=1e39), r"at most 1e\+20, got 1e\+39"),
    ("logit_scale", dict(image_features=X, text_features=T, logit_scale=10**400), "finite number, got an integer of"),
    (
        "logit_bias",
        dict(image_features=X, text_features=T, logit_bias=torch.full((5,), 1e39, dtype=torch.float64)),
        "lie in",
    ),
    (
        "logit_bias",
        dict(image_features=X, text_features=T, logit_bias=torch.full((5,), 1e31, dtype=torch.float64)),
        "1e.30",
    ),
    ("class_weight", dict(image_features=X, text_features=T, class_weight=torch.full((5,), 1e31)), "lie in"),
    (
        "logit_scale times class_weight times sample_weight",
        dict(image_features=X, text_features=T, class_weight=torch.full((5,), 1e19), sample_weight=torch.ones(3)),
        "lie in .1e-30, 1e.20., got 1e.21",
    ),
    (
        "image_features and text_features",
        dict(image_features=X * 3e38, text_features=T, normalize=False),
        "fit torch.float32",
    ),
    ("logit_bias", dict(image_features=X, text_features=T, logit_bias=torch.ones(4)), "5 entries"),
    ("logit_bias", dict(image_features=X, text_features=T, logit_bias=float("nan")), "finite"),
    ("class_weight", dict(image_features=X, text_features=T, class_weight=torch.zeros(5)), "greater than 0"),
    ("sample_weight", dict(image_features=X, text_features=T, sample_weight=torch.ones(5)), "3 entries"),
]


@pytest.mark.parametrize(("name", "arguments", "says"), BAD)
def test_bad_input(capability, name, arguments, says):
    with pytest.raises(ValueError, match=rf"^{name} .*{says}") as caught:
        fc.similarity_confidence(**arguments)
    assert "\n" not in str(caught.value)
