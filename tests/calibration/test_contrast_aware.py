"""contrast_weight and ContrastAwareCalibration."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from pyfastcal import reference
from pyfastcal.calibration import ContrastAwareCalibration, contrast_weight
from pyfastcal.calibration.contrast_fit import LossTable
from tests.devices import each_device, run_on

READINGS = ["similarity", "probability"]
USUAL = "ignore:the median contrast weight"


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def features(seed: int = 0, n: int = 40, n_classes: int = 7, moved: float = 0.02) -> tuple[torch.Tensor, ...]:
    """Image and text features of a tuned and of a zero-shot model."""
    image, text = normalize(normal(seed, n, 16)), normalize(normal(seed + 1, n_classes, 16))
    return (
        image,
        text + moved * normal(seed + 2, n_classes, 16),
        image + moved * normal(seed + 3, n, 16),
        text,
    )


def both_logits(scale: float = 100.0, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
    image, text, zeroshot_image, zeroshot_text = map(normalize, features(**kwargs))
    return scale * image @ text.T, scale * zeroshot_image @ zeroshot_text.T


def by_hand(p, q, alpha=1.1, k=15.0, lambda1=0.9, lambda2=1.0, on="similarity", logit_scale=100.0):
    p, q = p.double().numpy(), q.double().numpy()
    if on == "probability":
        p, q = (np.exp(logit_scale * x) / np.exp(logit_scale * x).sum(1, keepdims=True) for x in (p, q))
    weights = []
    for z in np.abs(p - q).mean(axis=1):
        gamma = alpha * np.exp(-k * z)
        weights.append(gamma if lambda1 <= gamma <= lambda2 else gamma**2)
    return np.array(weights)


@pytest.mark.filterwarnings(USUAL)
@given(st.integers(0, 2**32 - 1), st.floats(0.7, 1.4), st.floats(0, 25), st.sampled_from(READINGS))
def test_contrast_weight(seed, alpha, k, on):
    tuned, zeroshot = (x.double() for x in both_logits(1.0, seed=seed, n=6))
    got = contrast_weight(tuned, zeroshot, alpha=alpha, k=k, on=on, logit_scale=20.0)
    np.testing.assert_allclose(got, by_hand(tuned, zeroshot, alpha, k, on=on, logit_scale=20.0), rtol=1e-9)
    twin = reference.contrast_weight(tuned, zeroshot, alpha=alpha, k=k, on=on, logit_scale=20.0)
    torch.testing.assert_close(got, twin)


def test_squared_outside_the_lambdas_only():
    z = -torch.log(torch.tensor([0.5, 0.89, 0.9, 0.95, 1.0, 1.01], dtype=torch.float64))
    weight = reference.weight_of_distance(z, alpha=1.0, k=1.0, lambda1=0.9 - 1e-9, lambda2=1 + 1e-9)
    np.testing.assert_allclose(weight, [0.25, 0.89**2, 0.9, 0.95, 1.0, 1.01**2], rtol=1e-9)


def test_without_tuning_the_weight_is_alpha_squared():
    x = normal(0, 4, 5).tanh()
    torch.testing.assert_close(contrast_weight(x, x), torch.full((4,), 1.1**2))
    assert torch.equal(contrast_weight(x, x, alpha=1.0), torch.ones(4))


def test_logits_in_place_of_similarities_are_an_error_that_says_so():
    tuned, zeroshot = both_logits(100.0, moved=0.3)
    with pytest.raises(ValueError, match=r"^similarity must be cosine similarities.*below 0\.001"):
        contrast_weight(tuned, zeroshot)
    with pytest.raises(ValueError, match=r"^logits must be cosine similarities times logit_scale=1, .*below"):
        ContrastAwareCalibration()(tuned, zeroshot, logit_scale=1.0)


def test_unusual_weights_are_warned_about_until_fitted():
    tuned, zeroshot = both_logits(moved=0.1)
    with pytest.warns(UserWarning, match="median contrast weight"):
        ContrastAwareCalibration()(tuned, zeroshot)
    with pytest.warns(UserWarning, match="median contrast weight"):
        contrast_weight(tuned / 100, zeroshot / 100)
    cac = ContrastAwareCalibration().fit(tuned, zeroshot_logits=zeroshot, labels=tuned.argmin(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ContrastAwareCalibration()(*both_logits())
        cac(tuned, zeroshot)
    assert cac.fitted


@pytest.mark.parametrize("on", READINGS)
def test_forward_is_the_definition(on):
    tuned, zeroshot = both_logits(50.0)
    cac = ContrastAwareCalibration(on=on)
    weight = by_hand(tuned / 50, zeroshot / 50, on=on, logit_scale=50.0)
    expected = torch.from_numpy(weight)[:, None] * tuned
    torch.testing.assert_close(cac(tuned, zeroshot, 50.0).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cac(tuned, zeroshot, torch.tensor(50.0)), cac(tuned, zeroshot, 50.0))


@each_device
@pytest.mark.parametrize("on", READINGS)
def test_features_and_logits_give_the_same_confidence(device, on):
    cac = ContrastAwareCalibration(on=on).to(device)
    confidence, prediction = run_on(device, cac.predict_features)(*features(), logit_scale=30.0)
    scaled = run_on(device, cac)(*both_logits(30.0), logit_scale=30.0).softmax(1).max(1)
    torch.testing.assert_close(confidence, scaled.values, rtol=1e-4, atol=1e-6)
    assert torch.equal(prediction, scaled.indices)


@pytest.mark.filterwarnings(USUAL)
@given(st.integers(0, 2**32 - 1), st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_predictions_are_kept(seed, dtype):
    tuned, zeroshot = ((x * 4).round().div(4).to(dtype) for x in both_logits(10.0, seed=seed))
    scaled = ContrastAwareCalibration()(tuned, zeroshot, 10.0)
    assert scaled.dtype == dtype
    assert torch.equal(scaled.argmax(1), tuned.argmax(1))


@pytest.mark.parametrize("on", READINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_plain_call_has_the_bits_of_one_by_steps(on, dtype):
    cac = ContrastAwareCalibration(on=on)
    tuned, zeroshot = (x.to(dtype) for x in both_logits(10.0))
    by_steps = cac(tuned.clone().requires_grad_(), zeroshot, 10.0).detach()
    assert torch.equal(cac(tuned, zeroshot, 10.0), by_steps)
    assert torch.equal(cac(tuned[3], zeroshot[3], 10.0), by_steps[3])
    masked = tuned.index_fill(1, torch.tensor([2]), -torch.inf)
    assert torch.equal(cac(masked, zeroshot, 10.0), cac(masked.clone().requires_grad_(), zeroshot, 10.0).detach())


def test_gamma_one_is_the_identity():
    tuned, zeroshot = both_logits()
    assert torch.equal(ContrastAwareCalibration(alpha=1.0, k=0.0)(tuned, zeroshot), tuned)


def test_rows_do_not_see_each_other():
    tuned, zeroshot = both_logits()
    cac = ContrastAwareCalibration()
    order = torch.randperm(len(tuned), generator=torch.Generator().manual_seed(0))
    assert torch.equal(cac(tuned[order], zeroshot[order]), cac(tuned, zeroshot)[order])


def fit_problem(temperature: float, n: int = 400, seed: int = 0):
    """Logits whose labels are drawn from softmax(temperature * logits)."""
    tuned, zeroshot = both_logits(20.0, seed=seed, n=n, moved=0.15)
    generator = torch.Generator().manual_seed(seed)
    return tuned, zeroshot, torch.multinomial((temperature * tuned).softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.8])
def test_fit_finds_the_scale_the_labels_were_drawn_with(temperature):
    tuned, zeroshot, labels = fit_problem(temperature, n=4000)
    cac = ContrastAwareCalibration().fit(tuned, zeroshot_logits=zeroshot, labels=labels, logit_scale=20.0)
    weight = cac.factor(tuned, zeroshot, 20.0)
    assert weight.median().item() == pytest.approx(temperature, rel=0.15)


def test_fit_is_as_good_as_a_dense_search():
    tuned, zeroshot, labels = fit_problem(0.6, n=150)
    z = reference.distance_of_logits(tuned.double(), zeroshot.double(), logit_scale=20.0)

    def loss(weight):
        return cross_entropy(weight[:, None] * tuned.double(), labels).item()

    alpha, k = torch.cartesian_prod(torch.linspace(0.3, 2.0, 40), torch.linspace(0, 20, 40)).double().T
    weight = reference.weight_of_distance(z, alpha[:, None], k[:, None])
    log_probs = (weight[..., None] * tuned.double()).log_softmax(2)
    dense = -log_probs[:, torch.arange(len(labels)), labels].mean(1).max().item()
    cac = ContrastAwareCalibration().fit(
        tuned.double(), zeroshot_logits=zeroshot.double(), labels=labels, logit_scale=20.0
    )
    fitted = loss(cac.factor(tuned.double(), zeroshot.double(), 20.0))
    assert fitted <= dense + 1e-4
    free = ContrastAwareCalibration().fit(
        tuned, zeroshot_logits=zeroshot, labels=labels, logit_scale=20.0, fit_lambda=True
    )
    assert loss(free.factor(tuned.double(), zeroshot.double(), 20.0)) <= fitted + 1e-5


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1))
def test_fit_is_never_worse_than_doing_nothing_or_than_the_defaults(seed):
    tuned, zeroshot, labels = fit_problem(1.0, n=25, seed=seed)
    cac = ContrastAwareCalibration().fit(tuned, zeroshot_logits=zeroshot, labels=labels, logit_scale=20.0)
    losses = [
        cross_entropy(w[:, None] * tuned, labels).item()
        for w in (
            cac.factor(tuned, zeroshot, 20.0),
            torch.ones(len(tuned)),
            reference.contrast_weight(tuned / 20, zeroshot / 20),
        )
    ]
    assert losses[0] <= min(losses[1:]) + 1e-4


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 10))
def test_the_loss_table_interpolates_the_loss(seed, factor):
    logits = (5 * normal(seed, 8, 4)).double()
    labels = torch.arange(8) % 4
    exact = cross_entropy(factor * logits, labels)
    got = LossTable(logits, labels).mean(torch.full((1, 8), factor, dtype=torch.float64))
    torch.testing.assert_close(got[0], exact, rtol=1e-4, atol=1e-5)


def test_fit_when_nothing_was_tuned():
    tuned, _, labels = fit_problem(0.5)
    cac = ContrastAwareCalibration().fit(tuned, zeroshot_logits=tuned, labels=labels, logit_scale=20.0)
    assert 0.3 < cac.factor(tuned, tuned, 20.0)[0] < 0.8


def test_state_dict_round_trip_keeps_the_constants():
    tuned, zeroshot, labels = fit_problem(0.6)
    cac = ContrastAwareCalibration().fit(tuned, zeroshot_logits=zeroshot, labels=labels, logit_scale=20.0)
    assert float(cac.alpha) != 1.1
    fresh = ContrastAwareCalibration()
    fresh.load_state_dict(cac.state_dict())
    assert fresh.fitted and torch.equal(fresh(tuned, zeroshot, 20.0), cac(tuned, zeroshot, 20.0))


def test_compile_and_export():
    tuned, zeroshot = both_logits()
    cac = ContrastAwareCalibration()
    compiled = torch.compile(cac, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(tuned, zeroshot, 100.0), cac(tuned, zeroshot, 100.0))
    scale = torch.tensor(100.0)
    assert torch.equal(compiled(tuned, zeroshot, scale), cac(tuned, zeroshot, scale))
    program = torch.export.export(cac, (tuned, zeroshot))
    assert torch.equal(program.module()(tuned, zeroshot), cac(tuned, zeroshot))


def test_numpy_in_numpy_out():
    tuned, zeroshot, labels = fit_problem(0.6)
    cac = ContrastAwareCalibration().fit(
        tuned.numpy(), zeroshot_logits=zeroshot.numpy(), labels=labels.numpy(), logit_scale=20.0
    )
    np.testing.assert_array_equal(cac(tuned.numpy(), zeroshot.numpy(), 20.0), cac(tuned, zeroshot, 20.0).numpy())
    assert isinstance(contrast_weight(tuned.numpy() / 100, zeroshot.numpy() / 100), np.ndarray)
    confidence, prediction = cac.predict_features(*(f.numpy() for f in features()))
    assert isinstance(confidence, np.ndarray) and prediction.dtype == np.int64


def test_no_rows():
    assert contrast_weight(torch.empty(0, 3), torch.empty(0, 3)).shape == (0,)
    assert ContrastAwareCalibration()(torch.empty(0, 3), torch.empty(0, 3)).shape == (0, 3)


S = torch.arange(12.0).view(4, 3) / 12
NAN = torch.full((4, 3), torch.nan)
Y = torch.tensor([0, 1, 2, 0])
F16 = torch.ones(4, 16)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("similarity", lambda: contrast_weight(S[0], S[0])),
        ("similarity", lambda: contrast_weight(S.long(), S)),
        ("similarity", lambda: contrast_weight(NAN, S)),
        ("zeroshot_similarity", lambda: contrast_weight(S, S[:3])),
        ("zeroshot_similarity", lambda: contrast_weight(S, NAN)),
        ("zeroshot_similarity", lambda: contrast_weight(S, None)),
        ("on", lambda: contrast_weight(S, S, on="logits")),
        ("alpha", lambda: contrast_weight(S, S, alpha=0.0)),
        ("k", lambda: contrast_weight(S, S, k=-1.0)),
        ("lambda1", lambda: contrast_weight(S, S, lambda1=-0.1)),
        ("lambda2", lambda: contrast_weight(S, S, lambda1=0.9, lambda2=0.8)),
        ("logit_scale", lambda: contrast_weight(S, S, logit_scale=0.0)),
        ("alpha", lambda: ContrastAwareCalibration(alpha=torch.inf)),
        ("k", lambda: ContrastAwareCalibration(k="15 neighbours")),
        ("lambda2", lambda: ContrastAwareCalibration(lambda2=0.5)),
        ("on", lambda: ContrastAwareCalibration(on="features")),
        ("logits", lambda: ContrastAwareCalibration()(S[0, 0], S[0, 0])),
        ("zeroshot_logits", lambda: ContrastAwareCalibration()(S[0], S[:1])),
        ("logits", lambda: ContrastAwareCalibration()(NAN, S)),
        ("zeroshot_logits", lambda: ContrastAwareCalibration()(S, S[:, :2])),
        ("zeroshot_logits", lambda: ContrastAwareCalibration()(S, NAN)),
        ("logit_scale", lambda: ContrastAwareCalibration()(S, S, -100.0)),
        ("labels", lambda: ContrastAwareCalibration().fit(S, zeroshot_logits=S, labels=Y + 1)),
        ("labels", lambda: ContrastAwareCalibration().fit(S, zeroshot_logits=S, labels=Y[:3])),
        ("labels", lambda: ContrastAwareCalibration().fit(S, zeroshot_logits=S, labels=Y.float())),
        ("logits", lambda: ContrastAwareCalibration().fit(S[:0], zeroshot_logits=S[:0], labels=Y[:0])),
        ("zeroshot_logits", lambda: ContrastAwareCalibration().fit(S, zeroshot_logits=NAN, labels=Y)),
        ("logit_scale", lambda: ContrastAwareCalibration().predict_features(F16, F16, F16, F16, 0)),
        (
            "zeroshot_text_features",
            lambda: ContrastAwareCalibration().predict_features(F16, F16, F16, F16[:3]),
        ),
    ],
)
def test_bad_input(name, call):
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        call()
    assert "\n" not in str(caught.value)
