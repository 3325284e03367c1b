"""The CLIPs that are pre-trained on the drawings, and their forward passes for training.

The passes are open_clip's, to rounding: blocks are those of the prompt learners (attention as two products:
torch's fused one has a slow backward pass on CPUs), patches can be left out, text is cut behind the longest caption."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfastcal.clip import blocks


class Kind(NamedTuple):
    """A model's sizes in open_clip's terms."""

    image_size: int
    vision: dict
    embed_dim: int = 128
    text_width: int = 192
    text_layers: int = 3
    context_length: int = 40

    def architecture(self, vocab_size: int) -> dict:
        """open_clip's configuration."""
        text = {"context_length": self.context_length, "vocab_size": vocab_size, "width": self.text_width}
        text |= {"heads": self.text_width // 64, "layers": self.text_layers}
        return {
            "embed_dim": self.embed_dim,
            "vision_cfg": {"image_size": self.image_size, **self.vision},
            "text_cfg": text,
        }


MODELS = {
    "vit": Kind(48, {"patch_size": 8, "width": 192, "layers": 7, "head_width": 64}),
    "vit-small": Kind(48, {"patch_size": 12, "width": 128, "layers": 5, "head_width": 64}, text_width=128),
    "resnet": Kind(64, {"layers": [1, 1, 2, 1], "width": 24, "head_width": 24}, text_width=128),
}


def _through(transformer: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    for block in transformer.resblocks:
        x = blocks.whole(block, x, mask)
    return x


def image_features(
    model: nn.Module, images: Tensor, left_out: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """Unit features (N, D); ``left_out``: the share of patches of each image that a vision transformer does not see."""
    visual = model.visual
    if not hasattr(visual, "transformer"):
        return F.normalize(visual(images.contiguous(memory_format=torch.channels_last)), dim=-1)
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = x + visual.positional_embedding[1:]
    if left_out:
        n, patches, _ = x.shape
        kept = torch.rand(n, patches, generator=generator).argsort(1)[:, : round(patches * (1 - left_out))].to(x.device)
        x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
    first = visual.class_embedding + visual.positional_embedding[0]
    x = visual.ln_pre(torch.cat([first.to(x.dtype).expand(len(x), 1, -1), x], 1))
    x = _through(visual.transformer, x)
    return F.normalize(visual.ln_post(x)[:, 0] @ visual.proj, dim=-1)


def text_features(model: nn.Module, ids: Tensor) -> Tensor:
    """Unit features (N, D) of token ids (N, L)."""
    ends = ids.argmax(1)
    length = int(ends.max()) + 1
    x = model.token_embedding(ids[:, :length]) + model.positional_embedding[:length]
    x = _through(model.transformer, x, model.attn_mask[:length, :length])
    return F.normalize(model.ln_final(x)[torch.arange(len(ids)), ends] @ model.text_projection, dim=-1)
