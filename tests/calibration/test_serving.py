"""One image at a time, masked classes: what the logit-scaling calibrators take where they serve."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import pyfastcal as fc
from tests.devices import each_device, run_on


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TEXTS = tuple(normalize(normal(seed, 7, 16)) for seed in (0, 1))
IMAGES = tuple(normalize(normal(seed, 12, 16)) for seed in (2, 3))
LOGITS, ZEROSHOT = (100 * image @ text.T for image, text in zip(IMAGES, TEXTS, strict=True))
TS, DAC = fc.TemperatureScaling(1.2), fc.DistanceAwareCalibration(k=3).fit(tuned=TEXTS[0], zeroshot=TEXTS[1])
CAC = {on: fc.ContrastAwareCalibration(k=1.0, on=on) for on in ("similarity", "probability")}
CALIBRATORS = {
    "ts": TS,
    "dac": DAC,
    "cac": CAC["similarity"],
    "cac, probabilities": CAC["probability"],
    "chain": fc.chain(TS, DAC),
    "chain with cac": fc.chain(TS, DAC, CAC["similarity"]),
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
each = pytest.mark.parametrize("name", CALIBRATORS)


def inputs(name: str, logits: torch.Tensor = LOGITS, zeroshot: torch.Tensor = ZEROSHOT) -> tuple:
    return (logits, zeroshot, 100.0) if CALIBRATORS[name].contrasts else (logits,)


@each
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_image_of_logits(name, dtype):
    calibrator, logits, zeroshot = CALIBRATORS[name], LOGITS.to(dtype), ZEROSHOT.to(dtype)
    whole = calibrator(*inputs(name, logits, zeroshot))
    for row in range(3):
        alone = calibrator(*inputs(name, logits[row], zeroshot[row]))
        assert alone.shape == (7,) and alone.dtype == dtype
        assert torch.equal(alone, whole[row])


@each
def test_one_image_of_features(name):
    calibrator = CALIBRATORS[name]
    for row in range(3):
        arguments = {"zeroshot_image_features": IMAGES[1], "zeroshot_text_features": TEXTS[1]}
        arguments = arguments if calibrator.contrasts else {}
        whole = calibrator.predict_features(IMAGES[0], TEXTS[0], logit_scale=100.0, **arguments)
        if arguments:
            arguments["zeroshot_image_features"] = IMAGES[1][row]
        confidence, prediction = calibrator.predict_features(IMAGES[0][row], TEXTS[0], logit_scale=100.0, **arguments)
        assert confidence.shape == prediction.shape == () and prediction.dtype == torch.int64
        torch.testing.assert_close(confidence, whole[0][row], rtol=1e-6, atol=0)
        assert prediction == whole[1][row]


@each
def test_features_compile(name):
    torch._dynamo.reset()
    others = {"zeroshot_image_features": IMAGES[1][0], "zeroshot_text_features": TEXTS[1]}
    arguments = {"logit_scale": 100.0} | (others if CALIBRATORS[name].contrasts else {})
    predict = CALIBRATORS[name].predict_features
    found = torch.compile(predict, fullgraph=True, backend="aot_eager")(IMAGES[0][0], TEXTS[0], **arguments)
    torch.testing.assert_close(found, predict(IMAGES[0][0], TEXTS[0], **arguments))


def test_one_image_of_arrays():
    out = DAC(LOGITS[0].numpy())
    assert isinstance(out, np.ndarray) and out.shape == (7,)
    confidence, prediction = DAC.predict_features(IMAGES[0][0].numpy(), TEXTS[0].numpy())
    assert confidence.shape == prediction.shape == () and prediction.dtype == np.int64


@each
def test_one_image_compiles_and_exports(name):
    torch._dynamo.reset()
    arguments = inputs(name, LOGITS[0], ZEROSHOT[0])
    expected = CALIBRATORS[name](*arguments)
    compiled = torch.compile(CALIBRATORS[name], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), expected)
    exported = torch.export.export(CALIBRATORS[name], arguments).module()
    torch.testing.assert_close(exported(*arguments), expected)


def masked(logits: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with some classes masked, another set in every row, and which are left."""
    left = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    left[torch.arange(len(left)), torch.arange(len(left)) % logits.shape[1]] = True
    left[0] = True  # none masked
    return logits.masked_fill(~left, -torch.inf), left


