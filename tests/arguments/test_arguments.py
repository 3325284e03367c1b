"""What tensors, arrays and numbers of unusual kinds become: the right answer, or one line that names the argument."""

import numpy as np
import pytest
import torch

import pyfastcal as fc
from pyfastcal import ops
from pyfastcal.arguments import checks
from tests.ops.cases import normal

X = normal(0, 6, 4)
HUGE = 10**5000  # more digits than Python prints
STRUCTURED = np.zeros(6, dtype=[("a", "u1"), ("x", "f4", (4,))])
MASKED = np.ma.masked_array(X.numpy().copy(), mask=np.eye(6, 4, dtype=bool))

BAD_TENSORS = {
    "sparse_coo": lambda: X.to_sparse(),
    "sparse_csr": lambda: X.to_sparse_csr(),
    "mkldnn": lambda: X.to_mkldnn(),
    "nested": lambda: torch.nested.nested_tensor([X, X[:2]]),
    "complex64": lambda: X.to(torch.complex64),
    "object": lambda: X.numpy().astype(object),
    "<U": lambda: X.numpy().astype(str),
    "longdouble|float128": lambda: X.numpy().astype(np.longdouble),
    r"\[\('a'": lambda: STRUCTURED,
    "masked array with 4": lambda: MASKED,
    "list": lambda: X.tolist(),
}


@pytest.mark.parametrize("says", BAD_TENSORS)
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("logits", lambda x: fc.confidence(x)),
        ("bank", lambda x: fc.knn(X, x, 1)),
        ("image_features", lambda x: fc.similarity_confidence(image_features=x, text_features=X)),
        ("text_features", lambda x: ops.similarity(X, x)),
        ("points", lambda x: ops.log_density(X[:, :2], x, X[0, :2])),
    ],
)
def test_what_is_no_dense_tensor_of_numbers_is_refused(name, call, says):
    with pytest.raises(ValueError, match=rf"^{name} must .*({says})") as caught:
        call(BAD_TENSORS[says]())
    assert "\n" not in str(caught.value)


def test_views_of_any_strides():
    expected = fc.confidence(X)[0].numpy()
    fields = STRUCTURED.copy()
    fields["x"] = X.numpy()
    for view in (
        fields["x"],  # its strides are no multiples of its items
        X.numpy()[:, ::-1][:, ::-1],
        np.asfortranarray(X.numpy()),
        X.numpy().astype(">f4"),
        np.broadcast_to(X.numpy(), (2, 6, 4))[1],
        np.ma.masked_array(X.numpy()),  # nothing is masked
        X.numpy().view(np.recarray),
    ):
        assert np.array_equal(fc.confidence(view)[0], expected)


def test_vmap_is_refused():
    for transformed in (torch.vmap(lambda x: fc.confidence(x)[0]), torch.vmap(lambda x: fc.knn(x, X, 1)[0])):
        with pytest.raises(ValueError, match=r"^(logits|queries) must .*vmap, which pyfastcal does not support"):
            transformed(torch.stack([X, X]))


@pytest.mark.parametrize("k", [np.int64(2), np.uint8(2), np.array([2])[0]])
def test_integers_of_numpy(k):
    assert torch.equal(fc.knn(X, X, k)[1], fc.knn(X, X, 2)[1])
    assert torch.equal(fc.proximity(X, X, k), fc.proximity(X, X, 2))
    assert fc.DistanceAwareCalibration(k=k).fit(tuned=X, zeroshot=X + 1).class_weight.shape == (6,)
    assert fc.bin_counts(torch.rand(5), torch.ones(5), k)[0].shape == (1, 2)


def test_what_is_no_integer_in_range():
    for k in (HUGE, -HUGE, np.bool_(True), True, 2.0, np.float32(2), "2" * 5000, None, np.array([2]), torch.tensor(2)):
        with pytest.raises(ValueError, match=r"^k must be an integer of at least 1 and at most 6") as caught:
            fc.knn(X, X, k)
        assert len(str(caught.value)) < 200


