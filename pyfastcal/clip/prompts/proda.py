"""ProDA: a distribution of prompts."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .learner import PromptLearner
from .placement import Prompts
from .start import normal


class ProDA(PromptLearner):
    """Prompt Distribution Learning (Lu, Liu, Zhang, Liu, Tian: "Prompt Distribution Learning", CVPR 2022,
    arXiv 2205.03340).

    K contexts, the class name before, within or behind them (a quarter, a quarter, half), give K features
    per class, whose mean is mu_c. Each step takes ``prompt_batch`` of them, by turns in random order, and
    minimises ``L_upper + lambda L_so``: L_upper is the cross-entropy of ``tau z.mu_c + tau^2/2 A[c,y](z)``, the
    upper bound of the expected loss under Gaussian features, where A[c,y] is the variance of the difference
    between the features of c and the label y along z (the published code takes the feature dimensions for
    independent and divides by prompts + 1: so does this); L_so the mean absolute cosine between the
    features of different contexts without a class name.

    :meth:`logits` takes mu_c as it is, shorter than 1, as published; :meth:`text_features` its direction.

    Defaults as published: 32 contexts of 16 tokens drawn from N(0, 0.02), 4 at a time, lambda 0.1, 100
    epochs, batches of 4, SGD at 0.001."""

    hyperparameters = tuple(name for name in PromptLearner.hyperparameters if name != "context_init")
    hyperparameters += ("n_prompts", "prompt_batch", "lambda_")
    epochs, batch_size, lr = 100, 4, 1e-3
    n_prompts, prompt_batch, lambda_ = 32, 4, 0.1

    def setup(self, generator: torch.Generator) -> None:
        if self.n_prompts % self.prompt_batch:
            raise ValueError(f"prompt_batch must divide n_prompts, {self.n_prompts}, got {self.prompt_batch}")
        self.context = nn.Parameter(normal(self.n_prompts, self.n_context, self.towers.width, generator=generator))
        self._seed, self._step = int(torch.randint(2**31, (), generator=generator)), 0

    def next_prompts(self) -> list[int]:
        """The contexts of the next step: all in turn, in an order drawn anew for every round."""
        start, generator = self._step * self.prompt_batch, torch.Generator()
        generator.manual_seed(self._seed + start // self.n_prompts)
        self._step += 1
        order = torch.randperm(self.n_prompts, generator=generator).tolist()
        return order[start % self.n_prompts :][: self.prompt_batch]

    def before_name(self, prompt: int) -> int:
        """How many tokens of a context stand before the class name."""
        quarter = self.n_prompts // 4
        return 0 if prompt < quarter else self.n_context // 2 if prompt < 2 * quarter else self.n_context

    def encode(self, prompts: Prompts, which: Sequence[int]) -> Tensor:
        """Features (K, C, D) of the classes under some of the contexts."""
        features: dict[int, Tensor] = {}
        for before in sorted({self.before_name(i) for i in which}):
            alike = [i for i in which if self.before_name(i) == before]  # the classes share what stands before the name
            embeddings = [
                move_name(self.insert(prompts, self.context[i]), prompts.ends, self.n_context, before) for i in alike
            ]
            shared = {"shared": 1 + before, "groups": len(alike)}
            encoded = self.encode_text(torch.cat(embeddings), prompts.ends.repeat(len(alike)), **shared)
            features |= zip(alike, encoded.chunk(len(alike)), strict=True)
        return torch.stack([features[i] for i in which])

    def encode_prompts(self, prompts: Prompts) -> Tensor:
        """mu (C, D), over all contexts."""
        groups = torch.arange(self.n_prompts).split(self.prompt_batch)
        return torch.cat([self.encode(prompts, group.tolist()) for group in groups]).mean(0)

    def loss(self, inputs: Tensor, labels: Tensor, prompts: Prompts) -> Tensor:
        features = self.encode(prompts, self.next_prompts())
        mu = features.mean(0)
        deviation, z2 = features - mu, inputs.square()
        own = deviation[:, labels]  # (K, N, D)
        # A = sum_kd z_d^2 (deviation_kcd - deviation_kyd)^2 / (K + 1), expanded so that no C x C matrix arises
        spread = torch.einsum("nd,kcd->nc", z2, deviation.square())
        spread = spread + torch.einsum("nd,knd->n", z2, own.square())[:, None]
        spread = (spread - 2 * torch.einsum("knd,kcd->nc", z2 * own, deviation)) / (len(features) + 1)
        upper = F.cross_entropy(self.scale(inputs @ mu.T) + self.logit_scale**2 / 2 * spread, labels)
        return upper + self.lambda_ * self.orthogonality()

    def orthogonality(self) -> Tensor:
        """L_so: the mean absolute cosine between different contexts that stand alone."""
        n, bare = self.n_prompts, self.place(["."])
        ends = bare.ends.expand(n)
        alone = bare._replace(embeddings=bare.embeddings.expand(n, -1, -1), ends=ends)
        features = self.encode_text(self.insert(alone, self.context), ends)
        cosine = (features @ features.T).abs()
        return (cosine.sum() - cosine.diagonal().sum()) / max(1, n * (n - 1))


def move_name(embeddings: Tensor, ends: Tensor, n_context: int, before: int) -> Tensor:
    """Prompts (C, L, width) ``[start] context name . [end]``, which end at ``ends``, with the name behind the
    first ``before`` tokens of the context."""
    if before == n_context:
        return embeddings
    column = torch.arange(embeddings.shape[1], device=embeddings.device)
    name_end = ends[:, None] - 1  # the full stop stands between the name and the end
    # start and first part of the context 0, name 1, second part 2, the rest 3
    within = torch.where(column <= before, 0, 2)
    part = torch.where(column <= n_context, within, torch.where(column < name_end, 1, 3))
    order = part.argsort(dim=1, stable=True)
    return embeddings.gather(1, order[:, :, None].expand(-1, -1, embeddings.shape[2]))
