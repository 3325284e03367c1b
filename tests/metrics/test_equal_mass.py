"""Equal-mass errors from fine cells: what they are, and the interval that is proven to hold the exact value."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from pyfastcal import metrics, reference
from pyfastcal.metrics import equal_mass, limbs
from pyfastcal.metrics.cells import Cells
from pyfastcal.metrics.fine import FineCells

COARSE = FineCells(offset=2, precision=1)  # so few cells that starts share them and bounds are wide
VALUES = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.3, 0.30001, 0.5, 0.9, 1.0]))
ROWS = st.lists(st.tuples(VALUES, st.booleans(), VALUES), min_size=1, max_size=40)


def counted(cell, n_cells, confidence, correct) -> Cells:
    table = torch.zeros(4, n_cells, dtype=torch.int64)
    rows = torch.ones_like(cell), correct.long(), limbs.to_fixed(confidence.double())
    limbs.add_rows(table, cell, rows)
    return Cells.of(table)


def unzip(rows):
    confidence, correct, proximity = zip(*rows, strict=True)
    return torch.tensor(confidence), torch.tensor(correct), torch.tensor(proximity)


@given(ROWS, st.integers(1, 12))
def test_adaptive_error_of_cells_kept_whole(rows, n_bins):
    """The bins are those of the cells' numbers in place of the confidences; the interval holds the exact error."""
    confidence, correct, _ = unzip(rows)
    cell = COARSE(confidence.double())
    cells = counted(cell, COARSE.size, confidence, correct)
    group = reference.equal_mass_groups(cell.double(), n_bins)
    expected = sum(abs(float((confidence.double() - correct.double())[group == g].sum())) for g in range(n_bins))
    streamed = float(equal_mass.streamed_error(cells, n_bins))
    assert streamed == pytest.approx(expected / len(rows), abs=1e-9)
    lower, upper = COARSE.bounds()
    low, high = equal_mass.error_interval(cells, n_bins, lower[:, None], upper[:, None])
    exact = float(metrics.adaptive_calibration_error(confidence, correct, n_bins))
    assert float(low) <= min(streamed, exact) and max(streamed, exact) <= float(high)


@given(ROWS, st.integers(1, 5), st.integers(1, 6))
def test_piece_of_cells_kept_whole(rows, n_bins, n_groups):
    confidence, correct, proximity = unzip(rows)
    edges = reference.uniform_edges(n_bins)
    cell = COARSE(proximity.double()) * n_bins + reference.bin_index(confidence, edges)
    cells = counted(cell, COARSE.size * n_bins, confidence, correct)
    streamed = float(equal_mass.streamed_error(cells, n_groups, n_bins))
    low, high = equal_mass.grouped_interval(cells, n_groups, edges)
    exact = float(metrics.proximity_informed_ece(confidence, correct, proximity, n_bins, n_groups))
    assert float(low) <= min(streamed, exact) and max(streamed, exact) <= float(high)


@given(st.lists(st.tuples(VALUES, st.booleans()), min_size=1, max_size=30), st.integers(1, 6))
def test_exact_where_no_cell_holds_two_values(rows, n_bins):
    confidence, correct = (torch.tensor(x) for x in zip(*rows, strict=True))
    _, cell = confidence.unique(return_inverse=True)
    cells = counted(cell, 40, confidence, correct)
    assert equal_mass.streamed_error(cells, n_bins) == metrics.adaptive_calibration_error(confidence, correct, n_bins)


