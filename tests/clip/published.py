"""Checkpoints in the layouts of the published trainers, made here from their documented keys and shapes."""

import torch
from torch import nn

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
