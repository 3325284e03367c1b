"""ProGrad: CoOp that takes no step against zero-shot CLIP."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .coop import CoOp
from .placement import Prompts, before_name


class ProGrad(CoOp):
    """Prompt-aligned Gradient (Zhu, Niu, Han, Wu, Zhang: "Prompt-aligned Gradient for Prompt Tuning", ICCV
    2023, arXiv 2205.14865).

    The gradient of the cross-entropy (G_d) loses, where it points against that of the KL divergence from
    zero-shot CLIP's predictions (G_g), ``lambda`` times its component along G_g; the two are compared over
    the whole context. Defaults as published: 16 context tokens, the last of them start as the words of
    ``template`` before the class name (see :meth:`PromptLearner.init_ids`), the others at zero; 100 epochs,
    batches of 32, SGD at 0.002, lambda and the temperature T of the KL divergence 1."""

    hyperparameters = (*CoOp.hyperparameters, "lambda_", "temperature")
    epochs = 100
    sized_by_words = False
    lambda_, temperature = 1.0, 1.0

    def __init__(
        self,
        clip: Any,
        tokenizer: Callable[..., Tensor] | None = None,
        template: str = "a photo of a {}.",
        *,
        context_init: str | None = None,
        **options: Any,
    ) -> None:
        if context_init is None:
            context_init = before_name(str(template))
        super().__init__(clip, tokenizer, template, context_init=context_init, **options)

    def bind(self, classnames: Sequence[str]) -> Prompts:
        return self.prompts(classnames)._replace(fixed=self.zeroshot_text_features(classnames))

    def gradients(self, inputs: Tensor, labels: Tensor, prompts: Prompts) -> tuple[float, Sequence[Tensor]]:
        with torch.enable_grad():
            logits = self.class_logits(inputs, prompts)
            cross_entropy = F.cross_entropy(logits, labels)
            zeroshot = self.scale(inputs @ prompts.fixed.T)
            tuned, target = ((x / self.temperature).log_softmax(1) for x in (logits, zeroshot))
            divergence = F.kl_div(tuned, target, reduction="batchmean", log_target=True) * self.temperature**2
        (general,) = torch.autograd.grad(divergence, self.context, retain_graph=True)
        (domain,) = torch.autograd.grad(cross_entropy, self.context)
        return cross_entropy.item(), [aligned(domain, general, self.lambda_)]


def aligned(domain: Tensor, general: Tensor, lambda_: float) -> Tensor:
    """G_d, without ``lambda_`` times its component along G_g where the two point apart."""
    dot = (domain * general).sum()
    return domain - lambda_ * dot / general.square().sum() * general if dot < 0 else domain