@pytest.mark.filterwarnings("ignore:the median contrast weight")
@each
@pytest.mark.parametrize("dtype", DTYPES)
@each_device
def test_a_masked_class_has_probability_zero_and_changes_nothing_else(name, dtype, device):
    logits, left = masked(LOGITS.to(dtype))
    out = run_on(device, CALIBRATORS[name].to(device))(*inputs(name, logits, ZEROSHOT.to(dtype)))
    CALIBRATORS[name].cpu()
    assert torch.equal(out == -torch.inf, ~left)
    assert torch.equal(out.argmax(1), logits.argmax(1))
    probs = out.double().softmax(1)
    assert (probs[~left] == 0).all() and not probs.isnan().any()
    for row, kept in enumerate(left):  # as if the masked classes were not there
        arguments = inputs(name, logits[row][kept], ZEROSHOT.to(dtype)[row][kept])
        alone = CALIBRATORS[name].select(kept)(*arguments)
        tolerance = {"rtol": 4 * max(torch.finfo(dtype).eps, 1e-6), "atol": 0}
        torch.testing.assert_close(out[row][kept], alone, **tolerance)


@pytest.mark.parametrize("name", ["cac", "cac, probabilities", "chain with cac"])
def test_masks_of_both_models_are_the_same_as_of_one(name):
    logits, left = masked(LOGITS)
    one = CALIBRATORS[name](logits, ZEROSHOT, 100.0)
    assert torch.equal(CALIBRATORS[name](logits, ZEROSHOT.masked_fill(~left, -torch.inf), 100.0), one)


@each
def test_masks_in_one_image_compiled_and_with_a_gradient(name):
    torch._dynamo.reset()
    logits, left = masked(LOGITS)
    expected = CALIBRATORS[name](*inputs(name, logits))
    assert torch.equal(CALIBRATORS[name](*inputs(name, logits[1], ZEROSHOT[1])), expected[1])
    compiled = torch.compile(CALIBRATORS[name], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs(name, logits)), expected)
    leaf = logits.clone().requires_grad_()
    out = CALIBRATORS[name](*inputs(name, leaf))
    torch.testing.assert_close(out.detach(), expected)
    out.softmax(1)[:, 0].sum().backward()
    assert torch.isfinite(leaf.grad).all() and (leaf.grad[~left] == 0).all() and leaf.grad.abs().sum() > 0


def test_unmasked_rows_have_the_same_bits_beside_masked_ones():
    logits, _ = masked(LOGITS)
    for name in CALIBRATORS:
        out, alone = (CALIBRATORS[name](*inputs(name, x, ZEROSHOT)) for x in (logits, LOGITS))
        assert torch.equal(out[0], alone[0]), name


INF = torch.inf


@each
@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.0, INF], "must be finite, or -inf where a class is masked, got 1 other value"),
        ([-INF, torch.nan], "must be finite, or -inf where a class is masked, got 1 other value"),
        ([-INF, INF], "must be finite, or -inf where a class is masked, got 1 other value"),
        ([-INF] * 7, "must have a class that is not masked in every row, got 1 of -inf alone"),
    ],
)
def test_what_is_no_mask_stays_an_error(name, values, says):
    logits = LOGITS.clone()
    logits[3, : len(values)] = torch.tensor(values)
    for rows in (slice(None), 3):
        with pytest.raises(ValueError, match=f"^logits {says}$"):
            CALIBRATORS[name](*inputs(name, logits[rows], ZEROSHOT[rows]))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("zeroshot_logits", lambda: CAC["similarity"](LOGITS[0], ZEROSHOT[:1])),
        ("zeroshot_logits", lambda: CAC["similarity"](LOGITS, ZEROSHOT[0])),
        ("zeroshot_logits", lambda: CAC["similarity"](LOGITS[0], ZEROSHOT[0, :6])),
        ("zeroshot_logits", lambda: CAC["similarity"](LOGITS, masked(ZEROSHOT)[0])),  # where the tuned ones are not
        ("zeroshot_image_features", lambda: CAC["similarity"].predict_features(IMAGES[0][0], TEXTS[0], *IMAGES)),
        ("logits", lambda: TS(LOGITS[0, 0])),
        ("logits", lambda: TS(LOGITS[None])),
        ("logits", lambda: TS(LOGITS[0, :0])),
        ("image_features", lambda: TS.predict_features(IMAGES[0][0, 0], TEXTS[0])),
        ("text_features", lambda: TS.predict_features(IMAGES[0][0], TEXTS[0][0])),
        ("logits", lambda: fc.TemperatureScaling().fit(masked(LOGITS)[0], torch.zeros(12, dtype=torch.int64))),
    ],
)
def test_bad_input(argument, call):
    with pytest.raises(ValueError, match=f"^{argument} ") as caught:
        call()
    assert "\n" not in str(caught.value)
