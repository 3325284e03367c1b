"""contrast_distance: CAC's z from the features of both models."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyfastcal import reference
from pyfastcal.ops import contrast_distance

from ..devices import kernels_only, run_on
from .cases import KERNEL_DTYPES, assert_within_budget, dtypes, normal, seeds, sizes

ON = ("similarity", "probability")


@given(
    n=st.sampled_from((0, 1, 7, 50)),
    c=sizes,
    d=sizes,
    d0=sizes,
    dtype=dtypes,
    seed=seeds,
    on=st.sampled_from(ON),
)
def test_matches_the_definition(device, n, c, d, d0, dtype, seed, on):
    image, text = normal(seed, n, d, dtype=dtype), normal(seed + 1, c, d, dtype=dtype)
    image0, text0 = normal(seed + 2, n, d0, dtype=dtype), normal(seed + 3, c, d0, dtype=dtype)
    features = (image, text, image0, text0)
    z = run_on(device, contrast_distance)(*features, on=on, logit_scale=20.0)
    assert z.shape == (n,) and z.dtype == torch.float32
    if n:
        exact = reference.contrast_distance(*(f.double() for f in features), on=on, logit_scale=20.0)
        naive = reference.contrast_distance(*features, on=on, logit_scale=20.0)
        assert_within_budget(z, naive, exact, factor=4.0, ulps=8.0, unit=1.0)


@pytest.mark.parametrize("on", ON)
def test_more_classes_than_a_tile(device, on):
    features = normal(0, 3, 8), normal(1, 9000, 8), normal(2, 3, 8), normal(3, 9000, 8)
    z = run_on(device, contrast_distance)(*features, on=on, logit_scale=10.0)
    exact = reference.contrast_distance(*(f.double() for f in features), on=on, logit_scale=10.0)
    torch.testing.assert_close(z, exact.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("on", ON)
def test_equal_models_do_not_differ(device, on):
    image, text = normal(0, 20, 16), normal(1, 9, 16)
    assert (run_on(device, contrast_distance)(image, text, image.clone(), text.clone(), on=on) == 0).all()


@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
def test_shared_image_features_are_like_copies(device, dtype):
    """Prompt learners of the text side leave the images alone: one product does for both models."""
    image, text, text0 = (normal(i, n, 64, dtype=dtype).to(device) for i, n in enumerate((50, 33, 33)))
    shared, copies = (contrast_distance(image, text, x, text0) for x in (image, image.clone()))
    torch.testing.assert_close(shared, copies, rtol=2e-6, atol=1e-8)


@kernels_only
@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
def test_same_bits_on_any_number_of_threads(device, threads, dtype):
    features = [normal(i, n, 24, dtype=dtype) for i, n in enumerate((200, 40, 200, 40))]
    expected = run_on(device, contrast_distance)(*features)
    for n in (1, 2, 3):
        threads(n)
        assert torch.equal(run_on(device, contrast_distance)(*features), expected)


X, T = torch.ones(3, 4), torch.ones(5, 4)
BAD = [
    ("image_features", (X[0], T, X, T), {}, "2 dimensions"),
    ("text_features", (X, T[:, 1:], X, T), {}, "4 columns"),
    ("zeroshot_image_features", (X, T, X[:2], T), {}, "3 rows of image_features"),
    ("zeroshot_text_features", (X, T, X, T[:2]), {}, "5 rows of text_features"),
    ("zeroshot_text_features", (X, T, X, T[:, 1:]), {}, "4 columns as zeroshot_image_features"),
    ("zeroshot_text_features", (X, T, X, T * float("nan")), {}, "NaN"),
    ("zeroshot_image_features", (X, T, X.to("meta"), T), {}, "must be on cpu"),
    ("on", (X, T, X, T), {"on": "logits"}, "one of 'similarity', 'probability', got 'logits'"),
    ("logit_scale", (X, T, X, T), {"logit_scale": -1.0}, "greater than 0"),
]


@pytest.mark.parametrize(("name", "features", "options", "says"), BAD)
def test_bad_input(capability, name, features, options, says):
    with pytest.raises(ValueError, match=rf"^{name} .*{says}") as caught:
        contrast_distance(*features, **options)
    assert "\n" not in str(caught.value)
