"""A state is int64, of its layout's size, and its metric's alone, whatever is cast, loaded, set or merged."""

import copy
import pickle

import pytest
import torch
from torchmetrics import MetricCollection

import pyfastcal as fc
from pyfastcal.metrics import Accumulator
from tests.devices import needs_gpu

C, Y, P = torch.tensor([0.2, 0.9, 1.0]), torch.tensor([0, 1, 1]), torch.tensor([0.5, 0.6, 0.7])
PROBS = torch.tensor([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
MAKE = {
    "CalibrationError": lambda **o: fc.CalibrationError(**o),
    "CalibrationMetrics": lambda **o: fc.CalibrationMetrics(**o),
    "ClasswiseCalibrationError": lambda **o: fc.ClasswiseCalibrationError(2, **o),
}


def fed(name: str, times: int = 1, **options):
    metric = MAKE[name](**options)
    for _ in range(times):
        metric.update(*((PROBS, Y) if name.startswith("Classwise") else (C, Y, Y)))
    return metric


def value(metric):
    found = metric.compute()
    return found["ece"] if isinstance(found, dict) else found


CASTS = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "double": lambda m: m.double(),
    "to": lambda m: m.to(torch.float16),
    "to device and dtype": lambda m: m.to("cpu", torch.float64),
    "type": lambda m: m.type(torch.float16),
    "set_dtype": lambda m: m.set_dtype(torch.float16),
    "set_dtype int32": lambda m: m.set_dtype(torch.int32),
    "a function": lambda m: m._apply(lambda x: x.to(torch.int16)),
    "a module around it": lambda m: torch.nn.ModuleList([m]).half()[0],
    "a collection around it": lambda m: MetricCollection([m]).set_dtype(torch.bfloat16)[type(m).__name__],
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("name", MAKE)
def test_casts_leave_the_state_what_it_is(name, cast):
    metric = fed(name, 3)
    metric.state[0:1] += 0  # the state itself is looked at, not a copy
    before, expected = metric.state.clone(), value(fed(name, 3))
    metric = CASTS[cast](metric)
    assert metric.state.dtype == torch.int64 and torch.equal(metric.state, before)
    assert float(value(metric)) == pytest.approx(float(expected), abs=1e-3)  # what was computed may have been cast
    fresh = fed(name, 1)
    metric.merge_state(fresh)
    metric._computed = None
    assert torch.equal(value(metric), value(fed(name, 4)))
    metric.reset()
    assert metric.state.dtype == torch.int64 and not metric.state.any()


@pytest.mark.parametrize("name", MAKE)
def test_moves(name):
    away = fed(name).to("meta")
    assert away.state.is_meta
    with pytest.raises(ValueError, match="must be on a device that holds numbers, got meta$"):
        away.compute()
    back = torch.nn.ModuleList([away]).to_empty(device="cpu")[0]
    back.reset()
    back.update(*((PROBS, Y) if name.startswith("Classwise") else (C, Y, Y)))
    assert torch.equal(value(back), value(fed(name)))


WRONG = {
    "float32": lambda s: s.float(),
    "float64": lambda s: s.double(),
    "int32": lambda s: s.int(),
    "bool": lambda s: s.bool(),
    "shorter": lambda s: s[:-1],
    "longer": lambda s: torch.cat([s, s[:1]]),
    "one number": lambda s: s[:1],
    "0-d": lambda s: s[0],
    "matrix": lambda s: s[None],
    "strided": lambda s: torch.stack([s, s], 1)[:, 0],
    "expanded": lambda s: s[:1].expand(len(s)),
    "sparse": lambda s: s.to_sparse(),
    "list": lambda s: s.tolist(),
    "nothing": lambda s: None,
}
IMPOSSIBLE = {
    "negative": lambda s: -s,
    "fewer rows": lambda s: torch.cat([s[:1] - 1, s[1:]]),
    "more correct": lambda s: torch.cat(
        [s[: 1 + len(s) // 4], s[1 + len(s) // 4 : 1 + len(s) // 2] + 1, s[1 + len(s) // 2 :]]
    ),
    "beyond int64": lambda s: torch.full_like(s, 2**62),
}


@pytest.mark.parametrize("wrong", [*WRONG, *IMPOSSIBLE])
@pytest.mark.parametrize("name", MAKE)
def test_no_other_state_is_loaded(name, wrong):
    metric, other = fed(name), fed(name)
    other.persistent(True)
    (key,) = other.state_dict()
    before = metric.state.clone()
    if wrong in WRONG:
        tampered = {key: WRONG[wrong](other.state)}
        message = f"^{key} must be a contiguous int64 tensor of shape \\({len(before)},\\), got "
    else:
        tampered, message = {key: IMPOSSIBLE[wrong](other.state)}, f"^{key} must hold sums over the rows of a stream"
    with pytest.raises(ValueError, match=message):
        metric.load_state_dict(tampered)
    assert torch.equal(metric.state, before)
    if wrong in WRONG:
        with pytest.raises(ValueError, match=message):
            metric.merge_state(tampered)
        assert torch.equal(metric.state, before)
        setattr(metric, key, tampered[key])
        for use in (metric.compute, lambda: fed_again(metric), lambda: metric.state):
            with pytest.raises(ValueError, match=message):
                use()
    else:
        setattr(metric, key, tampered[key])
        with pytest.raises(ValueError, match="must hold sums over the rows of a stream, got numbers that no rows have"):
            metric.compute()


def fed_again(metric):
    metric.update(*((PROBS, Y) if isinstance(metric, fc.ClasswiseCalibrationError) else (C, Y, Y)))


@pytest.mark.parametrize("name", MAKE)
def test_a_state_on_no_device_is_not_loaded(name):
    metric = fed(name)
    key, state = metric._state_name, metric.state.to("meta")
    for take in (metric.load_state_dict, metric.merge_state):
        with pytest.raises(ValueError, match=f"^{key} must be on a device that holds numbers, got meta"):
            take({key: state})


@pytest.mark.parametrize("name", MAKE)
def test_a_loaded_state_is_the_metrics_own(name):
    """Two metrics that loaded one state_dict do not count in each other's rows, nor in the dictionary's."""
    source = fed(name)
    source.persistent(True)
    kept = source.state_dict()
    first, second = fed(name, 0), fed(name, 0)
    for metric in (first, second):
        metric.load_state_dict(kept)
        fed_again(metric)
    assert torch.equal(first.state, fed(name, 2).state) and torch.equal(second.state, first.state)
    assert torch.equal(kept[source._state_name], source.state) and torch.equal(source.state, fed(name).state)
    for same in (pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
        assert torch.equal(value(same), value(fed(name, 2)))


@pytest.mark.parametrize("wrong", WRONG)
def test_an_accumulator_takes_no_other_state(wrong):
    accumulator = Accumulator(means=("nll",)).update(C, Y == Y, P, nll=C)
    before = accumulator.state
    with pytest.raises(ValueError, match="^state must be a contiguous int64 tensor of shape "):
        accumulator.state = WRONG[wrong](before)
    assert accumulator.state is before
    accumulator.state = before.clone()
    assert torch.equal(accumulator.compute()["ece"], Accumulator().update(C, Y == Y, P).compute()["ece"])
    accumulator.state.resize_(3)  # in place, behind its back
    with pytest.raises(ValueError, match="^state must be a contiguous int64 tensor of shape "):
        accumulator.update(C, Y == Y, P, nll=C)


@pytest.mark.parametrize("wrong", IMPOSSIBLE)
def test_an_accumulator_computes_nothing_from_impossible_sums(wrong):
    accumulator = Accumulator().update(C, Y == Y, P)
    accumulator.state = IMPOSSIBLE[wrong](accumulator.state)
    for read in (accumulator.compute, accumulator.error_intervals):
        with pytest.raises(ValueError, match="^state must hold sums over the rows of a stream"):
            read()


def test_an_accumulator_of_counted_infinities():
    accumulator = Accumulator(means=("nll",)).update(C, Y == Y, P, nll=C * torch.inf)
    assert float(accumulator.compute()["nll"]) == torch.inf
    accumulator.state[3] = 4  # of three rows
    with pytest.raises(ValueError, match="^state must hold sums"):
        accumulator.compute()


def test_merging_with_something_else():
    for other in (None, 5, Accumulator().state, fed("CalibrationMetrics")):
        with pytest.raises(ValueError, match="^other must be an Accumulator, got "):
            Accumulator().merge(other)
    with pytest.raises(ValueError, match="^other must be on a device that holds numbers, got meta"):
        Accumulator().merge(Accumulator(device="meta"))


@needs_gpu
def test_a_state_is_loaded_where_the_metric_is():
    source = fed("CalibrationMetrics")
    source.persistent(True)
    metric = fc.CalibrationMetrics().cuda()
    metric.load_state_dict(source.state_dict())
    assert metric.state.is_cuda and torch.equal(metric.state.cpu(), source.state)
    metric.half().set_dtype(torch.float16)
    assert metric.state.dtype == torch.int64 and metric.state.is_cuda
