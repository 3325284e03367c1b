"""The blocks of open_clip's transformers for tokens that share much: the same features to rounding, for less work.

What many rows have in common (the start and the context of prompts, the prompts of images) is computed once, texts of
different lengths stand side by side without padding, and the last block works on the tokens that are read."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .packing import Packed


def plain(transformer: nn.Module) -> bool:
    """Whether all blocks are what this file does in their place: open_clip's own, with torch's attention and nothing
    hooked to it. Activation and layer scale may be any."""
    return (
        _is(transformer, "Transformer")
        and not (getattr(transformer, "grad_checkpointing", False) or _hooked(transformer))
        and all(map(_plain_block, transformer.resblocks))
    )


def _is(module: nn.Module, name: str) -> bool:
    """Whether it is of open_clip's class of that name, which is not imported for it: torch.compile follows this."""
    return (type(module).__module__, type(module).__name__) == ("open_clip.transformer", name)


def _plain_block(block: nn.Module) -> bool:
    attention = getattr(block, "attn", None)
    return (
        _is(block, "ResidualAttentionBlock")
        and not (hasattr(block, "ln_1_kv") or _hooked(block))
        and type(attention) is nn.MultiheadAttention
        and attention.in_proj_weight is not None
        and attention.bias_k is None
        and attention.batch_first
        and not (attention.dropout or attention.add_zero_attn or _hooked(attention))
        and isinstance(block.ln_1, nn.LayerNorm)
        and isinstance(block.ln_2, nn.LayerNorm)
    )


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def text_blocks(transformer: nn.Module, prefix: Tensor, rest: Tensor, packed: Packed, deep: Sequence[Tensor]) -> Tensor:
    """Causal blocks on G groups of C texts: the last token (G, C, width) of each.

    ``prefix`` (G, P, width): the first tokens, the same for all texts of a group; ``rest`` (G, R S, width): their other
    tokens, ``packed``; ``deep``: as for :meth:`Towers.encode_text <pyfastcal.clip.towers.Towers.encode_text>`, within
    the prefix."""
    p, x, last = prefix.shape[1], torch.cat([prefix, rest], dim=1), len(transformer.resblocks) - 1
    rows, places = packed.seen.shape[:2]
    causal, seen = (_bias(t) for t in (packed.seen.new_ones(p, p).tril(), F.pad(packed.seen, (p, 0), value=True)))
    for i, block in enumerate(transformer.resblocks):
        if 0 < i <= len(deep):
            prompt = deep[i - 1].to(x.dtype).expand(len(x), -1, -1)
            start, _, others = x.split([1, prompt.shape[1], x.shape[1] - 1 - prompt.shape[1]], dim=1)
            x = torch.cat([start, prompt, others], dim=1)
        # of the prefix (G, heads, P, size), and of the rest (G, heads, R, S, size)
        (q, q_rest), *others = (
            (t[0], t[1].unflatten(2, (rows, places)))
            for t in (t.split([p, rows * places], dim=2) for t in _heads(block, x))
        )
        k, v = (torch.cat([t[:, :, None].expand(-1, -1, rows, -1, -1), t_rest], dim=3) for t, t_rest in others)
        mixed = _mix(q_rest, k, v, seen).flatten(2, 3)
        if i == last:
            mixed, x = mixed[:, :, packed.ends], x[:, p + packed.ends]
        else:
            mixed = torch.cat([_mix(q, others[0][0], others[1][0], causal), mixed], dim=2)
        x = _behind(block, x, mixed)
    return x


def image_blocks(transformer: nn.Module, x: Tensor, prompts: Sequence[Tensor]) -> Tensor:
    """Blocks on images (N, L, width), a prompt (n, width) behind the tokens of each before the first block, another in
    its place before the second, and so on: the first token (N, width) of each."""
    last = len(transformer.resblocks) - 1
    for i, block in enumerate(transformer.resblocks):
        prompt = prompts[i].to(x.dtype) if i < len(prompts) else None
        if prompt is not None and i == len(prompts) - 1 and i < last:  # the one that stays takes part in all
            x, prompt = torch.cat([x, prompt.expand(len(x), -1, -1)], dim=1), None
        q, k, v = _heads(block, x)
        if prompt is not None:  # what becomes of it is thrown away: it is only looked at
            _, *others = _heads(block, prompt[None])
            k, v = (torch.cat([t, o.expand(len(x), -1, -1, -1)], dim=2) for t, o in zip((k, v), others, strict=True))
        if i == last:
            q, x = q[:, :, :1], x[:, :1]
        x = _behind(block, x, _mix(q, k, v))
    return x[:, 0]


def whole(block: nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """A block on tokens (N, L, width), ``bias`` (L, L) added to the scores."""
    return _behind(block, x, _mix(*_heads(block, x), bias))


def _heads(block: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys, values (N, heads, L, size) of tokens (N, L, width)."""
    attention = block.attn
    qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    return tuple(t.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=-1))


def _behind(block: nn.Module, x: Tensor, mixed: Tensor) -> Tensor:
    """The rest of a block, from what attention made of the values, (N, heads, L, size)."""
    out = block.attn.out_proj
    x = x + block.ls_1(F.linear(mixed.transpose(1, 2).flatten(2), out.weight, out.bias))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _bias(seen: Tensor) -> Tensor:
    """What is added to scores: nothing where a token sees another, minus infinity elsewhere."""
    return torch.zeros_like(seen, dtype=torch.float32).masked_fill_(~seen, -torch.inf)


def _mix(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention over the last but one dimension, ``bias`` (..., Lq, Lk) added to the scores."""
    if bias is None and (q.device.type != "cpu" or not torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(q, k, v)
    # On CPUs the fused one has a slow backward pass; packed texts are short, so that their scores are few.
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    scores = scores if bias is None else scores + bias
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype) @ v
