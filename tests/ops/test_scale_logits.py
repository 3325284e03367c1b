"""scale_logits and divide_logits: the bits of the torch operations in calibration/logit_scaling.py; what they refuse is
left to those."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pyfastcal as fc
from pyfastcal.calibration.logit_scaling import scale_logits as definition
from pyfastcal.ops import extension
from pyfastcal.ops.scale_logits import divide_logits, scale_logits

from .cases import normal, seeds, sizes, weights
from .test_checked import ops_of

pytestmark = pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")


def at_once(logits, kind, known):
    return divide_logits(logits, known) if kind == "temperature" else scale_logits(logits, **{kind: known})


def close_logits(n, c, seed, scale):
    """Logits among which neighbours of each row's maximum stand before and behind it, and masked ones."""
    generator = torch.Generator().manual_seed(seed)
    x = normal(seed, n, c, scale=scale)
    top = x.amax(1, keepdim=True)
    below = torch.nextafter(top, torch.full_like(top, -torch.inf))
    draw = torch.rand(n, c, generator=generator)
    x = torch.where(draw < 0.2, below, torch.where(draw < 0.25, top, x))
    return x.masked_fill((draw > 0.9) & (x < below), -torch.inf)


@given(
    n=st.sampled_from((0, 1, 3, 40)),
    c=sizes,
    seed=seeds,
    scale=st.sampled_from((1e-38, 1e-3, 1.0, 30.0, 1e30)),
    kind=st.sampled_from(("class_weight", "sample_weight", "temperature")),
    one=st.booleans(),
)
def test_the_bits_of_the_torch_operations(capability, n, c, seed, scale, kind, one):
    n = 1 if one else n
    logits = close_logits(n, c, seed, scale)
    prediction = logits.argmax(1)
    by_class, by_row = weights(seed, c), weights(seed + 7, n) * 1e-3
    temperature = torch.tensor(1.0 + seed % 97 / 31, dtype=torch.float64)
    known = {"class_weight": by_class, "sample_weight": by_row[0] if one else by_row, "temperature": temperature}[kind]
    factor = {
        "class_weight": by_class[prediction],
        "sample_weight": by_row,
        "temperature": (1 / temperature).float().expand(n),
    }[kind]
    ours = at_once(logits[0] if one else logits, kind, known)
    expected = definition(logits, factor)
    assert torch.equal(ours, expected[0] if one else expected)
    assert torch.equal(ours.argmax(-1), prediction[0] if one else prediction)


@given(
    n=st.sampled_from((1, 3, 40)),
    c=sizes,
    seed=seeds,
    scale=st.sampled_from((1e-7, 1e-4, 1.0, 1e3)),
    dtype=st.sampled_from((torch.float16, torch.bfloat16)),
    by_class=st.booleans(),
)
def test_the_bits_of_the_torch_operations_in_half_precision(capability, n, c, seed, scale, dtype, by_class):
    """Down to subnormal numbers of float16, and with many rows whose maximum must be lifted."""
    logits = close_logits(n, c, seed, scale).to(dtype)
    prediction, temperature = logits.argmax(1), torch.tensor(1.0 + seed % 97 / 31, dtype=torch.float64)
    weight = weights(seed, c) * 1e-2
    ours = at_once(logits, *(("class_weight", weight) if by_class else ("temperature", temperature)))
    assert ours.dtype == dtype
    assert torch.equal(
        ours, definition(logits, weight[prediction] if by_class else (1 / temperature).float().expand(n))
    )
    assert torch.equal(ours.argmax(1), prediction)


