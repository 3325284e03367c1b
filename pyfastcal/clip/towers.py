"""What prompt learning needs of a CLIP: its text tower from token embeddings onwards, and its image tower."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Attributes of OpenAI's text tower, as open_clip names them.
_TEXT_PARTS = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")


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
    def device(self) -> torch.device:
        """Where the model is."""
        return self._text.token_embedding.weight.device

    @property
    def logit_scale(self) -> float:
        """tau, the factor of the cosine similarities."""
        return float(self.model.logit_scale.detach().exp())

    def end_positions(self, ids: Tensor) -> Tensor:
        """Where each row of ids (N, L) ends: the position the tower is read at, (N,) int64."""
        return (ids.argmax(1) if self._eos is None else (ids == self._eos).int().argmax(1)).long()

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings (N, L, width) of ids (N, L), positions not yet added."""
        return self._text.token_embedding(ids)

    def encode_text(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        """Normalised text features (N, D) of token embeddings (N, L, width) that end at ``ends`` (N,).

        Positions behind the last end are left out: a causal tower read at the end is blind to them.
        """
        text, length = self._text, int(ends.max()) + 1
        dtype = text.transformer.get_cast_dtype()
        x = embeddings[:, :length].to(dtype) + text.positional_embedding[:length].to(dtype)
        x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask[:length, :length]))
        x = x[torch.arange(len(x), device=x.device), ends]
        projection = text.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
