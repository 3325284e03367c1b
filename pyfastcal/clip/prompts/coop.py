"""CoOp: one learned context for all classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .learner import PromptLearner
from .placement import Prompts


class CoOp(PromptLearner):
    """Context Optimization (Zhou, Yang, Loy, Liu: "Learning to Prompt for Vision-Language Models", IJCV
    2022, arXiv 2109.01134), unified context, class name at the end, random start.

    Defaults as published for 16 shots: 16 context tokens drawn from N(0, 0.02), 200 epochs, batches of
    32, SGD at 0.002. A context that starts from ``context_init`` has as many tokens as that has words, unless
    ``n_context`` is given. One departure: image features are computed once, of images as they are (see
    :meth:`PromptLearner.fit`)."""

    sized_by_words = True

    def setup(self, generator: torch.Generator) -> None:
        self.context = self.start(generator)  # [V]_1 ... [V]_M

    def encode_prompts(self, prompts: Prompts) -> Tensor:
        return self.encode_text(self.insert(prompts, self.context), prompts.ends, shared=prompts.shared)

    def loss(self, inputs: Tensor, labels: Tensor, prompts: Prompts) -> Tensor:
        """Cross-entropy over the classes that are tuned on."""
        return F.cross_entropy(self.class_logits(inputs, prompts), labels)
