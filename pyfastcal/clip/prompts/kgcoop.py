"""KgCoOp: CoOp that stays near the hand-written prompt."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from .coop import CoOp
from .placement import Prompts


class KgCoOp(CoOp):
    """Knowledge-guided Context Optimization (Yao, Zhang, Xu: "Visual-Language Prompt Tuning with
    Knowledge-guided Context Optimization", CVPR 2023, arXiv 2303.13283).

    ``L = L_ce + lambda L_kg``, ``L_kg = mean_i (1 - cos(w_i, w_i^clip))``: w the tuned text features, w^clip
    those of the template. The paper writes squared distances, twice as much for unit vectors; the
    published code, with its lambda of 8, has this. Defaults as published: 4 context tokens that start as
    "a photo of a", 100 epochs, batches of 128, SGD at 0.002."""

    hyperparameters = (*CoOp.hyperparameters, "lambda_")
    n_context, context_init = 4, "a photo of a"
    epochs, batch_size = 100, 128
    lambda_ = 8.0

    def bind(self, classnames: Sequence[str]) -> Prompts:
        return self.prompts(classnames)._replace(fixed=self.zeroshot_text_features(classnames))

    def loss(self, inputs: Tensor, labels: Tensor, prompts: Prompts) -> Tensor:
        features = self.encode_prompts(prompts)
        knowledge = 1 - (features * prompts.fixed).sum(1).mean()
        return F.cross_entropy(self.scale(inputs @ features.T), labels) + self.lambda_ * knowledge
