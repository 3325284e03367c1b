"""PromptSRC: independent prompts in both towers, held near the frozen CLIP."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...arguments import checks
from ..features import Images, as_words, check_template
from ..open_clip_import import import_open_clip
from .learner import TEXT_BATCH, PromptLearner
from .placement import Prompts
from .start import normal


class PromptSRC(PromptLearner):
    """Prompting with Self-regulating Constraints (Khattak, Wasim, Naseer, Khan, Yang, Khan:
    "Self-regulating Prompts: Foundational Model Adaptation without Forgetting", ICCV 2023, arXiv
    2307.06948).

    ``L = L_ce + lambda_1 mean abs(f - f~) + lambda_2 mean abs(g - g~) + L_scl-logits``: f, g the tuned image
    and text features, f~ those of the frozen CLIP, g~ its text features averaged over ``templates``,
    L_scl-logits the KL divergence from the frozen logits to the tuned ones, over all N x C entries. After
    the last epoch the prompts are the average of those at the end of each epoch t, weighted by a Gaussian of
    t with mean mu and deviation sigma.

    Defaults as published for base-to-new: 4 context tokens in each tower, those of the text tower start as
    "a photo of a", before the first 9 blocks (cut to the layers there are), lambda_1 = 10, lambda_2 = 25,
    20 epochs, mu 15, sigma 1, batches of 4, SGD at 0.0025 (few-shot: 50 epochs, mu 30, sigma 30).
    ``templates``: by default the first 60 of OpenAI's for ImageNet, without those that a small tokenizer has
    no words for."""

    hyperparameters = (*PromptLearner.hyperparameters, "n_context_vision", "depth_text", "depth_vision")
    hyperparameters += ("lambda_1", "lambda_2", "mu", "sigma", "templates")
    n_context, context_init, n_context_vision = 4, "a photo of a", 4
    depth_text, depth_vision = 9, 9
    lambda_1, lambda_2 = 10.0, 25.0
    epochs, batch_size, lr = 20, 4, 2.5e-3
    mu, sigma = 15.0, 1.0
    templates: Sequence[str] | None = None
    tunes_images = True

    @classmethod
    def check_option(cls, name: str, value: Any) -> Any:
        if name == "templates":
            if isinstance(value, str) or not value:
                raise ValueError(f"templates must be a list of templates, got {checks.describe(value)}")
            return [check_template("templates", one) for one in value]
        if name == "sigma":
            return checks.number(name, value, low=0.0, strict=True)
        return super().check_option(name, value)

    def setup(self, generator: torch.Generator) -> None:
        n, width = self.n_context_vision, self.towers.image_width
        texts, images = (
            min(depth, layers) - 1
            for depth, layers in (
                (self.depth_text, self.towers.text_layers),
                (self.depth_vision, self.towers.image_layers),
            )
        )
        self.context = self.start(generator)
        self.deep_context = nn.ParameterList(
            normal(self.n_context, self.towers.width, generator=generator) for _ in range(texts)
        )
        self.vision_context = nn.Parameter(normal(n, width, generator=generator))
        self.deep_vision_context = nn.ParameterList(normal(n, width, generator=generator) for _ in range(images))

    def encode_prompts(self, prompts: Prompts) -> Tensor:
        embeddings = self.insert(prompts, self.context)
        return self.encode_text(embeddings, prompts.ends, list(self.deep_context), shared=prompts.shared)

    def encode_image(self, images: Tensor) -> Tensor:
        deep = list(self.deep_vision_context)
        return F.normalize(self.towers.encode_image(images, self.vision_context, deep), dim=-1)

    @torch.no_grad()
    def bind(self, classnames: Sequence[str]) -> Prompts:
        """With g~: the mean of the frozen features as the tower gives them, normalised afterwards."""
        prompts, total = self.prompts(classnames), 0.0
        for template in self.text_templates():
            ids = self.tokenizer([template.replace("{}", as_words(name)) for name in prompts.classnames])
            rows = ids.to(self.towers.device).split(TEXT_BATCH)
            encoded = [self.towers.encode_text(self.towers.embed(x), self.towers.end_positions(x)) for x in rows]
            total = total + torch.cat(encoded)
        return prompts._replace(fixed=F.normalize(total, dim=-1))

    def text_templates(self) -> list[str]:
        """The templates of g~: those given, or the published ones that the tokenizer has the words for."""
        if self.templates is not None:
            return list(self.templates)
        published = [template("{}") for template in import_open_clip().OPENAI_IMAGENET_TEMPLATES[:60]]
        return [template for template in published if self._can_say(template)] or [self.template]

    def _can_say(self, template: str) -> bool:
        try:
            self.tokenizer([template.replace("{}", "")])
        except ValueError:  # of a WordTokenizer; open_clip's take any text
            return False
        return True

    def inputs(self, images: Images) -> tuple[Tensor, Tensor]:
        """The images (N, 3, H, W) and f~ (N, D)."""
        checks.not_empty("images", checks.floating("images", images, 4))
        return images, self.zeroshot_features(images)

    def loss(self, inputs: tuple[Tensor, Tensor], labels: Tensor, prompts: Prompts) -> Tensor:
        images, frozen = inputs
        f, g = self.encode_image(images), self.encode_prompts(prompts)
        logits, zeroshot = self.scale(f @ g.T), self.scale(frozen @ prompts.fixed.T)
        divergence = F.kl_div(logits.log_softmax(1), zeroshot.log_softmax(1), reduction="sum", log_target=True)
        constraint = self.lambda_1 * F.l1_loss(f, frozen) + self.lambda_2 * F.l1_loss(g, prompts.fixed)
        return F.cross_entropy(logits, labels) + constraint + divergence / logits.numel()

    def epoch_weights(self) -> Tensor:
        """Weights (epochs,) of the Gaussian average, which sum to 1."""
        t = torch.arange(1, self.epochs + 1, dtype=torch.float64)
        return (-0.5 * ((t - self.mu) / self.sigma) ** 2).softmax(0)

    @torch.no_grad()
    def after_epoch(self, epoch: int) -> None:
        weight = float(self.epoch_weights()[epoch])
        weighted = [weight * parameter for parameter in self.trained()]
        before = [torch.zeros_like(x) for x in weighted] if epoch == 0 else self._average
        self._average = [x + y for x, y in zip(before, weighted, strict=True)]
        if epoch == self.epochs - 1:
            for parameter, average in zip(self.trained(), self._average, strict=True):
                parameter.copy_(average)
            del self._average
