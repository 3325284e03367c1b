"""CLIP's two towers with prompts, restated one text and one image at a time, without the package."""

import torch
import torch.nn.functional as F


def blocks(resblocks, x, deep, start, mask=None):
    """The tokens at ``start`` ... are exchanged for the next of ``deep`` before block 1, 2, ... (from 0)."""
    waiting = list(deep)
    for number, block in enumerate(resblocks):
        if number and waiting:
            prompt = waiting.pop(0)
            x = x.clone()
            x[0, start : start + len(prompt)] = prompt
        x = block(x, attn_mask=mask)
    return x


def text(model, tokens, end, deep=()):
    """Feature (D,) of token embeddings (L, width) that end at ``end``; the deep prompts follow the start."""
    padded = torch.cat([tokens, tokens.new_zeros(model.context_length - len(tokens), tokens.shape[1])])
    x = padded[None] + model.positional_embedding
    x = blocks(model.transformer.resblocks, x, deep, 1, model.attn_mask)
    return F.normalize(model.ln_final(x)[0, end] @ model.text_projection, dim=-1)


def prompted(clip, name, context, words=(), before=None, deep=()):
    """Feature (D,) of ``[start] context words name . [end]``, the name behind ``before`` tokens of the context."""
    before = len(context) if before is None else before
    model, ids = clip.model, clip.tokenizer.encode(f"{name}.")
    start, end = clip.tokenizer.sot_token_id, clip.tokenizer.eot_token_id
    embed = lambda numbers: model.token_embedding(torch.tensor(numbers, dtype=torch.int64))  # noqa: E731
    words = [i for word in words for i in clip.tokenizer.encode(word)]
    parts = [embed([start]), context[:before], embed([*words, *ids[:-1]]), context[before:], embed([ids[-1], end])]
    tokens = torch.cat(parts)
    return text(model, tokens, len(tokens) - 1, deep)


def image(model, picture, context=None, deep=()):
    """Feature (D,) of one picture (3, H, W); the prompts stand behind its patches."""
    visual = model.visual
    patches = visual.conv1(picture[None])[0].flatten(1).T
    x = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
    at = len(x)
    x = visual.ln_pre(x if context is None else torch.cat([x, context]))
    x = blocks(visual.transformer.resblocks, x[None], deep, at)
    return F.normalize(visual.ln_post(x[0, 0]) @ visual.proj, dim=-1)


def template_features(clip, names, template):
    """Normalised features (C, D) of the template, by open_clip's own text tower."""
    with torch.no_grad():
        return F.normalize(clip.model.encode_text(clip.tokenizer([template.format(name) for name in names])), dim=-1)
