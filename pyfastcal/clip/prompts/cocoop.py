"""CoCoOp: a context that depends on the image."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..features import Images
from .coop import CoOp
from .placement import Prompts
from .start import linear

PROMPTS_AT_ONCE = 1024


class CoCoOp(CoOp):
    """Conditional Context Optimization (Zhou, Yang, Loy, Liu: "Conditional Prompt Learning for
    Vision-Language Models", CVPR 2022, arXiv 2203.05557).

    Every context token is shifted by what the Meta-Net makes of the image: ``v_m(x) = v_m + pi(x)``, pi of two
    layers with D / 16 hidden units. So each image has text features of its own, and :meth:`logits`, which
    takes them, encodes C prompts per image.

    :meth:`text_features`, one set for all images as DAC and feature files want it, takes pi at the mean
    of the image features it was tuned on (at 0 before any :meth:`fit`, and in a published checkpoint,
    which does not hold it); :meth:`condition` puts that of other images in its place.

    Defaults as published: 4 context tokens that start as "a photo of a", 10 epochs, one image at a time,
    SGD at 0.002."""

    n_context, context_init = 4, "a photo of a"
    epochs, batch_size = 10, 1

    def setup(self, generator: torch.Generator) -> None:
        super().setup(generator)
        dim, width = self.towers.dim, self.towers.width
        hidden = max(1, dim // 16)
        layers = linear(dim, hidden, generator), nn.ReLU(), linear(hidden, width, generator)
        self.meta_net = nn.Sequential(OrderedDict(zip(("linear1", "relu", "linear2"), layers, strict=True)))  # pi
        if not hasattr(self, "mean_feature"):
            self.register_buffer("mean_feature", torch.zeros(dim))

    def condition(self, images: Images) -> "CoCoOp":
        """Let :meth:`text_features` speak for ``images``, or image features (N, D), from now on."""
        self.mean_feature = self._features(images).mean(0)
        return self

    def inputs(self, images: Images) -> Tensor:
        features = super().inputs(images)
        self.condition(features)
        return features

    def encode_prompts(self, prompts: Prompts) -> Tensor:
        return self._conditional(self.mean_feature[None], prompts)[0]

    def class_logits(self, features: Tensor, prompts: Prompts) -> Tensor:
        rows = features.split(max(1, PROMPTS_AT_ONCE // len(prompts.ends)))
        return self.scale(torch.cat([torch.einsum("bd,bcd->bc", x, self._conditional(x, prompts)) for x in rows]))

    def classifier(self, classnames: Sequence[str]) -> nn.Module:
        return ConditionalClassifier(self, self.prompts(classnames))

    def _conditional(self, features: Tensor, prompts: Prompts) -> Tensor:
        """Text features (B, C, D) for each of the images with features (B, D)."""
        b, c = len(features), len(prompts.ends)
        contexts = self.context + self.meta_net(features)[:, None]
        repeated = prompts._replace(embeddings=prompts.embeddings.repeat(b, 1, 1), ends=prompts.ends.repeat(b))
        embeddings = self.insert(repeated, contexts.repeat_interleave(c, dim=0))
        features = self.encode_text(embeddings, repeated.ends, shared=prompts.shared, groups=b)
        return features.unflatten(0, (b, c))


class ConditionalClassifier(nn.Module):
    """Images (N, 3, H, W), preprocessed, to the logits (N, C) of a :class:`CoCoOp` among fixed classes."""

    def __init__(self, learner: CoCoOp, prompts: Prompts) -> None:
        super().__init__()
        self.learner, self.clip, self.prompts = learner, learner.clip, prompts

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32."""
        return self.learner.class_logits(self.learner.encode_image(images), self.prompts)