@given(
    n=st.sampled_from((1, 7, 8, 63, 300, 1500)),
    c=st.integers(1, 5),
    dtype=st.sampled_from((torch.float32, torch.float16, torch.bfloat16)),
    seed=seeds,
    scale=st.sampled_from((1e-6, 1.0, 30.0)),
    wrong=st.sampled_from((None, torch.nan, torch.inf, -torch.inf)),
)
def test_few_classes_of_one_factor(capability, n, c, dtype, seed, scale, wrong):
    """Lanes go across rows there: a row is what it is alone, and one that is none is found among many."""
    logits, temperature = close_logits(n, c, seed, scale).to(dtype), torch.tensor(1.3, dtype=torch.float64)
    if c == 1:
        logits = logits.clamp(min=-1e4)
    ours = divide_logits(logits, temperature)
    assert torch.equal(ours, definition(logits, (1 / temperature).float().expand(n)))
    for i in (0, n // 2, n - 1):
        assert torch.equal(ours[i], divide_logits(logits[i], temperature))
    if wrong is not None:
        logits[seed % n] = wrong
        assert divide_logits(logits, temperature) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_number_is_rounded_as_torch_rounds(capability, dtype):
    numbers = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    logits = numbers[numbers.isfinite()].reshape(-1, 32)
    for weight in (0.3, 1 / 3, 0.999):
        factor = torch.full((len(logits),), weight)
        assert torch.equal(scale_logits(logits, sample_weight=factor), definition(logits, factor))


@pytest.mark.parametrize(
    "row", [[1.0, torch.nan], [torch.inf, 1.0], [-torch.inf, -torch.inf], [3e38, 1.0], [-3e38, 0.0]]
)
def test_what_is_not_finite_is_refused(capability, row):
    logits = torch.tensor([[1.0, 2.0], row])
    assert scale_logits(logits, class_weight=torch.tensor([2.0, 2.0])) is None
    dac = fc.DistanceAwareCalibration()
    dac.class_weight = torch.tensor([2.0, 2.0])
    with pytest.raises(ValueError, match=r"^logits must "):
        dac(logits)


def test_masked_rows_among_others(capability):
    """A row whose factor is known is multiplied in one pass; one with masked logits is looked at again."""
    logits, temperature = normal(0, 6, 70), torch.tensor(1.7, dtype=torch.float64)
    logits[1, ::3] = logits[4, 65:] = -torch.inf
    ours = divide_logits(logits, temperature)
    assert torch.equal(ours, definition(logits, (1 / temperature).float().expand(6)))
    logits[5] = -torch.inf
    assert divide_logits(logits, temperature) is None


@pytest.mark.parametrize("factor", [0.0, -1.0, torch.nan, torch.inf])
def test_factors_that_are_none(factor):
    logits = normal(0, 3, 8)
    assert scale_logits(logits, class_weight=torch.full((8,), factor)) is None
    assert scale_logits(logits, sample_weight=torch.full((3,), factor)) is None
    assert divide_logits(logits, torch.tensor(1 / factor if factor else torch.inf).double()) is None


def test_what_is_not_plain_is_left_to_the_torch_operations():
    logits, weight, temperature = normal(0, 3, 8), weights(0, 8), torch.tensor(1.3, dtype=torch.float64)
    for other in (logits.double(), logits.T.contiguous().T, logits.clone().requires_grad_(), logits.numpy(), None):
        assert divide_logits(other, temperature) is None
        if not isinstance(other, np.ndarray):
            assert scale_logits(other, class_weight=weight) is None
    for other in (temperature.float(), temperature[None], temperature.clone().requires_grad_(), 1.3, None):
        assert divide_logits(logits, other) is None
    assert torch.func.vmap(lambda x: x if divide_logits(x, temperature) is None else None)(logits) is not None
    assert scale_logits(logits, class_weight=weight.half()) is None
    assert torch.equal(scale_logits(logits, class_weight=weight.double()), scale_logits(logits, class_weight=weight))
    assert scale_logits(logits, class_weight=weights(0, 7)) is None
    assert scale_logits(logits, class_weight=weight, sample_weight=weights(0, 3)) is None
    assert scale_logits(logits) is None


def test_calibrators_take_one_op():
    logits = normal(0, 3, 8)
    dac, temperature = fc.DistanceAwareCalibration(), fc.TemperatureScaling(1.7)
    dac.class_weight = weights(0, 8)
    for calibrator, op in ((dac, "scale_logits"), (temperature, "divide_logits")):
        assert ops_of(calibrator, logits) == [f"pyfastcal::{op}"]
        factor = calibrator.factor(logits)
        assert torch.equal(calibrator(logits), definition(logits, factor))
        assert torch.equal(calibrator(logits[1]), calibrator(logits)[1])
