"""Proximity and textual deviation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyfastcal import reference
from pyfastcal.calibration.proximity import proximity, textual_deviation
from tests.devices import run_on

SEEDS = st.integers(0, 2**32 - 1)
FEATURES = ("tuned", "zeroshot", "base_tuned", "base_zeroshot")


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def by_hand(query: np.ndarray, bank: np.ndarray, k: int) -> float:
    return math.exp(-np.sort(np.linalg.norm(bank - query, axis=1))[:k].mean())


@given(SEEDS, st.integers(1, 5), st.integers(1, 8), st.data())
def test_proximity(seed, n, n_bank, data):
    queries, bank = normal(seed, n, 3), normal(seed + 1, n_bank, 3)
    k = data.draw(st.integers(1, n_bank))
    expected = [by_hand(q, unit(bank.numpy()), k) for q in unit(queries.numpy())]
    np.testing.assert_allclose(proximity(queries, bank, k), expected, rtol=1e-10)
    torch.testing.assert_close(proximity(queries, bank, k), reference.proximity(queries, bank, k))


def test_proximity_to_itself(device):
    x = normal(0, 6, 3).float()
    assert torch.equal(run_on(device, proximity)(x, x, 1), torch.ones(6))
    alone = run_on(device, proximity)(x, x, 2, exclude_self=True)
    rows = unit(x.numpy())
    np.testing.assert_allclose(alone, [by_hand(rows[i], np.delete(rows, i, axis=0), 2) for i in range(6)], rtol=1e-5)


def test_proximity_of_raw_features(device):
    got = run_on(device, proximity)(
        torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 2, normalize=False
    )
    assert got.item() == pytest.approx(math.exp(-2.5))


@given(SEEDS, st.integers(1, 6), st.integers(3, 7), st.integers(1, 3))
def test_textual_deviation_with_base_classes(device, seed, n_classes, n_base, k):
    zeroshot, base_zeroshot = normal(seed, n_classes, 6), normal(seed + 1, n_base, 6)
    tuned, base_tuned = zeroshot + 0.3 * normal(seed + 2, n_classes, 6), base_zeroshot + 0.3
    tuned[0] = 2 * base_tuned[0]  # a base class
    features = dict(tuned=tuned, zeroshot=zeroshot, base_tuned=base_tuned, base_zeroshot=base_zeroshot)
    gamma = run_on(device, textual_deviation)(**features, k=k)
    w, v, base_w, base_v = (unit(x.numpy()) for x in (tuned, zeroshot, base_tuned, base_zeroshot))
    for c in range(n_classes):
        nearest = np.linalg.norm(base_w - w[c], axis=1).min()
        expected = 1.0 if nearest < 0.05 else by_hand(w[c], base_w, k) / by_hand(v[c], base_v, k)
        assert gamma[c].item() == pytest.approx(expected, rel=1e-9)
    assert gamma[0] == 1
    torch.testing.assert_close(gamma, reference.textual_deviation(**features, k=k))


def test_textual_deviation_without_base_classes_leaves_each_class_out_of_its_own_neighbours():
    zeroshot, tuned = normal(0, 6, 5), normal(1, 6, 5)
    tuned[1] = tuned[0] + 1e-4  # close, yet not known to be a base class
    gamma = textual_deviation(tuned=tuned, zeroshot=zeroshot, k=2)
    w, v = unit(tuned.numpy()), unit(zeroshot.numpy())
    expected = [by_hand(w[c], np.delete(w, c, axis=0), 2) / by_hand(v[c], np.delete(v, c, axis=0), 2) for c in range(6)]
    np.testing.assert_allclose(gamma, expected, rtol=1e-9)


def test_base_threshold_is_a_distance_on_the_unit_sphere(device):
    base = torch.eye(5)
    near = torch.eye(5)[:1] + torch.tensor([[0.0, 0.04, 0, 0, 0]])
    features = dict(tuned=near, zeroshot=torch.ones(1, 5), base_tuned=base, base_zeroshot=base)

    def deviation(**options: float) -> torch.Tensor:
        return run_on(device, textual_deviation)(**features, k=1, **options)

    assert deviation() == 1
    assert deviation(base_threshold=0.03) != 1
    assert deviation(base_threshold=0.0) != 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_untuned_classes_keep_their_logits(device, dtype):
    zeroshot, base = normal(0, 6, 5).to(dtype), normal(1, 7, 5).to(dtype)
    deviation = run_on(device, textual_deviation)
    untuned, bank = dict(tuned=zeroshot, zeroshot=zeroshot), dict(base_tuned=base, base_zeroshot=base)
    assert torch.equal(deviation(**untuned, **bank), torch.ones(6, dtype=dtype))
    assert torch.equal(deviation(**untuned), torch.ones(6, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_features(device, dtype):
    features = {name: normal(i, 6, 8).to(dtype) for i, name in enumerate(FEATURES)}
    gamma = run_on(device, textual_deviation)(**features)
    assert gamma.dtype == torch.float32
    exact = reference.textual_deviation(**{name: f.double() for name, f in features.items()})
    torch.testing.assert_close(gamma.double(), exact, rtol=1e-5, atol=0)


def test_numpy_in_numpy_out():
    features = {name: normal(i, 6, 5).float() for i, name in enumerate(FEATURES)}
    arrays = {name: f.numpy() for name, f in features.items()}
    assert isinstance(proximity(arrays["tuned"], arrays["zeroshot"], 2), np.ndarray)
    np.testing.assert_array_equal(textual_deviation(**arrays), textual_deviation(**features).numpy())


GENERATOR = torch.Generator().manual_seed(0)
FIVE, SIX = (torch.rand(n, 4, generator=GENERATOR) + 0.1 for n in (5, 6))
NAN = SIX.clone()
NAN[2, 1] = torch.nan


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("tuned", {"tuned": SIX[0]}),
        ("tuned", {"tuned": SIX.int()}),
        ("tuned", {"tuned": SIX[:0], "zeroshot": SIX[:0]}),
        ("tuned", {"tuned": "text"}),
        ("tuned", {"tuned": NAN}),
        ("tuned", {"tuned": FIVE, "zeroshot": FIVE, "base_tuned": None, "base_zeroshot": None}),
        ("zeroshot", {"zeroshot": FIVE}),
        ("zeroshot", {"zeroshot": NAN * torch.inf}),
        ("base_tuned", {"base_tuned": None}),
        ("base_zeroshot", {"base_zeroshot": None}),
        ("base_tuned", {"base_tuned": SIX[:4], "base_zeroshot": SIX[:4]}),
        ("base_zeroshot", {"base_zeroshot": SIX[:4]}),
        ("base_tuned", {"base_tuned": SIX[:, :3]}),
        ("base_tuned", {"base_tuned": NAN}),
        ("base_zeroshot", {"base_zeroshot": FIVE}),
        ("k", {"k": 0}),
        ("k", {"k": 2.5}),
        ("base_threshold", {"base_threshold": -0.1}),
        ("base_threshold", {"base_threshold": math.nan}),
    ],
)
def test_bad_input_to_textual_deviation(name, arguments):
    good = {"tuned": SIX, "zeroshot": SIX, "base_tuned": SIX, "base_zeroshot": SIX}
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        textual_deviation(**{**good, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("queries", {"queries": SIX[None]}),
        ("queries", {"queries": NAN}),
        ("bank", {"bank": SIX[:, :2]}),
        ("bank", {"bank": NAN}),
        ("k", {"k": 7}),
        ("k", {"k": 6, "exclude_self": True}),
        ("k", {"k": 0}),
    ],
)
def test_bad_input_to_proximity(name, arguments):
    with pytest.raises(ValueError, match=f"^{name} "):
        proximity(**{"queries": SIX, "bank": SIX, "k": 2, **arguments})
