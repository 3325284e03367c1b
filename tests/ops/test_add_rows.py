"""add_rows: the bits of the state that the torch operations of metrics/layout.py make, or a state left alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal.metrics import Accumulator
from pyfastcal.metrics.layout import Layout
from pyfastcal.ops import extension

from .cases import seeds
from .test_checked import ops_of

pytestmark = pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
EDGE_VALUES = [0.0, -0.0, 1.0, 1 + 2.0**-23, 0.5, 0.25, 0.1, 0.3, 0.7, 2.0**-8, 1 - 2.0**-8, 2.0**-40]


def values(n, seed, dtype):
    """Numbers in [0, 1], among them edges of bins and of fine cells, and their neighbours."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, generator=generator, dtype=torch.float64) ** 3
    edges = torch.tensor(EDGE_VALUES, dtype=torch.float64)[torch.randint(len(EDGE_VALUES), (n,), generator=generator)]
    x = torch.where(torch.rand(n, generator=generator) < 0.3, edges, x).to(dtype)
    beside = torch.where(torch.rand(n, generator=generator) < 0.5, 0.0, 2.0).to(dtype)
    moved = torch.where(
        torch.rand(n, generator=generator) < 0.2, torch.nextafter(x.float(), beside.float()).to(dtype), x
    )
    return torch.where((moved >= 0) & (moved <= 1 + 2.0**-23), moved, x)


@given(
    n=st.sampled_from((0, 1, 2, 50, 700)),
    dtype=st.sampled_from(DTYPES),
    near_dtype=st.sampled_from(DTYPES),
    n_bins=st.sampled_from((1, 2, 10, 15, 700)),
    closed=st.sampled_from(("left", "right")),
    fine=st.booleans(),
    grouped=st.booleans(),
    near=st.booleans(),
    ignore_index=st.sampled_from((None, 2, -1)),
    validate=st.booleans(),
    seed=seeds,
)
def test_the_bits_of_the_torch_operations(
    n, dtype, near_dtype, n_bins, closed, fine, grouped, near, ignore_index, validate, seed
):
    layout = Layout(n_bins, closed, fine=fine, n_proximity_bins=5 if grouped else None)
    generator = torch.Generator().manual_seed(seed)
    confidence = values(n, seed, dtype)
    proximity = values(n, seed + 1, near_dtype) if near and grouped else None
    prediction, labels = (torch.randint(4, (n,), generator=generator) for _ in range(2))
    if ignore_index == -1:
        labels = torch.where(torch.rand(n, generator=generator) < 0.2, -1, labels)
    if not validate and n:
        confidence[torch.rand(n, generator=generator) < 0.1] = torch.nan
        confidence[torch.rand(n, generator=generator) < 0.1] = 1.5
    states = torch.zeros(2, layout.size, dtype=torch.int64)
    for _ in range(2):
        kept = None if ignore_index is None else labels != ignore_index
        layout.add(states[0], confidence, prediction == labels, proximity, kept=kept, validate=validate)
        added = layout.added_at_once(
            states[1], confidence, prediction, labels, proximity, ignore_index=ignore_index, validate=validate
        )
        assert added
    assert torch.equal(*states)
    right, own = prediction == labels, torch.zeros_like(states[0])
    if ignore_index is None:
        assert layout.added_at_once(own, confidence, right, None, proximity, validate=validate)
        assert layout.added_at_once(own, confidence, right, None, proximity, validate=validate)
        assert torch.equal(own, states[0])


@pytest.mark.parametrize("fine", [False, True])
def test_sums_that_were_not_carried(fine):
    layout = Layout(10, fine=fine)
    state = torch.zeros(2, layout.size, dtype=torch.int64)
    state[:, -layout.columns :] = (7 << 32) + 5
    confidence, correct = values(50, 3, torch.float32), torch.arange(50) % 3 == 0
    layout.add(state[0], confidence, correct)
    assert layout.added_at_once(state[1], confidence, correct)
    assert torch.equal(*state)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("confidence", torch.tensor([0.5, 1.1])),
        ("confidence", torch.tensor([0.5, -1e-9])),
        ("confidence", torch.tensor([0.5, torch.nan])),
        ("confidence", torch.rand(2, 1)),
        ("confidence", torch.tensor([0, 1])),
        ("prediction", torch.tensor([0, -1])),
        ("prediction", torch.tensor([0.0, 1.0])),
        ("prediction", torch.tensor([0])),
        ("labels", torch.tensor([-5, 1])),
        ("labels", torch.tensor([True, False])),
        ("labels", torch.tensor([1, 2, 3])),
        ("proximity", torch.tensor([0.5, 2.0])),
        ("proximity", torch.tensor([torch.nan, 0.5])),
        ("proximity", torch.tensor([0.5])),
    ],
)
def test_what_is_wrong_is_named_and_leaves_the_state(name, bad):
    good = {
        "confidence": torch.rand(2),
        "prediction": torch.tensor([0, 1]),
        "labels": torch.tensor([1, 1]),
        "proximity": torch.rand(2),
    }
    metrics = fc.CalibrationMetrics()
    metrics.update(**good)
    before = metrics.state.clone()
    assert not metrics._layout.added_at_once(metrics.state, *(good | {name: bad}).values())
    with pytest.raises(ValueError, match=rf"^(confidence|{name}) must "):
        metrics.update(**(good | {name: bad}))
    assert torch.equal(metrics.state, before)


def test_updates_take_one_op():
    confidence, prediction, labels, near = torch.rand(9), torch.arange(9), torch.arange(9) % 3, torch.rand(9)
    whole, some, stream = fc.CalibrationMetrics(), fc.CalibrationMetrics(ignore_index=1, validate=False), Accumulator()
    calls = [
        (whole.update, (confidence, prediction, labels, near)),
        (some.update, (confidence, prediction, labels, near)),
        (fc.metrics.CalibrationError().update, (confidence, prediction, labels)),
        (stream.update, (confidence, prediction == labels, near)),
    ]
    for update, rows in calls:
        update(*rows)  # the edges of bins are made once
        assert ops_of(update, *rows) == ["pyfastcal::add_rows"]


@pytest.mark.parametrize("n", [4096, 4097, 100_000])
def test_many_rows(n):
    layout = Layout(15)
    states = torch.zeros(2, layout.size, dtype=torch.int64)
    confidence, correct = values(n, 1, torch.float32), torch.arange(n) % 3 == 0
    assert layout.added_at_once(states[0], confidence, correct) == (n <= 4096)
    layout.add(states[1], confidence, correct)
    assert n > 4096 or torch.equal(*states)
