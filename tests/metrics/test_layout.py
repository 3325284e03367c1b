"""The layout of a state: its sums are exact at any count."""

from fractions import Fraction

import pytest
import torch

from pyfastcal.metrics import Accumulator
from pyfastcal.metrics.layout import Layout


def integers(accumulator: Accumulator) -> list[int]:
    """Rows, correct and confidence sum times 2^32 over all bins, in Python's integers."""
    table = accumulator._layout._table(accumulator.state)[:, accumulator._layout.fine :]
    count, correct, whole, low = (sum(x) for x in table.tolist())
    return [count, correct, (whole << 32) + low]


@pytest.mark.parametrize("power", [31, 32, 53, 54, 61])
def test_exact_where_counters_pass_every_limit(power):
    """Doubled 31 (where one int64 would overflow), 53 (where float64 stops counting) ... times, then one row more."""
    confidence, correct, proximity = torch.tensor([1.0, 0.7]), torch.tensor([True, False]), torch.tensor([0.5, 0.5])
    accumulator = Accumulator(means=("nll",)).update(confidence, correct, proximity, nll=torch.tensor([3.5, 0.25]))
    for _ in range(power):
        accumulator.merge(accumulator)
    accumulator.update(torch.tensor([0.3]), torch.tensor([True]), torch.tensor([0.5]), nll=torch.tensor([2.0**-32]))
    fixed = [round(Fraction(float(c)) * 2**32) for c in (1.0, torch.tensor(0.7), torch.tensor(0.3))]
    n = 2**power
    total = n * (fixed[0] + fixed[1]) + fixed[2]
    assert integers(accumulator) == [2 * n + 1, n + 1, total]
    assert int(accumulator.state[0]) == 2 * n + 1
    assert accumulator._layout._means(accumulator.state).flatten().tolist() == [
        *divmod((7 * n * 2**31) + (n * 2**30) + 1, 2**32),
        0,
    ]
    found = accumulator.compute()
    gaps = [0, n * fixed[1], 2**32 - fixed[2]]  # of the bins of 1.0, 0.7 and 0.3
    exact = Fraction(sum(gaps), 2**32 * (2 * n + 1))
    for name in ("ece", "ace", "piece"):
        assert float(found[name]) == pytest.approx(float(exact), rel=1e-14)
    assert float(found["confidence"]) == pytest.approx(float(Fraction(total, 2**32 * (2 * n + 1))), rel=1e-14)
    assert float(found["nll"]) == pytest.approx(1.875, rel=1e-14 if power > 50 else 1e-9)
    low, high = accumulator.error_intervals()["ace"]
    assert low <= float(exact) <= high
    assert torch.equal(Accumulator.from_bytes(accumulator.to_bytes()).state, accumulator.state)


@pytest.mark.parametrize("limit", [2**31, 2**32, 2**53, 2**62])
@pytest.mark.parametrize("sparse", [False, True])
def test_injected_counters_go_on_exactly(limit, sparse):
    """States just below a limit, the lower limb at its largest; then rows that carry everything across."""
    layout = Layout(4, fine=sparse)
    state = torch.zeros(layout.size, dtype=torch.int64)
    table = layout._table(state)
    before = [limit - 2, limit // 2 - 1, limit - 3, 2**32 - 1]
    table[:, layout.fine + 3] = torch.tensor(before)  # the last bin
    if sparse:
        table[:, layout.fine - 1] = torch.tensor(before)  # the last fine cell
    state[0] = limit - 2
    layout.add(state, torch.ones(5), torch.ones(5, dtype=torch.bool))
    counts = layout.read(state)
    expected = [limit + 3, limit // 2 + 4, limit + 2, 2**32 - 1]
    assert [int(x[3]) for x in counts.bins] == expected and counts.rows == limit + 3
    layout.add(state, torch.tensor([2.0**-32 + 0.75], dtype=torch.float64), torch.zeros(1))
    expected = [limit + 4, limit // 2 + 4, limit + 3, 3 * 2**30]
    assert [int(x[3]) for x in layout.read(state).bins] == expected
    if sparse:
        assert int(layout.read(state).fine.count.sum()) == limit + 4
