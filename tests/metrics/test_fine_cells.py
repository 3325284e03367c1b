"""Fine cells: monotone, finer towards the ends, and where ``bounds`` says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyfastcal.metrics.fine import CONFIDENCE, PROXIMITY, FineCells

CELLS = (CONFIDENCE, PROXIMITY, FineCells(offset=1, precision=1), FineCells(offset=3, precision=2))
cells = pytest.mark.parametrize("fine", CELLS)
values = st.one_of(
    st.floats(0, 1),
    st.floats(0, 1, width=32),
    st.integers(0, 60).map(lambda k: 2.0**-k),
    st.integers(1, 53).map(lambda k: 1 - 2.0**-k),
)


@cells
@given(st.lists(values, min_size=2, max_size=30))
def test_monotone_and_within_bounds(fine, numbers):
    x = torch.tensor(sorted(numbers), dtype=torch.float64)
    cell = fine(x)
    assert bool((cell.diff() >= 0).all())
    assert int(cell.min()) >= 0 and int(cell.max()) < fine.size
    lower, upper = fine.bounds()
    assert bool((lower[cell] <= x).all() and (x <= upper[cell]).all())


@cells
def test_every_cell_is_used_and_its_bounds_are_tight(fine):
    lower, upper = fine.bounds()
    assert lower.shape == upper.shape == (fine.size,)
    middle = (lower + upper) / 2
    middle[fine.half] = 0.5  # the only value of its cell
    cell = fine(middle)
    assert torch.equal(cell, torch.arange(fine.size))
    assert float((upper[:-1] - lower[1:]).abs().max()) < 1e-9


def test_zero_one_and_their_neighbours():
    ends = torch.tensor([0.0, -0.0, 1.0, 1 - 2.0**-24, 0.5], dtype=torch.float64)
    assert CONFIDENCE(ends).tolist() == [0, 0, CONFIDENCE.size - 1, CONFIDENCE.size - 1, CONFIDENCE.half]


def test_the_ends_are_finer():
    lower, upper = CONFIDENCE.bounds()
    width = (upper - lower).clamp(min=2.0**-18)
    assert float(width.max()) < 1.1e-3
    assert float(width[[0, -1]].max()) < 1e-5
