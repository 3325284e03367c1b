"""Checkpoints of published trainers: their learners give the features that are restated here from their tensors."""

import pytest
import torch
from torch import nn

from pyfastcal.clip import prompts
from pyfastcal.clip.prompts import CoCoOp, CoOp, KgCoOp, MaPLe, ProDA, ProGrad, PromptSRC, load_published

from . import restated
from .published import DIM, NAMES, halves, maple_state, promptsrc_state, save, states


@pytest.mark.parametrize("kind", [CoOp, ProGrad, KgCoOp])
def test_one_context(clip, path, kind):
    state = states(clip)[kind.__name__]
    save(state, path)
    expected = torch.stack([restated.prompted(clip, name, halves(state["ctx"])) for name in NAMES]).detach()
    for learner in (load_published(path, clip), load_published(path, clip, learner=kind)):
        torch.testing.assert_close(learner.text_features(NAMES), expected)
    assert type(learner) is kind and type(load_published(path, clip)) is CoOp
    assert learner.context.dtype == torch.float32 and learner.n_context == len(state["ctx"])


def test_cocoop(clip, task, path):
    state = states(clip)["CoCoOp"]
    learner = load_published(save(state, path), clip)
    assert type(learner) is CoCoOp
    w = {key: halves(x) for key, x in state.items()}
    images = task.new_test.images[:3]
    for x, row in zip(learner.features(images), learner.logits(images, NAMES), strict=True):
        hidden = (w["meta_net.linear1.weight"] @ x + w["meta_net.linear1.bias"]).clamp(min=0)
        context = w["ctx"] + w["meta_net.linear2.weight"] @ hidden + w["meta_net.linear2.bias"]
        expected = torch.stack([x @ restated.prompted(clip, name, context) for name in NAMES])
        torch.testing.assert_close(row, 100 * expected.detach(), rtol=1e-4, atol=1e-3)
    assert not learner.mean_feature.any() and learner.text_features(NAMES).shape == (3, DIM)


@pytest.mark.parametrize("n_prompts", [8, 6])  # six are not in groups of four
def test_proda(clip, path, n_prompts):
    state = states(clip)["ProDA"]
    state["ctx"] = state["ctx"][:n_prompts]
    learner = load_published(save(state, path), clip)
    assert type(learner) is ProDA and learner.n_prompts == n_prompts
    quarter = n_prompts // 4
    places = [0] * quarter + [3] * quarter + [6] * (n_prompts - 2 * quarter)
    rows = [
        torch.stack([restated.prompted(clip, name, halves(context), before=at) for name in NAMES])
        for context, at in zip(state["ctx"], places, strict=True)
    ]
    expected = nn.functional.normalize(torch.stack(rows).mean(0), dim=1).detach()
    torch.testing.assert_close(learner.text_features(NAMES), expected, rtol=1e-4, atol=1e-5)
    del state["nc_token_prefix"], state["nc_token_suffix"]  # by its class where the keys do not tell
    assert load_published(save(state, path), clip, learner=ProDA).n_prompts == n_prompts


@pytest.mark.parametrize("words", ["of a", ""])  # the official trainer's default, and another's without words
def test_maple(clip, task, path, words):
    state = maple_state(clip, words)
    learner = load_published(save(state, path), clip)
    assert type(learner) is MaPLe and learner.depth == 2
    w = {key.removeprefix("prompt_learner."): halves(x) for key, x in state.items()}
    deep = [w["compound_prompts_text.0"]]
    expected = [restated.prompted(clip, name, w["ctx"], words.split(), before=2, deep=deep) for name in NAMES]
    torch.testing.assert_close(learner.text_features(NAMES), torch.stack(expected).detach(), rtol=1e-4, atol=1e-5)
    vision = w["ctx"] @ w["proj.weight"].T + w["proj.bias"]
    name = "compound_prompt_projections.0"
    deep = [deep[0] @ w[f"{name}.weight"].T + w[f"{name}.bias"]]
    images = task.new_test.images[:2]
    expected = torch.stack([restated.image(clip.model, picture, vision, deep) for picture in images])
    torch.testing.assert_close(learner.features(images), expected.detach(), rtol=1e-4, atol=1e-5)
    forced = load_published(path, clip, context_init="a photo of a")
    assert torch.allclose(forced.text_features(NAMES), learner.text_features(NAMES), atol=1e-6) == (words == "of a")


def test_promptsrc(clip, task, path):
    state = promptsrc_state(clip)
    learner = load_published(save(state, path), clip)
    assert type(learner) is PromptSRC and (learner.depth_text, learner.depth_vision) == (2, 3)
    w = {key: halves(x) for key, x in state.items()}
    blocks = "transformer.resblocks"
    deep = [w[f"text_encoder.{blocks}.1.VPT_shallow"]]
    expected = torch.stack([restated.prompted(clip, name, w["prompt_learner.ctx"], deep=deep) for name in NAMES])
    torch.testing.assert_close(learner.text_features(NAMES), expected.detach(), rtol=1e-4, atol=1e-5)
    deep = [w[f"image_encoder.{blocks}.{i}.VPT_shallow"] for i in (1, 2)]
    images = task.new_test.images[:2]
    expected = torch.stack([restated.image(clip.model, x, w["image_encoder.VPT"], deep) for x in images])
    torch.testing.assert_close(learner.features(images), expected.detach(), rtol=1e-4, atol=1e-5)


def test_all_of_them_save_as_safetensors(clip, path, tmp_path):
    for name, state in states(clip).items():
        learner = load_published(save(state, path), clip, template="a photo of the {}.")
        learner.save(tmp_path / f"{name}.safetensors")
        again = prompts.load(tmp_path / f"{name}.safetensors", clip)
        assert torch.equal(again.text_features(NAMES), learner.text_features(NAMES))
        assert again.template == "a photo of the {}."


def test_parallel_training_names(clip, path):
    state = states(clip)["CoOp"]
    save({f"module.{key}": x for key, x in state.items()}, path)
    assert torch.equal(load_published(path, clip).context.detach(), halves(state["ctx"]))


def test_deep_prompts_come_in_the_order_of_their_numbers():
    from pyfastcal.clip.prompts.published import _numbered

    found = _numbered({f"p.{i}": torch.tensor(i) for i in (10, 2, 0, 9)}, r"p\.(\d+)")
    assert [int(x) for x in found] == [0, 2, 9, 10]
