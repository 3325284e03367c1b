"""The bundled models, their loading through open_clip, and the script that makes them."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pyfastcal.clip import import_open_clip, load_small
from pyfastcal.clip.small import NAMES, files_of, load_from
from pyfastcal.clip.tasks.images import MEAN, STD
from pyfastcal.installation.commands import with_extra
from scripts.clip import captions
from scripts.clip import pretrain as pretraining


@pytest.mark.parametrize("name", NAMES)
def test_open_clip_loads_the_bundled_weights_from_their_path(name):
    config, _, weights = files_of(name)
    assert weights.stat().st_size <= (12e6 if name.startswith("drawings") else 2.5e6)
    open_clip = import_open_clip()
    open_clip.add_model_config(config)
    model = open_clip.create_model(f"pyfastcal-{name}", pretrained=str(weights))
    small = load_small(name)
    assert type(small.model) is open_clip.CLIP and small.name == name
    loaded, bundled = model.state_dict(), small.model.state_dict()
    assert loaded.keys() == bundled.keys()
    assert all(torch.equal(loaded[key], bundled[key]) for key in loaded)
    if name in pretraining.DATA:  # those on drawings have the scale that fits held-out drawings
        assert model.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)
    assert not small.model.training and not any(p.requires_grad for p in small.model.parameters())


def test_preprocess_is_open_clips(clip):
    assert (MEAN, STD) == (
        import_open_clip().OPENAI_DATASET_MEAN,
        import_open_clip().OPENAI_DATASET_STD,
    )
    white = clip.preprocess(Image.new("L", (50, 40), 255))
    expected = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(white, expected[:, None, None].expand(3, 32, 32))


def test_unknown_names_are_refused():
    names = ", ".join(map(repr, NAMES))
    with pytest.raises(ValueError, match=f"^name must be one of {names}, got 'letters'"):
        load_small("letters")


def test_open_clip_is_imported_only_when_asked_for_and_missed_clearly():
    code = """
import sys
import pyfastcal.clip.prompts, pyfastcal.clip.tasks
print("open_clip" in sys.modules)
for missing in ("open_clip", "torchvision"):
    sys.modules[missing] = None
    try:
        pyfastcal.clip.import_open_clip()
    except ImportError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    install = f"pyfastcal needs {{}} for this: {with_extra('clip')}"
    expected = ["False", install.format("open_clip"), install.format("torchvision")]
    assert run.stdout.splitlines() == expected, run.stderr


def test_the_contrastive_loss_is_clips_where_captions_differ():
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 8, generator=generator).double()) for _ in range(2))
    logits, own = 20 * images @ texts.T, torch.arange(6)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    loss = pretraining.contrastive_loss(images, texts, own, torch.tensor(20.0))
    torch.testing.assert_close(loss, expected)


def test_images_of_one_caption_share_it():
    generator = torch.Generator().manual_seed(1)
    images, texts = (F.normalize(torch.randn(n, 8, generator=generator)) for n in (4, 2))
    caption = torch.tensor([0, 1, 1, 1])
    probability = (10 * images @ texts.T).softmax(0)
    to_text = F.cross_entropy(10 * images @ texts.T, caption)
    shares = [-probability[0, 0].log(), *[-probability[1:, 1].log().mean()] * 3]
    expected = (to_text + sum(shares) / 4) / 2
    loss = pretraining.contrastive_loss(images, texts, caption, torch.tensor(10.0))
    torch.testing.assert_close(loss, expected)


def test_the_trimmed_text_tower_is_the_models_own(clip):
    ids = clip.tokenizer(["digit seven.", "here is a photo of the letter q.", "a scan of the digit two."])
    expected = clip.model.encode_text(ids, normalize=True)
    torch.testing.assert_close(pretraining.encode_text(clip.model, ids), expected)


@pytest.fixture
def own_seed():
    """Pre-training seeds torch's global generator: put back what it held."""
    state = torch.random.get_rng_state()
    yield
    torch.random.set_rng_state(state)


@pytest.mark.parametrize("name", pretraining.DATA)
def test_pretraining_is_deterministic_and_what_it_saves_loads(name, tmp_path, own_seed):
    (model, tokenizer), (again, _), (other, _) = (
        pretraining.pretrain(name, steps=steps, seed=seed) for steps, seed in ((3, 3), (3, 3), (1, 4))
    )
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.visual.proj, other.visual.proj)
    pretraining.save(name, model, tokenizer, tmp_path)
    loaded = load_from(name, tmp_path)
    assert loaded.tokenizer.words == tokenizer.words == load_small(name).tokenizer.words
    assert torch.equal(loaded.model.visual.proj, model.visual.proj)


def test_pretraining_learns(own_seed):
    images, texts = pretraining.DATA["digits"](seed=9).batch(128)
    different = sorted(set(texts))
    caption = torch.tensor([different.index(text) for text in texts])

    @torch.no_grad()
    def loss_after(steps: int) -> float:
        with torch.enable_grad():
            model, tokenizer = pretraining.pretrain("digits", steps=steps, seed=3)
        image_features = model.encode_image(images, normalize=True)
        text_features = model.encode_text(tokenizer(different), normalize=True)
        return float(pretraining.contrastive_loss(image_features, text_features, caption, torch.tensor(14.0)))

    assert loss_after(10) < loss_after(0) - 0.1


def test_captions_fit_and_reach_the_positions_behind_sixteen_context_tokens(clip):
    data = pretraining.DATA["digits"](seed=5)
    texts = [text for _ in range(40) for text in data.batch(4)[1]]
    words = [text.split() for text in texts]
    before = [next(i for i, w in enumerate(row) if w in ("digit", "letter")) for row in words]
    assert max(before) > 16 and max(before) <= captions.MAX_PREFIX_WORDS
    clip.tokenizer(texts)