def chain(borders, total) -> float:
    path = torch.tensor([0.0, *borders, total], dtype=torch.float64)
    return float(path.diff().abs().sum())


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_extremes_against_every_corner_and_a_linear_program(seed, n_starts):
    """With every start in a cell of its own both are exact."""
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(n_starts, 1, dtype=torch.float64, generator=generator)
    wrong, right = torch.rand(2, n_starts, 1, dtype=torch.float64, generator=generator)
    total = torch.randn(1, dtype=torch.float64, generator=generator)
    alone = torch.zeros(n_starts, 1, dtype=torch.bool)
    least, largest = equal_mass._extremes(before, wrong, right, alone, total)
    low, high = (before - right)[:, 0].tolist(), (before + wrong)[:, 0].tolist()
    corners = itertools.product(*zip(low, high, strict=True))
    assert float(largest) == pytest.approx(max(chain(c, total) for c in corners), abs=1e-12)  # convex
    # the minimum: over F and d >= |F[g+1] - F[g]|, minimise sum d
    n = n_starts
    rows, right = [], []
    for g in range(n + 1):
        for sign in (1.0, -1.0):
            row = [0.0] * (2 * n + 1)
            row[n + g] = -1.0
            if g < n:
                row[g] += sign
            if g > 0:
                row[g - 1] -= sign
            rows.append(row)
            right.append(-sign * float(total) if g == n else 0.0)
    bounds = [*zip(low, high, strict=True), *[(0, None)] * (n + 1)]
    solved = linprog([0.0] * n + [1.0] * (n + 1), rows, right, bounds=bounds)
    assert float(least) == pytest.approx(solved.fun, abs=1e-9)


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 6))
def test_extremes_where_starts_share_a_cell(seed, n_starts, n_rows):
    """All splits of a cell's rows: none leaves the interval."""
    generator = torch.Generator().manual_seed(seed)
    excess = torch.rand(n_rows, dtype=torch.float64, generator=generator)
    excess = torch.where(torch.rand(n_rows, generator=generator) < 0.5, excess, excess - 1)
    before, after = torch.randn(2, dtype=torch.float64, generator=generator).tolist()
    wrong, right = excess.clamp(min=0).sum().view(1, 1), -excess.clamp(max=0).sum().view(1, 1)
    total = (before + excess.sum() + after).view(1)
    several = torch.tensor([[n_starts > 1]])
    least, largest = equal_mass._extremes(torch.tensor([[before]], dtype=torch.float64), wrong, right, several, total)
    below = [before, *(before + excess.cumsum(0)).tolist()]
    for borders in itertools.combinations_with_replacement(below, n_starts):
        assert float(least) - 1e-9 <= chain(borders, float(total)) <= float(largest) + 1e-9


def test_bins_off_in_the_same_direction_leave_nothing_uncertain():
    """Where moving a row from one bin to the next cannot change a sign, it cannot change the sum of both."""
    confidence = torch.rand(5000, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    correct = torch.rand(5000, generator=torch.Generator().manual_seed(1)) < confidence - 0.3
    accumulator = metrics.Accumulator(n_proximity_bins=None).update(confidence, correct)
    low, high = accumulator.error_intervals()["ace"]
    exact = float(metrics.adaptive_calibration_error(confidence, correct))
    assert high - low < 1e-11 and low <= exact <= high
    assert float(accumulator.compute()["ace"]) == pytest.approx(exact, abs=1e-11)


@pytest.mark.parametrize("power", [1, 0.05, 12])
def test_the_interval_is_narrow_on_calibrated_predictions(power):
    """The worst case for it: every bin's sign is chance."""
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(200_000, generator=generator) ** power
    correct = torch.rand(200_000, generator=generator) < confidence
    proximity = 0.3 + 0.2 * torch.rand(200_000, generator=generator)
    accumulator = metrics.Accumulator().update(confidence, correct, proximity)
    exact = metrics.adaptive_calibration_error(confidence, correct)
    exact_piece = metrics.proximity_informed_ece(confidence, correct, proximity)
    for name, value, width in (("ace", exact, 2e-3), ("piece", exact_piece, 2e-2)):
        low, high = accumulator.error_intervals()[name]
        assert low <= float(value) <= high and high - low < width
        assert abs(float(accumulator.compute()[name]) - float(value)) < 3e-4
