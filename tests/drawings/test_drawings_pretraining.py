"""A short pre-training on the small registry: it learns, goes on after a kill, and what it exports loads."""

import math

import pytest
import torch
import torch.nn.functional as F

from pyfastcal.clip import encode_images, encode_text, tasks
from pyfastcal.clip.small import load_from, load_small
from scripts.drawings import __main__ as command
from scripts.drawings import export, pretrain
from scripts.drawings.data import Pretraining
from scripts.drawings.models import MODELS, image_features, text_features

KIND = "vit-small"


@pytest.fixture(scope="module")
def folder(packages, tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    command.make(packages, out)
    return out


@pytest.fixture(autouse=True)
def _own_seed_and_one_thread():
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.random.set_rng_state(state)
    torch.set_num_threads(threads)


def started(folder):
    tokenizer = pretrain.tokenizer_of(folder, MODELS[KIND].context_length)
    return pretrain.State(KIND, tokenizer.vocab_size, "cpu"), Pretraining(folder), tokenizer


def test_a_killed_training_goes_on_to_the_same_bits(folder, tmp_path):
    whole, data, tokenizer = started(folder)
    pretrain.train(whole, data, tokenizer, 6, tmp_path, batch=6, keep_every=3)
    first, _, _ = started(folder)

    class Killed(Exception):
        pass

    def dies(size, step, seed=0):
        if step == 4:
            raise Killed
        return Pretraining.batch(data, size, step, seed)

    other = tmp_path / "killed"
    other.mkdir()
    data.batch = dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        pretrain.train(first, data, tokenizer, 6, other, batch=6, keep_every=3)
    resumed, data, _ = started(folder)
    resumed.load(other / "last.pt")
    assert resumed.step == 3
    pretrain.train(resumed, data, tokenizer, 6, other, batch=6, keep_every=3)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    with pytest.raises(ValueError, match="is of vit-small, not of vit"):
        pretrain.State("vit", tokenizer.vocab_size, "cpu").load(other / "last.pt")


def test_it_learns_and_what_it_exports_classifies(folder, tmp_path):
    state, data, tokenizer = started(folder)
    same = Pretraining(folder).batch(8, 0)
    data.batch = lambda size, step, seed=0: same  # type: ignore[method-assign]
    pretrain.train(state, data, tokenizer, 40, tmp_path, batch=8)
    with torch.no_grad():
        scores = image_features(state.model, same.images) @ text_features(state.model, tokenizer(same.captions)).T
    assert (scores.argmax(1) == torch.arange(8)).float().mean() >= 0.75, "40 steps on eight images did not learn them"
    scale = export.export(KIND, state, data, folder, tmp_path)
    bundled = load_small("drawings-small")  # a model of the same name, with another vocabulary, is known by now
    clip = load_from("drawings-small", tmp_path)
    again = load_small("drawings-small").model.token_embedding.weight
    assert torch.equal(again, bundled.model.token_embedding.weight) and len(again) > clip.model.vocab_size
    assert clip.model.logit_scale.exp().item() == pytest.approx(scale, rel=1e-3) and 5 <= scale <= 100
    words = tmp_path / "drawings" / "vocabulary.txt.gz"
    words.write_bytes(words.read_bytes() + bytes(1))
    with pytest.raises(ValueError, match=f"vocabulary must be that of {words}, got another one in {folder}"):
        export.export(KIND, state, data, folder, tmp_path)
    task = tasks.load("clothing", shots=1, test_images=1)
    texts = encode_text(clip.model, clip.tokenizer, task.new_classes, task.template)
    found = encode_images(clip.model, task.new_test.images)
    half = {key: value.half().float() for key, value in state.model.state_dict().items()}
    state.model.load_state_dict(half)
    with torch.no_grad():
        expected = image_features(state.model, task.new_test.images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert texts.shape == (len(task.new_classes), 128)

    further, data, _ = started(folder)
    further.load_weights(tmp_path / "drawings-small" / "weights.safetensors")
    assert (further.step, further.began) == (40, 40)
    assert all(
        torch.equal(value, half[key]) for key, value in further.model.state_dict().items() if key != "logit_scale"
    )
    pretrain.train(further, data, tokenizer, 42, tmp_path, batch=8)
    resumed, _, _ = started(folder)
    resumed.load(tmp_path / "last.pt")
    assert (resumed.step, resumed.began) == (42, 40)
    with pytest.raises(ValueError, match="is of vit-small, not of vit"):
        pretrain.State("vit", tokenizer.vocab_size, "cpu").load_weights(
            tmp_path / "drawings-small" / "weights.safetensors"
        )


@pytest.mark.parametrize("kind", MODELS)
def test_the_passes_for_training_are_open_clips(folder, kind):
    tokenizer = pretrain.tokenizer_of(folder, MODELS[kind].context_length)
    model = pretrain.State(kind, tokenizer.vocab_size, "cpu").model.eval()
    size = MODELS[kind].image_size
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    ids = tokenizer(["a disc", "a drawing of a box, boxlike.", "x"])
    with torch.no_grad():
        torch.testing.assert_close(image_features(model, images), model.encode_image(images, normalize=True))
        torch.testing.assert_close(text_features(model, ids), model.encode_text(ids, normalize=True))
        if hasattr(model.visual, "transformer"):
            generator = torch.Generator().manual_seed(0)
            partly = image_features(model, images, 0.5, generator)
            assert F.cosine_similarity(partly, image_features(model, images)).max() < 1 - 1e-6


def test_the_scale_that_fits_is_found():
    generator = torch.Generator().manual_seed(0)
    scores = 0.1 * torch.randn(2000, 60, generator=generator)
    labels = torch.distributions.Categorical(logits=25 * scores).sample()
    assert export.fitted_scale(scores, labels) == pytest.approx(25, rel=0.15)


def test_the_rate_warms_up_stays_and_falls():
    rates = [pretrain.rate_at(step, 4000) for step in range(4000)]
    top = pretrain.LEARNING_RATE
    assert rates[0] < rates[250] < rates[499] == top == rates[3000] > rates[3500] > rates[3999] > 0
    further = [pretrain.rate_at(step, 4000, 2000) for step in range(2000, 4000)]
    assert further[:2] == rates[:2] and further[499:] == rates[2499:]  # a new start warms up anew
    assert math.isclose(pretrain.scale_at(0), pretrain.START_SCALE)
    assert math.isclose(pretrain.scale_at(10_000), pretrain.SCALE)
