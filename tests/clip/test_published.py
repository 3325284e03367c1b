"""Checkpoints in the layouts of the published trainers, made here from their documented keys and shapes."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from pyfastcal.clip import import_open_clip, prompts
from pyfastcal.clip.prompts import CoCoOp, CoOp, KgCoOp, MaPLe, ProDA, ProGrad, PromptSRC, load_published

from . import restated

NAMES = ["digit one", "letter q", "digit two"]
TUNED_ON = ["digit zero", "letter q"]
WIDTH, DIM, IMAGE_WIDTH = 64, 64, 96


def normal(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def embedded(clip, words):
    return clip.model.token_embedding(torch.tensor(clip.tokenizer.encode(words))).detach()


def tokens(clip, n, words="", p=""):
    """token_prefix (C, 1, width) and token_suffix (C, 26 - 1 - n, width) of the classes that were tuned on."""
    rows = [torch.cat([embedded(clip, f"{words} {name}."), torch.zeros(26, WIDTH)])[: 25 - n] for name in TUNED_ON]
    return {f"{p}token_prefix": torch.zeros(2, 1, WIDTH), f"{p}token_suffix": torch.stack(rows)}


def linear(name, inputs, outputs, seed=0):
    return {f"{name}.weight": normal(outputs, inputs, seed=seed), f"{name}.bias": normal(outputs, seed=seed)}


def towers(clip):
    """The CLIP inside whole models, under the names it has there."""
    state = clip.model.state_dict()
    whole = {f"image_encoder.{key.removeprefix('visual.')}": x for key, x in state.items() if key.startswith("visual.")}
    text = ("positional_embedding", "text_projection", "transformer.", "ln_final.")
    whole |= {f"text_encoder.{key}": x for key, x in state.items() if key.startswith(text)}
    return whole | {"logit_scale": state["logit_scale"]}


def maple_state(clip, words="of a"):
    p = "prompt_learner."
    state = {f"{p}ctx": normal(2, WIDTH), f"{p}compound_prompts_text.0": normal(2, WIDTH, seed=1)}
    state |= linear(f"{p}proj", WIDTH, IMAGE_WIDTH)
    state |= linear(f"{p}compound_prompt_projections.0", WIDTH, IMAGE_WIDTH, seed=1)
    return state | tokens(clip, 2, words, p) | towers(clip)


def promptsrc_state(clip):
    state = {"prompt_learner.ctx": normal(4, WIDTH), "image_encoder.VPT": normal(3, IMAGE_WIDTH)}
    for tower, layers, shape in (("text", [1], (4, WIDTH)), ("image", [1, 2], (3, IMAGE_WIDTH))):
        for i in layers:
            state[f"{tower}_encoder.transformer.resblocks.{i}.VPT_shallow"] = normal(*shape, seed=i)
    frozen = {f"prompt_learner.ZS_{key}": x for key, x in towers(clip).items() if key.startswith("image")}
    return state | tokens(clip, 4, p="prompt_learner.") | towers(clip) | frozen


def states(clip):
    """The state_dict that each trainer saves."""
    bare = {f"nc_{key}": x for key, x in tokens(clip, 6).items()}
    meta_net = linear("meta_net.linear1", DIM, DIM // 16) | linear("meta_net.linear2", DIM // 16, WIDTH)
    unused = {"bias_vectors": normal(1, WIDTH)} | linear("meta_net.linear1", WIDTH, WIDTH)
    return {
        "CoOp": {"ctx": normal(16, WIDTH)} | tokens(clip, 16),
        "ProGrad": {"ctx": normal(16, WIDTH, seed=3)} | tokens(clip, 16),
        "KgCoOp": {"ctx": normal(4, WIDTH, seed=3)} | tokens(clip, 4) | unused,
        "CoCoOp": {"ctx": normal(4, WIDTH)} | tokens(clip, 4) | meta_net,
        "ProDA": {"ctx": normal(8, 6, WIDTH)} | tokens(clip, 6) | bare,
        "MaPLe": maple_state(clip),
        "PromptSRC": promptsrc_state(clip),
    }


def save(state, path):
    """As Dassl saves: the scheduler's state holds the cosine it wraps, an object, and that the optimizer."""
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=0.002, momentum=0.9, weight_decay=5e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50.0)
    parameter.grad = torch.ones(3)
    optimizer.step(), cosine.step()
    scheduler = {"successor": cosine, "warmup_epoch": 1, "cons_lr": 1e-5, "base_lrs": [0.002], "last_epoch": 1}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = {"epoch": 50, "optimizer": optimizer.state_dict(), "scheduler": scheduler, "val_result": None}
    torch.save({"state_dict": {key: x.half() for key, x in state.items()}} | checkpoint, path)
    return path


