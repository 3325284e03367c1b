"""Gradients: those of the definition, a chunk of rows at a time; where there are none, a word about it."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal import ops, reference
from pyfastcal.ops import gradients

from ..devices import each_device, kernels_only
from .cases import dtypes, normal, seeds, weights

CALLS = {  # op, definition, arguments: (N, ...) first
    "confidence": (
        lambda x, w, v: fc.confidence(x, class_weight=w, sample_weight=v)[0],
        lambda x, w, v: reference.confidence(x, class_weight=w, sample_weight=v)[0],
        lambda s, n, c: (normal(s, n, c, scale=2.0), weights(s, c), weights(s, n)),
    ),
    "similarity_confidence": (
        lambda x, t, s, b, w, v: fc.similarity_confidence(x, t, s, logit_bias=b, class_weight=w, sample_weight=v)[0],
        lambda x, t, s, b, w, v: reference.similarity_confidence(
            x, t, s, logit_bias=b, class_weight=w, sample_weight=v
        )[0],
        lambda s, n, c: (
            normal(s, n, 12),
            normal(s + 1, c, 12),
            torch.tensor(5.0),
            normal(s, c),
            weights(s, c),
            weights(s, n),
        ),
    ),
    "similarity": (ops.similarity, reference.similarity, lambda s, n, c: (normal(s, n, 12), normal(s + 1, c, 12))),
    "contrast_distance": (
        lambda *f: ops.contrast_distance(*f[:4], on="probability", logit_scale=f[4]),
        lambda *f: reference.contrast_distance(*f[:4], on="probability", logit_scale=f[4]),
        lambda s, n, c: (
            normal(s, n, 12),
            normal(s, c, 12),
            normal(s + 1, n, 9),
            normal(s + 1, c, 9),
            torch.tensor(5.0),
        ),
    ),
}


def gradients_of(function, arguments, upstream):
    leaves = [x.detach().clone().requires_grad_() for x in arguments]
    value = function(*leaves)
    return value, torch.autograd.grad(value, leaves, upstream.to(value.dtype).to(value.device))


@pytest.mark.parametrize("name", CALLS)
@given(n=st.integers(0, 40), c=st.integers(1, 20), dtype=dtypes, seed=seeds, chunk=st.sampled_from((1, 64, 1 << 22)))
def test_gradients_are_those_of_the_definition(device, name, n, c, dtype, seed, chunk):
    ours, definition, make = CALLS[name]
    arguments = [x.to(dtype if x.ndim else torch.float32) for x in make(seed, n, c)]
    upstream = normal(seed + 9, n, c) if name == "similarity" else normal(seed + 9, n)
    exact, wanted = gradients_of(definition, [x.double() for x in arguments], upstream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "_CHUNK", chunk)
        value, found = gradients_of(ours, [x.to(device) for x in arguments], upstream)
    torch.testing.assert_close(value.cpu().double(), exact, rtol=1e-4, atol=1e-5)
    unit = 1e-4 if dtype == torch.float32 else 2e-2  # fp16 and bf16 gradients have their input's dtype
    for g, w, x in zip(found, wanted, arguments, strict=True):
        assert g.dtype == x.dtype and g.shape == x.shape
        size = float(w.abs().max()) if w.numel() else 0.0
        torch.testing.assert_close(g.cpu().double(), w, rtol=unit, atol=unit * (size + 1e-2))


@pytest.mark.parametrize("name", CALLS)
def test_gradients_of_fp64(name):
    ours, _, make = CALLS[name]
    arguments = [x.double().requires_grad_() for x in make(3, 5, 4)]
    assert torch.autograd.gradcheck(ours, arguments)


@pytest.mark.parametrize("name", CALLS)
def test_compiled(name):
    ours, _, make = CALLS[name]
    arguments = [x for x in make(1, 6, 5) if x.ndim]
    if name == "similarity_confidence":  # a scale that is a tensor is read
        ours = (lambda f: lambda x, t, b, w, v: f(x, t, 5.0, b, w, v))(ours)
    elif name == "contrast_distance":
        ours = (lambda f: lambda *features: f(*features, 5.0))(ours)
    upstream = normal(9, 6, 5) if name == "similarity" else normal(9, 6)
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for x, y in zip(
        gradients_of(ours, arguments, upstream)[1], gradients_of(compiled, arguments, upstream)[1], strict=True
    ):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


@each_device
def test_only_what_asks_for_a_gradient_gets_one(device):
    image, text = normal(0, 4, 8).to(device), normal(1, 3, 8).to(device).requires_grad_()
    confidence, prediction = fc.similarity_confidence(image, text)
    assert confidence.requires_grad and not prediction.requires_grad
    confidence.sum().backward()
    assert image.grad is None and text.grad is not None
    with torch.no_grad():
        assert torch.equal(fc.similarity_confidence(image, text)[0], confidence)
        assert not fc.similarity_confidence(image, text)[0].requires_grad


@kernels_only
def test_a_second_derivative_is_refused():
    text = normal(1, 3, 8).requires_grad_()
    (g,) = torch.autograd.grad(fc.similarity_confidence(normal(0, 4, 8), text)[0].sum(), text, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad|once_differentiable"):
        g.sum().backward()


@pytest.mark.parametrize(
    ("op", "call"),
    [
        ("knn", lambda x: fc.knn(x, x, 1)),
        ("nll", lambda x: ops.nll(x, torch.zeros(len(x), dtype=torch.int64))),
        ("log_density", lambda x: ops.log_density(x, x, torch.ones(2))),
    ],
)
def test_where_a_gradient_ends_a_warning_says_so_once(monkeypatch, op, call):
    monkeypatch.setattr(gradients, "_warned", set())
    x = normal(0, 4, 2).requires_grad_()
    with pytest.warns(UserWarning, match=f"{op} has no gradient") as caught:
        call(x)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(x)  # said already
        monkeypatch.setattr(gradients, "_warned", set())
        call(x.detach())
        with torch.no_grad():
            call(x)
