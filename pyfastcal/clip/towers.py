"""What prompt learning needs of a CLIP: both towers, entered where learned prompts go in."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .blocks import image_blocks, plain, text_blocks
from .packing import pack

# Attributes of OpenAI's text tower, as open_clip names them.
_TEXT_PARTS = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
# Those of its vision transformer.
_IMAGE_PARTS = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer", "ln_post", "proj")


class Towers:
    """The towers of an open_clip model, entered where learned prompts go in. Not a module: a learner that
    holds it does not count the model's parameters as its own.

    Takes OpenAI's architecture, as ``open_clip.CLIP`` or inside a ``CustomTextCLIP``: a causal text
    transformer whose output is read at the end token. Raises ValueError for every other model: a prompt
    needs token embeddings to stand among (a Hugging Face tower hides them) and a position to be read at
    that the prompt does not move."""

    def __init__(self, model: nn.Module) -> None:
        text = model if hasattr(model, "token_embedding") else getattr(model, "text", None)
        kind = type(model).__name__ if text in (model, None) else f"{type(model).__name__} with {type(text).__name__}"
        wanted = "an OpenAI-style CLIP (causal text transformer, pooled at the end token)"
        missing = [part for part in _TEXT_PARTS if not hasattr(text, part)]
        if missing or not hasattr(model, "encode_image"):
            raise ValueError(f"model must be {wanted}, got {kind} without {(missing or ['encode_image'])[0]}")
        pooling = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", "argmax")
        if pooling not in ("argmax", "eos"):
            raise ValueError(f"model must be {wanted}, got {kind} that pools by {pooling!r}")
        if getattr(text, "cls_emb", None) is not None or getattr(text, "attn_mask", None) is None:
            raise ValueError(f"model must be {wanted}, got {kind} that attends to all tokens or to a class token")
        self.model, self._text = model, text
        mask = text.attn_mask
        self._causal = torch.equal(mask == 0, torch.ones_like(mask, dtype=torch.bool).tril())
        self._eos = getattr(text, "text_eos_id", getattr(text, "eos_id", None)) if pooling == "eos" else None

    @property
    def context_length(self) -> int:
        """Number of text tokens the tower takes, start and end included."""
        return int(self._text.positional_embedding.shape[0])

    @property
    def width(self) -> int:
        """Size of a token embedding."""
        return int(self._text.token_embedding.weight.shape[1])

    @property
    def dim(self) -> int:
        """Size of a feature."""
        projection = self._text.text_projection
        if projection is None:
            return self.width
        return projection.out_features if isinstance(projection, nn.Linear) else int(projection.shape[1])

    @property
    def text_layers(self) -> int:
        """Number of blocks of the text tower."""
        return len(self._text.transformer.resblocks)

    @property
    def image_width(self) -> int:
        """Size of an image token. ValueError where the image tower is not one of OpenAI's transformers."""
        return int(self._vision_transformer().conv1.weight.shape[0])

    @property
    def image_layers(self) -> int:
        """Number of blocks of the image tower. ValueError as for ``image_width``."""
        return len(self._vision_transformer().transformer.resblocks)

    def _vision_transformer(self) -> nn.Module:
        visual = self.model.visual
        wanted = "model must have a vision transformer, pooled at its class token, as image tower"
        missing = [part for part in _IMAGE_PARTS if not hasattr(visual, part)]
        if missing:
            raise ValueError(f"{wanted}, got {type(visual).__name__} without {missing[0]}")
        if getattr(visual, "attn_pool", None) is not None or getattr(visual, "pool_type", "tok") != "tok":
            raise ValueError(f"{wanted}, got {type(visual).__name__} that pools otherwise")
        return visual

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._text.token_embedding.weight.device

    @property
    def logit_scale(self) -> float:
        """tau, the factor of the cosine similarities."""
        return float(self.model.logit_scale.detach().float().exp())

    def logits(self, similarity: Tensor) -> Tensor:
        """Cosine similarities times tau, plus the model's bias if it has one."""
        logits = self.model.logit_scale.detach().float().exp() * similarity
        bias = getattr(self.model, "logit_bias", None)
        return logits if bias is None else logits + bias.detach()

    def end_positions(self, ids: Tensor) -> Tensor:
        """Where each row of ids (N, L) ends: the position the tower is read at, (N,) int64."""
        return (ids.argmax(1) if self._eos is None else (ids == self._eos).int().argmax(1)).long()

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings (N, L, width) of ids (N, L), positions not yet added."""
        return self._text.token_embedding(ids)

    def encode_text(
        self, embeddings: Tensor, ends: Tensor, deep: Sequence[Tensor] = (), *, shared: int = 1, groups: int = 1
    ) -> Tensor:
        """Text features (N, D) of token embeddings (N, L, width) that end at ``ends`` (N,), as the tower gives
        them, not normalised, in float32 at least.

        ``deep``: prompts (n, width) that take the place of the n tokens behind the start, the first of them
        before the second block, and so on. Positions behind the last end are left out: a causal tower read
        at the end is blind to them.

        ``shared``: so many tokens at the beginning are the same in all rows of a group, the start at least;
        the rows are ``groups`` such groups one after the other, with the same ends. Where the blocks are
        open_clip's own and deep prompts lie within them, shared tokens are computed once, and gradients reach
        them in each group's first row.
        """
        text, dtype = self._text, self._text.transformer.get_cast_dtype()
        position = text.positional_embedding.to(dtype)
        if self._causal and plain(text.transformer) and all(len(prompt) < shared for prompt in deep):
            x = embeddings.to(dtype).unflatten(0, (groups, -1))
            places = pack(tuple((ends[: x.shape[1]] - (shared - 1)).tolist()), ends.device)
            at = shared + places.token
            rest = x.flatten(1, 2)[:, places.text * x.shape[2] + at] + position[at]
            x = text_blocks(text.transformer, x[:, 0, :shared] + position[:shared], rest, places, deep).flatten(0, 1)
        else:
            length = int(ends.max()) + 1
            x = embeddings[:, :length].to(dtype) + position[:length]
            x = _blocks(text.transformer, x, deep, 1, text.attn_mask[:length, :length])
            x = x[torch.arange(len(x), device=x.device), ends]
        x, projection = text.ln_final(x), text.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Linear) else x @ projection.to(x.dtype)
        return _at_least_float(x)

    def encode_image(self, images: Tensor, context: Tensor | None = None, deep: Sequence[Tensor] = ()) -> Tensor:
        """Image features (N, D) of preprocessed images (N, 3, H, W), not normalised, in float32 at least.

        ``context``: prompts (n, image_width) that stand behind the patches, without a position, normalised
        with them; ``deep``: prompts (n, image_width) that take their place before the second block, and so
        on. With them, ValueError as for ``image_width``.
        """
        images = images.to(self.device, image_dtype(self.model))
        if context is None:
            return _at_least_float(self.model.encode_image(images))
        visual = self._vision_transformer()
        x = visual.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        x = x + visual.positional_embedding.to(x.dtype)
        if plain(visual.transformer):
            x = image_blocks(visual.transformer, visual.ln_pre(x), [visual.ln_pre(context.to(x.dtype)), *deep])
        else:
            x = visual.ln_pre(torch.cat([x, context.to(x.dtype).expand(len(x), -1, -1)], dim=1))
            x = _blocks(visual.transformer, x, deep, x.shape[1] - len(context))[:, 0]
        x = visual.ln_post(x)
        return _at_least_float(x if visual.proj is None else x @ visual.proj.to(x.dtype))


def image_dtype(model: nn.Module) -> torch.dtype:
    """The dtype that a model's image tower takes. Asked of the first convolution or linear layer: a
    half-precision open_clip model keeps some of its other parameters in float32."""
    for module in getattr(model, "visual", model).modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            return module.weight.dtype
    return torch.float32


def _blocks(
    transformer: nn.Module, x: Tensor, deep: Sequence[Tensor], start: int, attn_mask: Tensor | None = None
) -> Tensor:
    """Run ``x`` (N, L, width) through the blocks; before block i + 1 the tokens from ``start`` on are
    replaced by ``deep[i]``."""
    if not deep:
        return transformer(x, attn_mask=attn_mask)
    for i, block in enumerate(transformer.resblocks):
        if 0 < i <= len(deep):
            prompt = deep[i - 1].to(x.dtype).expand(len(x), -1, -1)
            x = torch.cat([x[:, :start], prompt, x[:, start + prompt.shape[1] :]], dim=1)
        x = block(x, attn_mask=attn_mask)
    return x


def _at_least_float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