def halves(x):
    """What is left of a tensor after the file's half precision."""
    return x.half().float()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prompt_learner" / "model.pth.tar-50"


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


def test_prompts_of_another_clip_are_refused(clip, path):
    torch.manual_seed(0)
    other = import_open_clip().CLIP(
        embed_dim=DIM,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": IMAGE_WIDTH, "layers": 3, "head_width": 32},
        text_cfg={"context_length": 26, "vocab_size": 85, "width": WIDTH, "heads": 2, "layers": 2},
    )
    for state in (maple_state(clip), promptsrc_state(clip)):
        save(state, path)
        with pytest.raises(ValueError, match=r"model.pth.tar-50: clip must be the model that was tuned"):
            load_published(path, other, clip.tokenizer)
    custom = import_open_clip().CustomTextCLIP(
        embed_dim=DIM,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": IMAGE_WIDTH, "layers": 3, "head_width": 32},
        text_cfg={"context_length": 26, "vocab_size": 85, "width": WIDTH, "heads": 2, "layers": 2},
    )
    own = clip.model.state_dict()
    custom.load_state_dict({key: own[key.removeprefix("text.")] for key in custom.state_dict()})
    loaded = [load_published(path, m, clip.tokenizer) for m in (clip.model, custom.eval())]
    torch.testing.assert_close(loaded[0].text_features(NAMES), loaded[1].text_features(NAMES))


def test_bad_files_are_named(clip, path):
    good = states(clip)
    maple = {key: x for key, x in good["MaPLe"].items() if "projections" not in key}
    for state, options, message in [
        ({"weights": torch.zeros(3)}, {}, "must have the keys of a published trainer, such as ctx, got weights"),
        ({"ctx": torch.zeros(2, 16, 64)}, {}, r"ctx must be one context .M, width., got a float16 tensor .*\(CSC\)"),
        ({"ctx": torch.zeros(16, 64)}, {"learner": ProDA}, r"ctx must be contexts .K, M, width., got a float16"),
        ({"ctx": torch.zeros(16, 32)}, {}, r"context must have the shape \(16, 64\) .* got \(16, 32\)"),
        (maple, {}, "prompt_learner.compound_prompt_projections.0.weight is missing, not a checkpoint of MaPLe"),
        (good["CoOp"], {"learner": CoCoOp}, "meta_net.linear1.weight is missing, not a checkpoint of CoCoOp"),
        (good["PromptSRC"], {"depth_text": 1}, r"deep_context.0 must have the shape nothing .* got \(4, 64\)"),
        (
            {"ctx": torch.zeros(0, 64)},
            {},
            r"ctx must be one context .M, width., got a float16 tensor of shape \(0, 64\)",
        ),
        ({"ctx": torch.full((16, 64), torch.nan)}, {}, "context must be finite, got 1024 NaN or infinite values$"),
        (good["MaPLe"] | {"prompt_learner.ctx": torch.tensor(0.0)}, {}, "prompt_learner.ctx must be one context"),
        (good["PromptSRC"] | {"image_encoder.VPT": torch.tensor(0.0)}, {}, "image_encoder.VPT must be one context"),
    ]:
        with pytest.raises(ValueError, match=rf"model.pth.tar-50: {message}"):
            load_published(save(state, path), clip, **options)
    for key, got in [(0, "0"), (None, "None"), (("ctx",), "a tuple")]:
        torch.save({"state_dict": {key: torch.zeros(16, 64)}}, path)
        with pytest.raises(ValueError, match=rf"model.pth.tar-50: state_dict must have texts as keys, got {got}$"):
            load_published(path, clip)
    torch.save({"state_dict": {"ctx": torch.zeros(16, 64, dtype=torch.int64)}}, path)
    with pytest.raises(ValueError, match=r"model.pth.tar-50: context must be floating point"):
        load_published(path, clip)
    with pytest.raises(ValueError, match=r"nowhere: no such file"):
        load_published("nowhere", clip)
    path.write_bytes(save(good["CoOp"], path).read_bytes()[:900])
    with pytest.raises(ValueError, match=r"model.pth.tar-50: not a checkpoint that torch.load"):
        load_published(path, clip)
    sparse = torch.eye(64).to_sparse()
    for content in (torch.zeros(3), {"epoch": 3}, *({"state_dict": {"ctx": x}} for x in ([1.0], sparse, None))):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"model.pth.tar-50: state_dict must be in the file"):
            load_published(path, clip)
    with pytest.raises(ValueError, match=r"^learner must be one of pyfastcal.clip.prompts, got PromptLearner"):
        load_published(save(good["CoOp"], path), clip, learner=prompts.PromptLearner)