def test_numbers_too_large_for_a_float():
    for scale in (10**400, -(10**400), HUGE):
        with pytest.raises(ValueError, match=r"^logit_scale must be a finite number, got an integer of") as caught:
            fc.similarity_confidence(X, X, scale)
        assert len(str(caught.value)) < 150
    with pytest.raises(ValueError, match=r"^logit_scale must be a number, got a float32 tensor of shape \(2,\)"):
        fc.similarity_confidence(X, X, torch.ones(2))


def test_bins_are_bounded_before_they_are_made():
    for many in (10**9, 2**24 + 1, np.int64(2**40), HUGE):
        with pytest.raises(ValueError, match=r"^n_bins must be an integer of at least 1 and at most 16777216"):
            fc.bin_counts(torch.rand(5), torch.ones(5), many)
        with pytest.raises(ValueError, match=r"^n_groups must .* at most 1677721 .with 10 bins in each"):
            fc.bin_counts(torch.rand(5), torch.ones(5), 10, n_groups=many)


def test_one_step_above_1_counts_as_1():
    above = torch.tensor([1 + 2.0**-23, 0.5])
    for x in (above, above.double()):
        for n_bins in (5, 10, 100, 5000):
            for edges in (None, torch.linspace(0, 1, n_bins + 1), torch.tensor([0.0, 0.5, 1.0, 1.0])):
                for closed in ("left", "right"):
                    ours = fc.bin_counts(x, torch.ones(2), n_bins, edges=edges, closed=closed)
                    expected = fc.bin_counts(x.clamp(max=1), torch.ones(2), n_bins, edges=edges, closed=closed)
                    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    with pytest.raises(ValueError, match=r"^confidence must lie in \[0, 1\], got 1.00000023"):
        fc.bin_counts(torch.tensor([1 + 2.0**-22]), torch.ones(1))
    assert 1 + torch.finfo(torch.float32).eps == checks.LARGEST_CONFIDENCE


def test_vectors_shorter_than_1e_12_are_divided_by_that():
    """As in torch.nn.functional.normalize, by every path."""
    short, unit = torch.tensor([[1e-13, 0.0]]), torch.tensor([[1.0, 0.0]])
    for dtype in (torch.float32, torch.float64):
        expected = torch.nn.functional.normalize(short.to(dtype), dim=1)
        assert fc.knn(short.to(dtype), unit.to(dtype), 1)[0].item() == pytest.approx(0.9, rel=1e-6)
        torch.testing.assert_close(ops.similarity(short.to(dtype), unit.to(dtype)), expected[:, :1])
    assert fc.knn(short, short, 1)[0].item() == 0


@pytest.mark.parametrize("size", [1e-200, 1e-13, 1.0, 1e154, 1e200, 1.7e308])
def test_fp64_vectors_of_any_length(size):
    x = normal(0, 5, 8).double()
    expected = torch.nn.functional.normalize(x, dim=1)
    if size >= 1e-12:
        x = x / x.abs().amax() * size
        torch.testing.assert_close(ops.similarity(x, x), expected @ expected.T, rtol=1e-12, atol=1e-14)
        assert torch.equal(fc.knn(x, x, 1)[0], torch.zeros(5, 1, dtype=torch.float64))
    else:
        short = ops.similarity(x * size, x), torch.nn.functional.normalize(x * size, dim=1) @ expected.T
        torch.testing.assert_close(*short, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_that_no_number_holds(dtype):
    far = torch.full((2, 3), torch.finfo(dtype).max, dtype=dtype)
    with pytest.raises(ValueError, match=rf"^queries and bank must be so small that results fit {dtype}, got up to"):
        fc.knn(far, -far, 1, normalize=False)


def test_densities_that_no_number_holds():
    for width in (1e-120, 1e120):
        with pytest.raises(ValueError, match=r"^bandwidth must lie in \[1e-100, 1e\+100\], got 1e.120"):
            ops.log_density(X[:, :2], X[:, 2:], torch.tensor([1.0, width], dtype=torch.float64))
    assert ops.log_density(X[:, :2] * 1e37, X[:, 2:], torch.full((2,), 1e-100, dtype=torch.float64)).isfinite().all()
    with pytest.raises(ValueError, match=r"^queries and points must be so small"):
        ops.log_density(X[:, :2].double() * 1e200, X[:, 2:].double(), torch.ones(2))
