"""From packages to what a CLIP is pre-trained on."""

import gzip

import numpy as np
import pytest
import torch

from pyfastcal.clip import import_open_clip
from scripts.drawings import __main__ as command
from scripts.drawings.concepts import Concept, concepts_of, plain_name, words
from scripts.drawings.data import PRETRAIN, TASK, VALIDATION, Pretraining
from scripts.drawings.render import alike, rendered, svg_of
from scripts.drawings.sets import SETS
from scripts.drawings.tasks import held_out

from .conftest import ANIMALS, COLOURED, INTERFACE, NATURAL, SHAPES


@pytest.mark.parametrize(
    ("text", "plain"),
    [("T-Shirt", "t shirt"), ("piñata", "pinata"), ("hear-no-evil", "hear no evil"), ("o’clock", "oclock")],
)
def test_names_become_words(text, plain):
    assert words(text) == plain


@pytest.mark.parametrize(
    ("icon", "plain"),
    [
        ("dog", "dog"),
        ("dog-1", "dog"),
        ("hot-dog-outline", "hot-dog"),
        ("baseline-camera", "camera"),
        ("umbrella-20-filled", "umbrella"),
        ("branch-one", "branch"),
        ("fill", "fill"),
    ],
)
def test_words_of_style_and_numbers_go(icon, plain):
    assert plain_name(icon)[0] == plain


def test_concepts_are_code_points_agreed_names_and_names_of_natural_sets(packages):
    found = {concept.name: concept for concept in concepts_of(packages)}
    assert set(found) == set(SHAPES) | {"disc pair", "nothing"}
    assert set(found["disc"].icons) == {*COLOURED, *INTERFACE} and found["disc"].category == "animal-mammal"
    assert set(found["cross"].icons) == set(INTERFACE) and not found["cross"].category
    assert set(found["disc pair"].icons) == {NATURAL}
    assert found["roof"].keywords == ("shape", "rooflike", "geometry")


def test_an_alias_is_drawn_as_its_parent_and_the_invisible_not_at_all():
    package = {
        "icons": {"a": {"body": '<circle cx="8" cy="8" r="6"/>'}, "empty": {"body": "<g/>"}},
        "aliases": {"b": {"parent": "a"}},
        "width": 16,
        "height": 16,
    }
    assert svg_of(package, "b") == svg_of(package, "a")
    image = rendered(package, "b")
    assert image.shape == (64, 64, 4) and image[32, 32, 3] == 255 and image[2, 2, 3] == 0
    assert rendered(package, "empty") is None


def test_alike_is_the_correlation_of_what_is_seen():
    disc = rendered({"icons": {"a": {"body": '<circle cx="8" cy="8" r="6"/>'}}, "width": 16, "height": 16}, "a")
    bar = rendered({"icons": {"a": {"body": '<rect y="7" width="16" height="2"/>'}}, "width": 16, "height": 16}, "a")
    found = alike(disc, np.stack([disc, bar]))
    assert found[0] == pytest.approx(1, abs=1e-5) and found[1] < 0.5


def test_half_of_the_hands_are_held_out_and_at_most_six():
    hands = [f"hand {i}" for i in range(20)]
    concept = Concept("thing")
    for n in (6, 7, 12, 20):
        assert len(held_out(concept, hands[:n])) == min(n // 2, 6)
        assert held_out(concept, hands[:n]) == held_out(concept, reversed(hands[:n]))


@pytest.fixture(scope="module")
def data(packages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    command.make(packages, folder)
    return folder


def test_what_is_written_is_read(data):
    found = Pretraining(data)
    assert found.images.shape[1:] == (4, 64, 64) and len(found.images) == len(found.icons) == len(found.role)
    for c, concept in enumerate(found.concepts):  # half of the hands of a class of a task are held out
        rows = found.concept == c
        hands = {SETS[s].hand for s in found.set_index[rows & (found.role == TASK)].tolist()}
        assert len(hands) == (6 if concept.name in ANIMALS else 0)
        assert not hands & {SETS[s].hand for s in found.set_index[rows & (found.role == PRETRAIN)].tolist()}
    held = found.role == VALIDATION
    for concept in found.concept[held].unique():  # a hand at a time
        rows = held & (found.concept == concept)
        assert len({SETS[s].hand for s in found.set_index[rows].tolist()}) == 1
    first = next(i for i, c in enumerate(found.concepts) if c.name == "disc")
    pictures = found.images[(found.concept == first) & (found.set_index == 0)]
    assert len(pictures) == 1 and (found.role == PRETRAIN).any()


def test_the_vocabulary_is_open_clips_own_kind_and_takes_any_english_word(data):
    assert gzip.decompress((data / "vocabulary.txt.gz").read_bytes()).startswith(b"#version")
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer(bpe_path=str(data / "vocabulary.txt.gz"), context_length=40)
    assert (
        tokenizer.decode(tokenizer.encode("A drawing of a zebra-crossing")).strip() == "a drawing of a zebra - crossing"
    )
    assert len(tokenizer.encode("disc")) == 1 < len(tokenizer.encode("xylophone"))
    ids = tokenizer(["disc", "xylophone"])
    assert (ids.argmax(1) == (ids == tokenizer.eot_token_id).int().argmax(1)).all()  # the end token is the highest


def test_a_batch_has_different_concepts_and_hangs_on_its_number_alone(data):
    found = Pretraining(data)
    one, other, again = (found.batch(6, step) for step in (7, 8, 7))
    assert len(one.concept.unique()) == 6 and one.images.shape == (6, 3, 48, 48)
    assert torch.equal(one.images, again.images) and one.captions == again.captions
    assert not torch.equal(one.images, other.images)
    names = [found.captions.names[c] for c in one.concept.tolist()]
    said = sum(name in caption for name, caption in zip(names, one.captions, strict=True))
    assert said >= 3  # the others are called by keywords