def rewritten(path, old, new):
    """The checkpoint with other bytes in its pickle."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            assert not name.endswith("data.pkl") or old in data
            archive.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)
    return path


@pytest.mark.parametrize("scalar", [np.float64(87.5), np.float32(87.5), np.int64(3), np.bool_(True)])
def test_numpy_scalars_beside_the_weights(clip, path, scalar):
    """As model-best.pth.tar has it, the best validation result."""
    path.parent.mkdir()
    state = states(clip)["CoOp"]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # of NumPy 1 and 2
        torch.save({"state_dict": state, "epoch": 50, "val_result": scalar}, path)
        rewritten(path, scalar.__reduce__()[0].__module__.encode(), module.encode())
        assert torch.equal(load_published(path, clip).context.detach(), state["ctx"])


def test_of_numpy_scalars_alone_are_allowed(clip, path):
    path.parent.mkdir()
    for other, name in [(np.zeros(3), "_reconstruct"), (np.sum, "sum"), (Hostile(), "exec")]:
        content = {"state_dict": states(clip)["CoOp"], "val_result": np.float64(87.5), "other": other}
        torch.save(content, path)
        with pytest.raises(
            ValueError, match=rf"model.pth.tar-50: not a checkpoint .*Unsupported global: GLOBAL \S*{name}"
        ):
            load_published(path, clip)
    torch.save({"state_dict": {"ctx": np.float64(87.5)}}, path)
    with pytest.raises(ValueError, match=r"model.pth.tar-50: state_dict must be in the file, .* got ctx that is none"):
        load_published(path, clip)


class Hostile:
    def __reduce__(self):
        return exec, ("import builtins; builtins.was_run = True",)


def test_nothing_in_a_file_is_run(clip, path):
    import builtins

    path.parent.mkdir()
    allowed = set(torch.serialization.get_safe_globals())
    content = {"state_dict": states(clip)["CoOp"], "scheduler": {"successor": Hostile()}}
    torch.save(content, path)
    with pytest.raises(
        ValueError, match=r"model.pth.tar-50: not a checkpoint .*\(Unsupported global: GLOBAL \S*exec\)$"
    ):
        load_published(path, clip)
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=r"model.pth.tar-50: not a checkpoint"):
        load_published(path, clip)
    assert not hasattr(builtins, "was_run")
    assert set(torch.serialization.get_safe_globals()) == allowed
