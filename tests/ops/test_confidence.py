"""confidence: against fp64, on every device, to the last tie."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal import reference
from pyfastcal.ops import extension

from ..devices import kernels_only, run_on
from .cases import KERNEL_DTYPES, assert_within_budget, dtypes, normal, scales, seeds, sizes, weights

needs_kernels = pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")


@given(n=st.sampled_from((0, 1, 3, 50)), c=sizes, dtype=dtypes, seed=seeds, scale=scales, weighted=st.booleans())
def test_matches_the_definition(device, n, c, dtype, seed, scale, weighted):
    logits = normal(seed, n, c, scale=scale, dtype=dtype)
    w = {"class_weight": weights(seed, c), "sample_weight": weights(seed + 7, n)} if weighted else {}
    confidence, prediction = run_on(device, fc.confidence)(logits, **w)
    exact, exact_prediction = reference.confidence(logits.double(), **{k: v.double() for k, v in w.items()})
    assert confidence.dtype == torch.float32 and prediction.dtype == torch.int64
    assert torch.equal(prediction, exact_prediction)
    if n:
        assert_within_budget(confidence, reference.confidence(logits, **w)[0], exact)


@pytest.mark.parametrize("c", [128, 129, 1000, 1024, 1025, 2047, 2048, 2049, 65_537])
@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
def test_long_rows(device, c, dtype):
    logits = normal(3, 5, c, scale=2.0, dtype=dtype)
    confidence, prediction = run_on(device, fc.confidence)(logits)
    exact, exact_prediction = reference.confidence(logits.double())
    assert torch.equal(prediction, exact_prediction)
    assert_within_budget(confidence, logits.softmax(-1).amax(-1), exact)


def test_float64_stays_float64(device):
    logits = normal(0, 4, 9).double().to(device)
    confidence, _ = fc.confidence(logits)
    assert torch.equal(confidence, reference.confidence(logits)[0])
    assert confidence.dtype == torch.float64


@given(c=st.integers(2, 70), seed=seeds)
def test_ties_go_to_the_first_class(device, c, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, 2, (20, c), generator=generator).float()
    expected = (logits == logits.amax(1, keepdim=True)).int().argmax(1)
    assert torch.equal(run_on(device, fc.confidence)(logits)[1], expected)


def test_weights_pick_the_class_before_they_scale(device):
    logits = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    confidence, prediction = run_on(device, fc.confidence)(logits, class_weight=torch.tensor([0.01, 100.0]))
    assert prediction.tolist() == [1, 0]
    torch.testing.assert_close(confidence, torch.tensor([1.0, 1 / (1 + torch.exp(torch.tensor(-0.02)))]))


@pytest.mark.parametrize("top", [1e-30, 1.0, 1e4, 3e38])
def test_extreme_logits_are_not_lost(device, top):
    logits = torch.tensor([[top, 0.0, -top], [0.0, 0.0, 0.0], [-top, -top, -top]])
    confidence, prediction = run_on(device, fc.confidence)(logits)
    exact, exact_prediction = reference.confidence(logits.double())
    assert torch.equal(prediction, exact_prediction)
    torch.testing.assert_close(confidence, exact.float(), rtol=1e-6, atol=0)


@kernels_only
def test_layouts(device):
    whole = normal(1, 40, 66).to(device)
    expected, _ = fc.confidence(whole[:, ::2].contiguous())
    assert torch.equal(fc.confidence(whole[:, ::2])[0], expected)
    assert torch.equal(fc.confidence(whole[:, ::2].contiguous().T.contiguous().T)[0], expected)
    rows = whole[::3, :50]
    assert torch.equal(fc.confidence(rows)[0], fc.confidence(rows.contiguous())[0])


@kernels_only
@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
@pytest.mark.parametrize("c", [100, 333, 1000, 2500])
def test_same_bits_for_any_batch_run_or_thread_count(device, threads, dtype, c):
    logits = normal(5, 501, c, dtype=dtype).to(device)
    expected, _ = fc.confidence(logits)
    assert torch.equal(torch.cat([fc.confidence(part)[0] for part in logits.split(37)]), expected)
    order = torch.randperm(501, generator=torch.Generator().manual_seed(0)).to(device)
    assert torch.equal(fc.confidence(logits[order])[0], expected[order])
    for n in (1, 2, 3):
        threads(n)
        assert torch.equal(fc.confidence(logits)[0], expected)


@needs_kernels
@pytest.mark.parametrize("c", [4, 1000, 2049])
def test_the_kernel_answers_what_is_not_finite_with_nan(device, c):
    logits = normal(0, 5, c)
    expected, _ = run_on(device, fc.confidence)(logits)
    bad = logits.clone()
    bad[0, 1], bad[1, c - 1], bad[2, 2], bad[3] = float("nan"), float("inf"), -float("inf"), float("nan")
    confidence, prediction = run_on(device, torch.ops.pyfastcal.confidence)(bad, torch.ones(c), None)
    assert confidence.isnan().tolist() == [True, True, False, True, False] and confidence[4] == expected[4]
    assert ((prediction >= 0) & (prediction < c)).all()


@given(n=st.integers(1, 20), c=st.sampled_from((1, 2, 5, 16, 33, 100, 2500)), dtype=dtypes, seed=seeds)
def test_a_masked_class_has_probability_0(device, n, c, dtype, seed):
    logits, gamma = normal(seed, n, c, scale=3.0, dtype=dtype), weights(seed, c)
    keep = torch.rand(c, generator=torch.Generator().manual_seed(seed)) < 0.7
    keep[seed % c] = True
    masked = logits.masked_fill(~keep, -float("inf"))
    confidence, prediction = run_on(device, fc.confidence)(masked, class_weight=gamma)
    alone = run_on(device, fc.confidence)(logits[:, keep], class_weight=gamma[keep])
    torch.testing.assert_close(confidence, alone[0], rtol=1e-6, atol=0)
    assert torch.equal(prediction, keep.nonzero()[:, 0][alone[1]])


@needs_kernels
@pytest.mark.parametrize("c", [4, 1000, 2500])
def test_a_row_whose_classes_are_all_masked_is_nan(device, c):
    logits = normal(0, 3, c)
    logits[1] = -float("inf")
    confidence, prediction = run_on(device, torch.ops.pyfastcal.confidence)(logits, None, None)
    assert confidence.isnan().tolist() == [False, True, False] and 0 <= prediction[1] < c


def test_one_image(device):
    logits, gamma = normal(0, 3, 7), weights(0, 7)
    whole = run_on(device, fc.confidence)(logits, class_weight=gamma, sample_weight=torch.tensor([0.5, 2.0, 3.0]))
    one = run_on(device, fc.confidence)(logits[1], class_weight=gamma, sample_weight=torch.tensor(2.0))
    assert one[0].shape == one[1].shape == ()
    torch.testing.assert_close(one, (whole[0][1], whole[1][1]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("weight", [1e-15, 1.0, 1e15])
def test_every_weight_in_its_range_gives_a_confidence(device, weight):
    logits = torch.tensor([[1.0, 2.0, -3e38], [0.0, 0.0, 0.0]])
    w = torch.full((3,), weight, dtype=torch.float64), torch.full((2,), weight, dtype=torch.float64)
    confidence, _ = run_on(device, fc.confidence)(logits, class_weight=w[0], sample_weight=w[1])
    exact, _ = reference.confidence(logits.double(), class_weight=w[0], sample_weight=w[1])
    torch.testing.assert_close(confidence, exact.float(), rtol=1e-6, atol=0)


def test_numpy_in_numpy_out():
    logits = normal(0, 3, 4)
    confidence, prediction = fc.confidence(logits.numpy())
    assert type(confidence).__module__ == "numpy" and prediction.dtype.name == "int64"
    assert confidence.tolist() == fc.confidence(logits)[0].tolist()


X = torch.zeros(3, 4)
BAD = [
    ("logits", dict(logits=X[None]), "2 dimensions"),
    ("logits", dict(logits=X[:, :0]), "empty"),
    ("logits", dict(logits=X.long()), "floating point"),
    ("logits", dict(logits=[[1.0]]), "torch tensor"),
    ("logits", dict(logits=X.index_fill(1, torch.tensor(2), float("nan"))), "3 NaN"),
    (
        "logits",
        dict(logits=X.index_fill(1, torch.tensor(3), float("inf"))),
        "finite, or -inf .*3 NaN or infinite values",
    ),
    ("logits", dict(logits=X.index_fill(0, torch.tensor(1), -float("inf"))), "not masked .*alone in row 1"),
    (
        "class_weight",
        dict(logits=X, class_weight=torch.tensor([1.0, 1, 1, 1e39], dtype=torch.float64)),
        "lie in .1e-30, 1e.30., got 1e.39",
    ),
    ("sample_weight", dict(logits=X, sample_weight=torch.full((3,), 1e-31)), "lie in .1e-30, 1e.30., got 1e-31"),
    (
        "class_weight times sample_weight",
        dict(logits=X, class_weight=torch.full((4,), 1e16), sample_weight=torch.full((3,), 1e16)),
        "lie in .1e-30, 1e.30., got 1e.32",
    ),
    ("class_weight", dict(logits=X, class_weight=torch.ones(3)), "4 entries"),
    ("class_weight", dict(logits=X, class_weight=torch.tensor([1.0, 2, -1, 1])), "greater than 0, got -1"),
    ("class_weight", dict(logits=X, class_weight=torch.ones(4, dtype=torch.int64)), "floating point"),
    ("sample_weight", dict(logits=X, sample_weight=torch.ones(4)), "3 entries"),
    ("sample_weight", dict(logits=X, sample_weight=torch.tensor([1.0, float("nan"), 1])), "finite"),
    ("sample_weight", dict(logits=X, sample_weight=torch.ones(3, device="meta")), "must be on cpu"),
]


@pytest.mark.parametrize(("name", "arguments", "says"), BAD)
def test_bad_input(capability, name, arguments, says):
    with pytest.raises(ValueError, match=rf"^{name} .*{says}") as caught:
        fc.confidence(**arguments)
    assert "\n" not in str(caught.value)
