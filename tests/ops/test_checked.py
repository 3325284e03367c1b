"""The checked ops, which entries try first: one dispatch for a plain call, the bits of the op, no say in errors."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import pyfastcal as fc
from pyfastcal.ops import extension

from .cases import dtypes, normal, seeds, sizes, weights

pytestmark = pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")


class Dispatched(TorchDispatchMode):
    """Which ops a block calls."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name().removesuffix(".default"))
        return function(*args, **(kwargs or {}))


def ops_of(function, *args, **kwargs):
    with Dispatched() as seen:
        function(*args, **kwargs)
    return seen.names


def is_same(ours, plain, one):
    for a, b in zip(ours, plain, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b[0] if one else b)


@given(n=st.sampled_from((1, 3, 50)), c=sizes, dtype=dtypes, seed=seeds, weighted=st.booleans(), one=st.booleans())
def test_the_bits_of_the_op(n, c, dtype, seed, weighted, one):
    n = 1 if one else n
    image, text, bias = normal(seed, n, 24, dtype=dtype), normal(seed + 1, c, 24, dtype=dtype), normal(seed, c)
    logits = (image.float() @ text.float().T).to(dtype)
    by_class, by_row = (weights(seed, c), weights(seed + 7, n)) if weighted else (None, None)
    factors = {"class_weight": by_class, "sample_weight": by_row[0] if weighted and one else by_row}
    op = torch.ops.pyfastcal
    given = logits[0] if one else logits
    is_same(fc.confidence(given, **factors), op.confidence(logits, by_class, by_row), one)
    given = image[0] if one else image
    for normalize in (True, False):
        ours = fc.similarity_confidence(given, text, 3.0, logit_bias=bias, normalize=normalize, **factors)
        is_same(ours, op.similarity_confidence(image, text, 3.0, bias, by_class, by_row, normalize), one)


@given(q=st.sampled_from((1, 3, 40)), m=sizes, d=sizes, dtype=dtypes, seed=seeds, one=st.booleans(), data=st.data())
def test_the_bits_of_knn(q, m, d, dtype, seed, one, data):
    queries, bank = normal(seed, 1 if one else q, d, dtype=dtype), normal(seed + 1, m, d, dtype=dtype)
    k = data.draw(st.integers(1, m))
    given = queries[0] if one else queries
    for normalize in (True, False):
        is_same(
            fc.knn(given, bank, k, normalize=normalize),
            torch.ops.pyfastcal.knn(queries, bank, k, False, normalize),
            one,
        )


def test_one_dispatch_for_a_plain_search():
    queries, bank, checked = normal(0, 3, 8), normal(1, 9, 8), "pyfastcal::checked_knn"
    assert ops_of(fc.knn, queries, bank, 2) == ops_of(fc.knn, bank, bank, 2, exclude_self=True) == [checked]
    assert ops_of(fc.knn, queries[0], bank.bfloat16()[1:], k=2, normalize=False)[-1] == checked
    assert checked not in ops_of(fc.knn, queries.double(), bank, 2)
    for k in (10, 10**30):  # as large as no op takes
        with pytest.raises(ValueError, match=r"^k must "):
            fc.knn(queries, bank, k)


def test_one_dispatch_for_a_plain_call():
    logits, text, factors = normal(0, 3, 8), normal(1, 4, 8), {"class_weight": weights(0, 8)}
    checked = "pyfastcal::checked_confidence"
    assert ops_of(fc.confidence, logits) == [checked]
    assert ops_of(fc.confidence, logits.half(), **factors, sample_weight=weights(1, 3)) == [checked]
    assert ops_of(fc.confidence, torch.nn.Parameter(logits).detach(), **factors) == [checked]
    with torch.no_grad():
        assert ops_of(fc.confidence, logits.clone().requires_grad_()) == [checked]
    double = weights(1, 3).double()
    assert ops_of(fc.confidence, logits, sample_weight=double)[-1] == checked
    is_same(fc.confidence(logits, sample_weight=double), fc.confidence(logits, sample_weight=double.float()), False)
    assert ops_of(fc.similarity_confidence, logits, text, 50.0) == ["pyfastcal::checked_similarity_confidence"]


