"""nll: value and derivatives against fp64 and against torch's own loss and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from pyfastcal import ops, reference
from pyfastcal.ops import extension

from ..devices import needs_gpu, run_on
from .cases import KERNEL_DTYPES, dtypes, normal, scales, seeds, sizes


def classes(seed: int, n: int, c: int) -> torch.Tensor:
    return torch.randint(c, (n,), generator=torch.Generator().manual_seed(seed))


def assert_close(ours, logits, labels, beta):
    """Each of the three within twice the error of plain torch at the same precision, plus a few ulps of what it is made
    of: the value and the derivatives are differences of numbers as large as the logits."""
    exact = reference.nll(logits.double(), labels, beta)
    naive = reference.nll(logits, labels, beta)
    size = 2 * float(logits.abs().max())
    unit = torch.tensor([1 + beta * size, size, size**2], dtype=torch.float64)
    assert ours.shape == (3,) and ours.dtype == torch.float64 and torch.isfinite(ours).all()
    allowed = 2 * (naive - exact).abs() + 4 * 2.0**-23 * unit
    assert ((ours - exact).abs() <= allowed).all(), (ours - exact, allowed)


@given(n=st.sampled_from((1, 3, 50)), c=sizes, dtype=dtypes, seed=seeds, scale=scales, beta=st.floats(1e-3, 20))
def test_matches_the_definition(device, n, c, dtype, seed, scale, beta):
    logits, labels = normal(seed, n, c, scale=scale, dtype=dtype), classes(seed, n, c)
    assert_close(run_on(device, ops.nll)(logits, labels, beta), logits, labels, beta)


@pytest.mark.parametrize("c", [1000, 2047, 2048, 2049, 65_537])
@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
def test_long_rows(device, c, dtype):
    logits, labels = normal(3, 5, c, scale=4.0, dtype=dtype), classes(3, 5, c)
    assert_close(run_on(device, ops.nll)(logits, labels, 0.7), logits, labels, 0.7)


def test_errors_average_out(device):
    """Neither fp32 powers nor the rounding of beta leave a bias."""
    logits, labels = normal(1, 20_000, 100, scale=3.0), classes(1, 20_000, 100)
    for beta in (1.0, 0.3141592653589793, 1.7):
        exact = reference.nll(logits.double(), labels, beta)
        error = run_on(device, ops.nll)(logits, labels, beta) / exact - 1
        assert (error.abs() <= torch.tensor([2e-8, 2e-8, 4e-7])).all(), error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_the_loss_of_torch_with_its_derivatives(device, dtype):
    logits, labels = normal(2, 40, 30, scale=5.0, dtype=dtype), classes(2, 40, 30)
    beta = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    loss = cross_entropy(beta * logits.double(), labels)
    (slope,) = torch.autograd.grad(loss, beta, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, beta)
    expected = torch.stack([loss.detach(), slope.detach(), curvature])
    torch.testing.assert_close(
        run_on(device, ops.nll)(logits, labels, 0.8), expected, rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=0
    )


@pytest.mark.parametrize("top", [1e-10, 1e-3, 1.0, 1e4, 1e8, 1e30])
@pytest.mark.parametrize("beta", [1e-30, 1e-3, 1.0, 1e5])
def test_extreme_logits_and_temperatures(device, top, beta):
    logits = top * torch.tensor([[1.0, 0.5, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -1.0, -1.0]])
    for labels in (torch.tensor([0, 3, 1]), torch.tensor([3, 0, 2])):
        exact = reference.nll(logits.double(), labels, beta)
        ours = run_on(device, ops.nll)(logits, labels, beta)
        unit = torch.tensor([1 + beta * top, top, top * top], dtype=torch.float64)
        known = 3 if beta * top > 1e-15 else 1 if beta * top < 1e-30 else 2  # the others drown in fp32's denormals
        torch.testing.assert_close((ours / unit)[:known], (exact / unit)[:known], rtol=0, atol=1e-6)


def test_confident_rows_keep_their_small_derivatives(device):
    """The terms of other classes are lost in the sum beside 1, not in the derivatives."""
    logits = torch.tensor([[0.0, -30.0, -40.0]])
    ours = run_on(device, ops.nll)(logits, torch.tensor([0]), 1.0)
    torch.testing.assert_close(ours[1:], reference.nll(logits.double(), torch.tensor([0]))[1:], rtol=1e-5, atol=0)


def test_one_class_costs_nothing(device):
    ours = run_on(device, ops.nll)(normal(0, 9, 1), torch.zeros(9, dtype=torch.int64), 2.0)
    torch.testing.assert_close(ours, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-7)


def test_same_bits_on_any_number_of_threads_and_any_layout(device, threads):
    whole, labels = normal(5, 5001, 70).to(device), classes(5, 5001, 35).to(device)
    logits = whole[:, ::2].contiguous()
    expected = ops.nll(logits, labels, 0.9)
    for n in (1, 2, 7):
        threads(n)
        assert torch.equal(ops.nll(logits, labels, 0.9), expected)
    assert torch.equal(ops.nll(whole[:, ::2], labels, 0.9), expected)
    assert torch.equal(ops.nll(whole[:, :35], labels, 0.9), ops.nll(whole[:, :35].contiguous(), labels, 0.9))
    assert torch.equal(ops.nll(logits, labels.to(torch.int16), 0.9), expected)


@pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")
@pytest.mark.parametrize("c", [4, 1000, 2049])
def test_the_kernel_answers_what_is_not_finite_with_nan(device, c):
    labels = classes(0, 5, c)
    for value, column in ((float("nan"), c - 1), (float("inf"), c - 1), (-float("inf"), int(labels[3]))):
        logits = normal(0, 5, c)
        logits[3, column] = value
        assert run_on(device, torch.ops.pyfastcal.nll)(logits, labels, 1.0)[0].isnan()


LABELS = [-1, 9, 10**9, 2**40, -(2**63), 2**63 - 1]  # that are no class of 9


@needs_gpu
@pytest.mark.parametrize("label", LABELS)
def test_a_label_that_is_no_class_makes_nan_on_a_gpu(label):
    logits, labels = normal(0, 5, 9), classes(0, 5, 9)
    labels[2] = label
    assert run_on("cuda", ops.nll)(logits, labels).isnan().all()


@pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")
@pytest.mark.parametrize("label", LABELS)
def test_a_label_that_is_no_class_makes_nan_where_nothing_can_check_it(device, label):
    logits, labels = normal(0, 5, 9), classes(0, 5, 9)
    labels[2] = label
    assert run_on(device, torch.ops.pyfastcal.nll)(logits, labels, 1.0).isnan().all()
    torch._dynamo.reset()
    compiled = torch.compile(ops.nll, fullgraph=True, backend="eager")
    assert run_on(device, compiled)(logits, labels).isnan().all()


@given(n=st.integers(1, 20), c=st.sampled_from((2, 5, 33, 2500)), seed=seeds, beta=st.sampled_from((1e-3, 1.0, 30.0)))
def test_masked_classes_count_nothing(device, n, c, seed, beta):
    logits, labels = normal(seed, n, c), classes(seed, n, c)
    mask = (torch.rand(n, c, generator=torch.Generator().manual_seed(seed)) < 0.5).scatter_(1, labels[:, None], False)
    logits[mask] = -float("inf")
    expected = torch.stack(
        [
            ops.nll(x[~m][None].double(), (~m)[:y].sum()[None], beta)
            for x, m, y in zip(logits, mask, labels, strict=True)
        ]
    ).mean(0)
    torch.testing.assert_close(run_on(device, ops.nll)(logits, labels, beta), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ops.nll(logits.double(), labels, beta), expected, rtol=1e-10, atol=1e-12)


X, Y = torch.zeros(3, 4), torch.tensor([0, 1, 2])
BAD = [
    ("logits", dict(logits=X[0], labels=Y), "2 dimensions"),
    ("logits", dict(logits=X[:0], labels=Y[:0]), "empty"),
    ("logits", dict(logits=X[:, :0], labels=Y), "empty"),
    ("logits", dict(logits=X.long(), labels=Y), "floating point"),
    *(
        ("logits", dict(logits=X.index_fill(1, torch.tensor(column), value), labels=Y), "3 NaN or infinite")
        for column in (0, 3)
        for value in (float("nan"), float("inf"))
    ),
    ("logits", dict(logits=X.index_fill(0, torch.tensor(2), -float("inf")), labels=Y), "not masked .*row 2"),
    ("labels", dict(logits=X.index_fill(1, torch.tensor(1), -float("inf")), labels=Y), "not be masked .*row 1"),
    ("labels", dict(logits=X, labels=Y[:2]), "3 entries"),
    ("labels", dict(logits=X, labels=Y.float()), "integers"),
    ("labels", dict(logits=X, labels=Y + 2), r"in \[0, 4\), got 4"),
    ("labels", dict(logits=X, labels=Y - 1), "got -1"),
    ("labels", dict(logits=X, labels=Y.to("meta")), "must be on cpu"),
    ("beta", dict(logits=X, labels=Y, beta=0.0), "at least 1e-30"),
    ("beta", dict(logits=X, labels=Y, beta=float("inf")), "finite"),
    ("beta", dict(logits=X, labels=Y, beta="1x"), "must be a number"),
]


@pytest.mark.parametrize(("name", "arguments", "says"), BAD)
def test_bad_input(capability, name, arguments, says):
    with pytest.raises(ValueError, match=rf"^{name} .*{says}") as caught:
        ops.nll(**arguments)
    assert "\n" not in str(caught.value)
