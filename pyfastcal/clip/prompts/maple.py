"""MaPLe: prompts in both towers, those of the image tower made from those of the text tower."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...arguments import checks
from ..features import Images
from .learner import PromptLearner
from .placement import Prompts
from .start import linear, normal


class MaPLe(PromptLearner):
    """Multi-modal Prompt Learning (Khattak, Rasheed, Maaz, Khan, Khan: "MaPLe: Multi-modal Prompt
    Learning", CVPR 2023, arXiv 2210.03117).

    Language prompts P_0 ... P_{J-1} enter the text tower before its first J blocks; vision prompts
    ``P~_k = F_k(P_k)``, F_k linear, enter the image tower before the same ones. J, ``depth``, is cut to the
    layers that both towers have.

    Defaults as published: 2 context tokens that start as "a photo" of "a photo of a", whose other words stay
    before the class name; J = 9, 5 epochs, batches of 4, SGD at 0.0035."""

    hyperparameters = (*PromptLearner.hyperparameters, "depth")
    n_context, context_init = 2, "a photo of a"
    epochs, batch_size, lr = 5, 4, 3.5e-3
    depth = 9
    tunes_images = True

    def setup(self, generator: torch.Generator) -> None:
        n, width, image_width = self.n_context, self.towers.width, self.towers.image_width
        deep = min(self.depth, self.towers.text_layers, self.towers.image_layers) - 1
        self.context = self.start(generator)  # P_0
        self.deep_context = nn.ParameterList(normal(n, width, generator=generator) for _ in range(deep))  # P_1 ...
        first, other = (linear(width, image_width, generator) for _ in range(2))
        self.coupling = nn.ModuleList([first, *(copy.deepcopy(other) for _ in range(deep))])  # F_0 ...

    def vision_prompts(self) -> list[Tensor]:
        """P~_0 ... P~_{J-1}, each (n_context, image_width)."""
        # (a list first: torch.compile of 2.11 does not unpack a ParameterList)
        return [f(p) for f, p in zip(self.coupling, [self.context, *list(self.deep_context)], strict=True)]

    def encode_prompts(self, prompts: Prompts) -> Tensor:
        embeddings = self.insert(prompts, self.context)
        return self.encode_text(embeddings, prompts.ends, list(self.deep_context), shared=prompts.shared)

    def encode_image(self, images: Tensor) -> Tensor:
        context, *deep = self.vision_prompts()
        return F.normalize(self.towers.encode_image(images, context, deep), dim=-1)

    def inputs(self, images: Images) -> Tensor:
        """The images (N, 3, H, W) themselves."""
        checks.not_empty("images", checks.floating("images", images, 4))
        return images

    def loss(self, inputs: Tensor, labels: Tensor, prompts: Prompts) -> Tensor:
        """Cross-entropy over the classes that are tuned on."""
        return F.cross_entropy(self.class_logits(self.encode_image(inputs), prompts), labels)
