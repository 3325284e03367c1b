"""The blocks of open_clip's transformers for tokens that share much: the same features to rounding, for less work.

What many rows have in common (the start and the context of prompts, the prompts of images) is computed once, texts of
different lengths stand side by side without padding, and the last block works on the tokens that are read."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .open_clip_import import import_open_clip
from .packing import Packed


def plain(transformer: nn.Module) -> bool:
    """Whether all blocks are what this file does in their place: open_clip's own, with torch's attention and nothing
    hooked to it. Activation and layer scale may be any."""
    kind = import_open_clip().transformer.ResidualAttentionBlock
    return not getattr(transformer, "grad_checkpointing", False) and all(
        type(block) is kind and not hasattr(block, "ln_1_kv") and not _hooked(block) and _plain_attention(block)
        for block in transformer.resblocks
    )


def _plain_attention(block: nn.Module) -> bool:
    attention = block.attn
    return (
        type(attention) is nn.MultiheadAttention
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
    seen = torch.cat([packed.seen.new_ones(*packed.seen.shape[:2], p), packed.seen], dim=2)
    causal = packed.seen.new_ones(p, p).tril()
    for i, block in enumerate(transformer.resblocks):
        if 0 < i <= len(deep):
            prompt = deep[i - 1].to(x.dtype).expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], prompt, x[:, 1 + prompt.shape[1] :]], dim=1)
        q, k, v = _heads(block, x)  # (G, heads, P + R S, size)
        own, keys, values = (t[:, :, p:].unflatten(2, (packed.rows, -1)) for t in (q, k, v))
        keys, values = (
            torch.cat([t[:, :, None, :p].expand(-1, -1, packed.rows, -1, -1), t_own], dim=3)
            for t, t_own in ((k, keys), (v, values))
        )
        mixed = _mix(own, keys, values, seen).flatten(2, 3)
        if i == last:
            mixed, x = mixed[:, :, packed.ends], x[:, p + packed.ends]
        else:
            mixed = torch.cat([_mix(q[:, :, :p], k[:, :, :p], v[:, :, :p], causal), mixed], dim=2)
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


def _heads(block: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys, values (N, heads, L, size) of tokens (N, L, width)."""
    attention = block.attn
    qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    return qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def _behind(block: nn.Module, x: Tensor, mixed: Tensor) -> Tensor:
    """The rest of a block, from what attention made of the values, (N, heads, L, size)."""
    out = block.attn.out_proj
    x = x + block.ls_1(F.linear(mixed.transpose(1, 2).flatten(2), out.weight, out.bias))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _mix(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """Attention over the last but one dimension, where ``seen`` (..., Lq, Lk) is true."""
    if q.device.type != "cpu" or not torch.is_grad_enabled():
        if q.ndim == 4:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        flat = (t.flatten(0, 1) for t in (q, k, v))  # the fused kernels take four dimensions
        return F.scaled_dot_product_attention(*flat, attn_mask=seen).unflatten(0, q.shape[:2])
    # On CPUs torch's fused one has a slow backward pass.
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype) @ v