def test_a_row_has_the_bits_of_its_batch_where_no_variant_is_forced():
    """Few numbers take another variant there. In a process of its own: others force one."""
    code = """
        import torch, pyfastcal as fc
        divide = fc.TemperatureScaling(1.3)
        for c in (2, 5, 100, 1000):
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                logits = (torch.randn(2100 // c + 40, c, generator=torch.Generator().manual_seed(c)) * 5).to(dtype)
                confidence, prediction = fc.confidence(logits)
                scaled = divide(logits)
                for i in range(0, len(logits), 7):
                    assert torch.equal(fc.confidence(logits[i])[0], confidence[i]), (c, dtype, i)
                    assert torch.equal(fc.confidence(logits[i])[1], prediction[i]), (c, dtype, i)
                    assert torch.equal(divide(logits[i]), scaled[i]), (c, dtype, i)
    """
    environment = {name: x for name, x in os.environ.items() if name != "PYFASTCAL_CPU_CAPABILITY"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changed", "given"),
    [
        ("logits", lambda x: x.double()),
        ("logits", lambda x: x.clone().requires_grad_()),
        ("class_weight", lambda x: x.double()),
        ("class_weight", lambda x: x.clone().requires_grad_()),
        ("sample_weight", lambda x: x.half()),
        ("sample_weight", torch.nn.Parameter),
    ],
)
def test_what_is_not_plain_goes_the_whole_way(changed, given):
    arguments = {"logits": normal(0, 3, 8), "class_weight": weights(0, 8), "sample_weight": weights(1, 3)}
    expected = fc.confidence(**arguments)
    arguments[changed] = given(arguments[changed])
    confidence, prediction = fc.confidence(**arguments)
    assert confidence.requires_grad == arguments[changed].requires_grad
    torch.testing.assert_close(confidence.float(), expected[0], rtol=1e-3, atol=0)
    assert torch.equal(prediction, expected[1])


@pytest.mark.parametrize("factor", [1e-30, 1e-11, 2e6, 1e29])
def test_factors_that_the_checked_op_leaves_to_the_entry(factor):
    logits = normal(0, 3, 8) / factor
    by_class, by_row = torch.full((8,), factor), torch.ones(3)
    plain = torch.ops.pyfastcal.confidence(logits, by_class, by_row)
    is_same(fc.confidence(logits, class_weight=by_class, sample_weight=by_row), plain, False)
    is_same(fc.confidence(logits, class_weight=torch.ones(8), sample_weight=torch.full((3,), factor)), plain, False)
    with pytest.raises(RuntimeError, match=r"checked_confidence: class_weight must lie in .*, got a float32 tensor"):
        torch.ops.pyfastcal.checked_confidence(logits, by_class, None)


@pytest.mark.parametrize("factor", [0.0, -1.0, 1e31, float("nan"), float("inf")])
def test_an_error_is_the_entry_s(factor):
    logits, text = normal(0, 3, 8), normal(1, 8, 8)
    for name, n in (("class_weight", 8), ("sample_weight", 3)):
        x = torch.ones(n)
        x[-1] = factor
        for function, args in ((fc.confidence, (logits,)), (fc.similarity_confidence, (logits, text))):
            with pytest.raises(ValueError, match=rf"^{name} must "):
                function(*args, **{name: x})
    with pytest.raises(ValueError, match=r"^logit_scale must "):
        fc.similarity_confidence(logits, text, factor)
    if factor != factor or factor > 1e30:
        with pytest.raises(ValueError, match=r"^logit_bias must "):
            fc.similarity_confidence(logits, text, logit_bias=torch.full((8,), factor))


def test_calls_that_no_signature_takes():
    with pytest.raises(TypeError, match=r"^confidence\(\)"):
        fc.confidence()
    with pytest.raises(TypeError, match=r"^confidence\(\)"):
        fc.confidence(normal(0, 3, 8), weights(0, 8))
    with pytest.raises(ValueError, match=r"^logits must be a torch tensor"):
        fc.confidence([1.0, 2.0])


def test_a_device_without_numbers_is_not_taken_for_one():
    with pytest.raises(ValueError, match=r"^class_weight must be on cpu as logits is, got meta"):
        fc.confidence(normal(0, 3, 8), class_weight=weights(0, 8).to("meta"))
    assert fc.confidence(normal(0, 3, 8).to("meta"))[0].is_meta
