"""Towers that compute what tokens share once, against the same towers block by block: features and gradients."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfastcal.clip import import_open_clip, towers
from pyfastcal.clip.packing import pack
from pyfastcal.clip.prompts import LEARNERS
from pyfastcal.clip.towers import Towers

from .learners import SHORT, every_learner

LENGTH = 24
VARIANTS = {
    "plain": {},
    "quick gelu": {"quick_gelu": True},
    "layer scale": {"text_cfg": {"ls_init_value": 0.5}, "vision_cfg": {"ls_init_value": 0.5}},
    "in a module of its own": {"custom": True},
}
STEP_ASIDE = {
    "queries normalised": {"text_cfg": {"qk_norm": True}, "vision_cfg": {"qk_norm": True}},
    "attention normalised": {"text_cfg": {"scale_attn": True}, "vision_cfg": {"scale_attn": True}},
}


def model(custom=False, text_cfg=None, vision_cfg=None, **options):
    open_clip = import_open_clip()
    text = {"context_length": LENGTH, "vocab_size": 20, "width": 32, "heads": 2, "layers": 3} | (text_cfg or {})
    vision = {"image_size": 16, "patch_size": 8, "width": 48, "layers": 3, "head_width": 16} | (vision_cfg or {})
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    made = kind(embed_dim=8, text_cfg=text, vision_cfg=vision, **options).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in made.parameters():  # no two tokens alike, no bias zero
            parameter += 0.1 * torch.randn(parameter.shape)
    return made


@pytest.fixture(scope="module")
def plain_model():
    return model()


def general(monkeypatch):
    """The towers block by block, from here on."""
    monkeypatch.setattr(towers, "plain", lambda transformer: False)


def texts(clip, lengths, shared, groups, n_deep, seed=0):
    """Features of ``groups`` groups of texts of those lengths behind ``shared`` tokens; what gradients are taken of."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator).requires_grad_()  # noqa: E731
    first, rest = draw(groups, 1, shared, 32), draw(groups, len(lengths), max(lengths), 32)
    deep = [draw(shared - 1, 32) for _ in range(n_deep if shared > 1 else 0)]
    embeddings = torch.cat([first.expand(-1, len(lengths), -1, -1), rest], dim=2).flatten(0, 1)
    ends = (torch.tensor(lengths) + shared - 1).repeat(groups)
    return Towers(clip).encode_text(embeddings, ends, deep, shared=shared, groups=groups), [first, rest, *deep]


def images(clip, n_prompts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.randn(2, 48, generator=generator).requires_grad_() for _ in range(n_prompts)]
    pictures = torch.randn(3, 3, 16, 16, generator=generator)
    return Towers(clip).encode_image(pictures, prompts[0], prompts[1:]), prompts


def gradients(features, parts, seed=1):
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(seed))
    return torch.autograd.grad((features * weights).sum(), parts)


def same(make, clip, rtol=1e-4):
    """What ``make`` gives either way, as it is and its gradients, to ``rtol`` of the largest number."""
    with pytest.MonkeyPatch.context() as patch:
        quick = make(clip)
        general(patch)
        slow = make(clip)
    for a, b in zip((quick[0], *gradients(*quick)), (slow[0], *gradients(*slow)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=rtol * max(1e-3, b.abs().max().item()))


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=9),
    shared=st.integers(1, 10),
    groups=st.integers(1, 3),
    n_deep=st.integers(0, 2),
)
def test_texts(plain_model, lengths, shared, groups, n_deep):
    same(lambda clip: texts(clip, lengths, shared, groups, n_deep), plain_model)


