"""The accumulator: the functional forms' values, the same bits however the rows come, exact at any count."""

import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyfastcal import metrics
from pyfastcal.metrics import Accumulator, limbs
from tests.devices import needs_gpu, never_waiting


def rows(seed: int, n: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Over-confident rows with ties, exact zeros and ones: confidence, correct, proximity."""
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(n, generator=generator) ** 0.2
    confidence[::7] = (confidence[::7] * 10).round() / 10
    confidence[3::11] = 1.0
    correct = torch.rand(n, generator=generator) < confidence**2
    return confidence.to(dtype), correct, torch.rand(n, generator=generator)


@given(
    n=st.sampled_from((1, 2, 255, 8000, 8001, 20_000)),
    n_bins=st.sampled_from((1, 3, 10, 15, 100, 3000)),
    closed=st.sampled_from(("left", "right")),
    dtype=st.sampled_from((torch.float32, torch.float16, torch.bfloat16, torch.float64)),
    seed=st.integers(0, 2**31),
)
def test_fixed_bins_are_the_functional_values_to_the_bit(n, n_bins, closed, dtype, seed):
    confidence, correct, proximity = rows(seed, n, dtype)
    for near in (10, None):
        accumulator = Accumulator(n_bins, closed=closed, n_proximity_bins=near)
        accumulator.update(confidence, correct, proximity if near else None)
        found = accumulator.compute()
        expected = metrics.expected_calibration_error(confidence, correct, n_bins, closed=closed)
        assert torch.equal(found["ece"], expected)
        if closed == "left":
            assert torch.equal(found["mce"], metrics.maximum_calibration_error(confidence, correct, n_bins))
            weighted = metrics.maximum_calibration_error(confidence, correct, n_bins, weighted=True)
            assert torch.equal(found["mce_weighted"], weighted)
        assert float(found["accuracy"]) == float(correct.double().mean())
        assert float(found["confidence"]) == pytest.approx(float(confidence.double().mean()), abs=1e-9)
        assert set(found) - {"piece"} == {"accuracy", "confidence", "ece", "ace", "mce", "mce_weighted"}


def test_equal_mass_values_are_near_the_exact_ones_and_the_interval_holds_them():
    confidence, correct, proximity = rows(0, 30_000)
    accumulator = Accumulator().update(confidence, correct, proximity)
    found, intervals = accumulator.compute(), accumulator.error_intervals()
    exact = {
        "ace": metrics.adaptive_calibration_error(confidence, correct),
        "piece": metrics.proximity_informed_ece(confidence, correct, proximity),
    }
    for name, value in exact.items():
        low, high = intervals[name]
        assert low <= float(value) <= high and low <= float(found[name]) <= high
        assert float(found[name]) == pytest.approx(float(value), abs=2e-4)


def test_the_same_bits_for_any_split_order_merge_and_number_of_threads(threads):
    confidence, correct, proximity = rows(1, 30_000)
    nll = -confidence.double().clamp(min=1e-3).log()
    make = lambda: Accumulator(means=("nll",))  # noqa: E731
    whole = make().update(confidence, correct, proximity, nll=nll)
    data = whole.to_bytes()
    order = torch.randperm(30_000, generator=torch.Generator().manual_seed(0))
    for n_threads, step in ((1, 30_000), (2, 777), (3, 9001)):
        threads(n_threads)
        parts = [make(), make(), make()]
        for i, chosen in enumerate(order.split(step)):
            parts[i % 3].update(confidence[chosen], correct[chosen], proximity[chosen], nll=nll[chosen])
        merged = parts[2].merge(parts[0]).merge(parts[1])
        assert torch.equal(merged.state, whole.state)
        assert merged.to_bytes() == data
        assert all(torch.equal(a, b) for a, b in zip(merged.compute().values(), whole.compute().values(), strict=True))


def test_a_soak_against_integer_arithmetic():
    """Few rows many times over: what benchmarks of a thousand million rows run, in small."""
    from scripts.checks.soak import soak

    result = soak(2_000_000, batch=20_000)
    assert result["rows"] == 2_000_000 and result["exact"]
    for name in ("all metrics", "ECE alone"):
        assert result[name]["MB resident at the end"] - result[name]["MB resident at a tenth"] < 10


def test_states_of_any_stream_have_the_same_size():
    sizes = {Accumulator().update(*rows(0, n)).state.numel() for n in (1, 1000, 100_000)}
    assert len(sizes) == 1
    assert 8 * sizes.pop() < 1_000_000


def test_means():
    confidence, correct, _ = rows(0, 1000)
    nll, brier = -confidence.double().clamp(min=0.01).log(), torch.linspace(-2, 2, 1000)
    accumulator = Accumulator(n_proximity_bins=None, means=("nll", "brier"))
    accumulator.update(confidence, correct, nll=nll, brier=brier)
    found = accumulator.compute()
    assert float(found["nll"]) == pytest.approx(float(nll.mean()), abs=1e-9)
    assert float(found["brier"]) == pytest.approx(0, abs=1e-9)
    huge = torch.tensor([2.0**29, torch.inf])
    accumulator.update(confidence[:1], correct[:1], nll=huge[:1], brier=huge[:1])
    assert float(accumulator.compute()["nll"]) == pytest.approx(2.0**29 / 1001, rel=1e-6)
    accumulator.update(confidence[:1], correct[:1], nll=huge[1:], brier=huge[:1])
    assert float(accumulator.compute()["nll"]) == torch.inf and float(accumulator.compute()["brier"]) < torch.inf


def test_no_rows_and_missing_proximities():
    nothing = Accumulator().compute()
    assert all(value.isnan() for value in nothing.values())
    assert Accumulator().update(torch.zeros(0), torch.zeros(0)).rows == 0
    confidence, correct, proximity = rows(0, 100)
    accumulator = Accumulator().update(confidence, correct, proximity)
    assert not accumulator.compute()["piece"].isnan() and "piece" in accumulator.error_intervals()
    accumulator.update(confidence, correct)
    assert accumulator.compute()["piece"].isnan() and "piece" not in accumulator.error_intervals()
    twice = metrics.expected_calibration_error(confidence.repeat(2), correct.repeat(2))
    assert torch.equal(accumulator.compute()["ece"], twice)
    assert accumulator.reset().rows == 0


def test_bytes():
    accumulator = Accumulator(7, closed="right", n_proximity_bins=3, means=("nll",))
    accumulator.update(*rows(0, 500), nll=torch.rand(500))
    data = accumulator.to_bytes()
    again = Accumulator.from_bytes(data)
    assert again.config == accumulator.config and torch.equal(again.state, accumulator.state)
    assert len(data) < 20_000
    again.update(*rows(1, 10), nll=torch.rand(10))  # the tensor can be written to
    head = len(b"pyfastcal.accumulator/1\n")
    short = data[:head] + zlib.compress(zlib.decompress(data[head:])[:-8])
    for bad in (b"", b"something else", data[:-20], data[:40], short):
        with pytest.raises(ValueError, match="^data must be the bytes of an accumulator"):
            Accumulator.from_bytes(bad)


def test_a_flipped_bit_is_refused_or_changes_nothing():
    """The latter in a run of zeros, which may be copied from here or from there."""
    accumulator = Accumulator(7, n_proximity_bins=3).update(*rows(0, 500))
    data, refused = accumulator.to_bytes(), 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        try:
            found = Accumulator.from_bytes(bytes(damaged))
        except ValueError as error:
            assert str(error).startswith("data must be the bytes of an accumulator")
            refused += 1
        else:
            assert found.config == accumulator.config and torch.equal(found.state, accumulator.state)
    assert refused > 0.5 * len(data)


def test_merging_another_configuration_is_refused():
    with pytest.raises(ValueError, match="^other must have the configuration"):
        Accumulator(10).merge(Accumulator(11))


C, K, P = torch.tensor([0.2, 0.9]), torch.tensor([True, False]), torch.tensor([0.5, 0.6])
BAD = [
    ("confidence", dict(confidence=C + 0.2)),
    ("confidence", dict(confidence=-C)),
    ("confidence", dict(confidence=C * torch.nan)),
    ("confidence", dict(confidence=C[None])),
    ("confidence", dict(confidence=C.long())),
    ("confidence", dict(confidence=[0.2, 0.9])),
    ("correct", dict(correct=K[:1])),
    ("correct", dict(correct=torch.tensor([0, 2]))),
    ("correct", dict(correct=K.to("meta"))),
    ("proximity", dict(proximity=P[:1])),
    ("proximity", dict(proximity=P + 1)),
    ("proximity", dict(proximity=P * torch.nan)),
    ("proximity", dict(proximity=P.to("meta"))),
    ("nll", dict(nll=None)),
    ("nll", dict(nll=C[:1])),
    ("nll", dict(nll=C * torch.nan)),
    ("brier", dict(brier=C)),
]


@pytest.mark.parametrize(("name", "wrong"), BAD)
def test_bad_rows_leave_the_state_as_it_was(name, wrong):
    accumulator = Accumulator(means=("nll",))
    good = dict(confidence=C, correct=K, proximity=P, nll=C)
    accumulator.update(**good)
    before = accumulator.state.clone()
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        accumulator.update(**{**good, **wrong})
    assert "\n" not in str(caught.value)
    assert torch.equal(accumulator.state, before)


def test_bad_options():
    for name, wrong in (
        ("n_bins", dict(n_bins=0)),
        ("closed", dict(closed="both")),
        ("n_proximity_bins", dict(n_proximity_bins=0)),
        ("means", dict(means=("nll", "nll"))),
        ("means", dict(means=(1,))),
    ):
        with pytest.raises(ValueError, match=f"^{name} "):
            Accumulator(**wrong)
    with pytest.raises(ValueError, match="^proximity must be None"):
        Accumulator(n_proximity_bins=None).update(C, K, P)


@pytest.mark.parametrize("bad", [1.5, -0.25, torch.nan])
def test_what_was_not_looked_at_raises_when_computed(bad):
    wrong = torch.tensor([0.2, bad])
    accumulator = Accumulator().update(wrong, K, P, validate=False)
    with pytest.raises(ValueError, match=r"^confidence and proximity must lie in \[0, 1\], got 1 row that did not"):
        accumulator.compute()
    with pytest.raises(ValueError, match="^confidence and proximity"):
        Accumulator().update(C, K, wrong, validate=False).compute()
    assert limbs.to_float(*limbs.total(*accumulator._layout._table(accumulator.state)[2:])) < 0.5


def test_an_update_reads_nothing_back():
    """On a device whose numbers cannot be had any look at them raises."""
    accumulator = Accumulator(means=("nll",), device="meta")
    for validate in (True, False):
        accumulator.update(*(x.to("meta") for x in (C, K, P)), nll=C.to("meta"), validate=validate)
    with pytest.raises(ValueError, match="^confidence must be on meta"):
        accumulator.update(C, K, P, nll=C)


@needs_gpu
def test_a_gpu_gives_the_same_bits_and_is_not_waited_for():
    confidence, correct, proximity = rows(3, 30_000)
    expected = Accumulator().update(confidence, correct, proximity)
    moved = [x.cuda() for x in (confidence, correct, proximity)]
    accumulator = Accumulator(device="cuda")
    with never_waiting():
        accumulator.update(*moved)
    assert torch.equal(accumulator.state.cpu(), expected.state)
    assert all(
        torch.equal(a.cpu(), b)
        for a, b in zip(accumulator.compute().values(), expected.compute().values(), strict=True)
    )