@pytest.mark.parametrize("n_prompts", [1, 2, 3])
def test_images(plain_model, n_prompts):
    same(lambda clip: images(clip, n_prompts), plain_model)
    with torch.no_grad():  # another kernel of torch's
        features = images(plain_model, n_prompts)[0]
    torch.testing.assert_close(features, images(plain_model, n_prompts)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", [*VARIANTS, *STEP_ASIDE])
def test_other_blocks(variant):
    clip = model(**(VARIANTS | STEP_ASIDE)[variant])
    text = clip.text if hasattr(clip, "text") else clip
    for transformer in (text.transformer, clip.visual.transformer):
        assert towers.plain(transformer) == (variant in VARIANTS)
    same(lambda clip: texts(clip, [3, 1, 5], 4, 2, 1), clip)
    same(lambda clip: images(clip, 2), clip)


def test_hooks_see_their_blocks(plain_model):
    """Nothing is left out that somebody looks at or changes."""
    for part in (lambda t: t, lambda t: t.resblocks[1], lambda t: t.resblocks[1].attn):
        clip, seen = copy.deepcopy(plain_model), []
        for tower in (clip, clip.visual):
            part(tower.transformer).register_forward_hook(lambda *of, seen=seen: seen.append(of))
        texts(clip, [2, 3], 3, 1, 0)
        images(clip, 1)
        assert len(seen) == 2


def test_deep_prompts_beyond_what_is_shared(plain_model):
    deep = [torch.randn(4, 32)]
    embeddings, ends = torch.randn(2, 8, 32), torch.tensor([7, 6])
    found = [Towers(plain_model).encode_text(embeddings, ends, deep, shared=shared) for shared in (1, 5)]
    embeddings[1, :5] = embeddings[0, :5]
    expected = Towers(plain_model).encode_text(embeddings, ends, deep)
    torch.testing.assert_close(found[0][:1], expected[:1])
    torch.testing.assert_close(found[1], expected, rtol=1e-4, atol=1e-5)


def test_gradients_after_inference_mode(plain_model):
    """What is kept from one call to the next is no inference tensor."""
    pack.cache_clear()
    with torch.inference_mode():
        texts(plain_model, [4, 2], 3, 1, 0)
    assert all(x.any() for x in gradients(*texts(plain_model, [4, 2], 3, 1, 0)))


def test_a_mask_of_ones_own_is_kept(plain_model):
    """Texts that see one another backwards share nothing at the beginning."""
    clip = copy.deepcopy(plain_model)
    clip.attn_mask = torch.zeros_like(clip.attn_mask)
    same(lambda clip: texts(clip, [2, 5], 3, 1, 0), clip)
    assert not torch.allclose(texts(clip, [2, 5], 3, 1, 0)[0], texts(plain_model, [2, 5], 3, 1, 0)[0], atol=1e-2)


def test_half_precision(plain_model):
    clip = copy.deepcopy(plain_model)
    import_open_clip().model.convert_weights_to_lp(clip, dtype=torch.bfloat16)
    clip = clip.bfloat16()
    same(lambda clip: texts(clip, [3, 1, 5], 4, 2, 1), clip, rtol=0.05)
    same(lambda clip: images(clip, 3), clip, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        same(lambda clip: texts(clip, [3, 1, 5], 4, 2, 1), plain_model, rtol=0.05)
        same(lambda clip: images(clip, 3), plain_model, rtol=0.05)


@every_learner
def test_every_learner(shapes, data, name, monkeypatch):
    learner = LEARNERS[name](shapes, **SHORT[name])
    labels = data.train.labels[:8]
    inputs, bound = learner.inputs(data.train.images[:8]), learner.bind(data.base_classes)

    def found():
        learner._step = 0  # ProDA: the same prompts
        loss, gradients = learner.gradients(inputs, labels, bound)
        return [torch.tensor(loss), *gradients, learner.logits(data.new_test.images[:4], data.new_classes)]

    quick = found()
    general(monkeypatch)
    for a, b in zip(quick, found(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * b.abs().max().item())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=40))
def test_packing(lengths):
    packed = pack(tuple(lengths), torch.device("cpu"))
    size = packed.seen.shape[1]
    assert packed.text.shape == packed.token.shape == (len(packed.seen) * size,)
    assert len(packed.seen) * size <= len(lengths) * max(lengths)  # never more than with padding
    seen = torch.block_diag(*packed.seen)
    taken = []
    for i, length in enumerate(lengths):
        end = int(packed.ends[i])
        places = range(end - length + 1, end + 1)
        assert (packed.text[places] == i).all() and packed.token[places].tolist() == list(range(length))
        for at, place in enumerate(places):
            assert seen[place].nonzero().flatten().tolist() == list(places[: at + 1])
        taken += places
    assert len(set(taken)) == sum(lengths)
