"""What all prompt learners share: prompts for any list of classes, the training loop, features and logits."""

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...arguments import checks
from ..adapters import evaluating
from ..features import Images, as_words, check_classnames, check_template, encode_images, encode_text
from ..towers import Towers
from ..wrap import Classifier
from . import files
from .placement import Placement, Prompts

Progress = Callable[[int, int], None]  # epochs done, epochs in all
Learner = TypeVar("Learner", bound="PromptLearner")
Inputs = Tensor | tuple[Tensor, ...]  # what a loss sees of the images, a row for each
TEXT_BATCH = 1024  # classes encoded at a time where no gradient is asked for


class PromptLearner(Placement):
    """Base of the learners: tunes a few prompt vectors of a CLIP that stays as it is.

    ``clip``: an OpenAI-style open_clip model, or a :class:`~pyfastcal.clip.small.SmallCLIP`, then
    ``tokenizer`` may be left out; ``tokenizer``: texts -> ids; ``template``: the zero-shot prompt;
    ``n_context``: number of context tokens; ``context_init``: the words they start from (see :meth:`init_ids`;
    underscores are spaces), drawn from N(0, 0.02) if empty; ``epochs``, ``batch_size``, ``lr``: of SGD with
    ``momentum`` and ``weight_decay``, the rate falling by half a cosine after one epoch of warm-up at
    ``warm_up_lr``. What is left out, or None, has the learner's published value; ``hyperparameters`` names all
    that it has.
    ValueError for a model that cannot take prompts and for values out of range, TypeError for an option
    that the learner lacks.

    A subclass sets the published values, registers its parameters in :meth:`setup`, and says in
    :meth:`encode_prompts` how prompts become text features and in :meth:`loss` what is minimised. One that
    tunes the image tower too overrides :meth:`encode_image` and :meth:`inputs`, one whose text features
    depend on the image :meth:`class_logits`, one that mends its gradients :meth:`gradients`.

    Deterministic: a seed fixes the start and the order of the images, whatever torch's global generator
    holds. ``losses``: the mean loss of each epoch of the last :meth:`fit`.
    """

    hyperparameters: tuple[str, ...] = ("n_context", "context_init", "epochs", "batch_size", "lr")
    hyperparameters += ("momentum", "weight_decay", "warm_up_lr")
    n_context, context_init = 16, ""
    epochs, batch_size, lr = 200, 32, 2e-3
    momentum, weight_decay, warm_up_lr = 0.9, 5e-4, 1e-5
    tunes_images = False  # whether the image features change, too
    sized_by_words = False  # whether a given context_init says how many tokens the context has, if n_context does not

    def __init__(
        self,
        clip: Any,
        tokenizer: Callable[..., Tensor] | None = None,
        template: str = "a photo of a {}.",
        **options: Any,
    ) -> None:
        super().__init__()
        tokenizer = tokenizer or getattr(clip, "tokenizer", None)
        if tokenizer is None:
            raise ValueError("tokenizer must be given where clip is not a SmallCLIP, got None")
        self.towers, self.tokenizer = Towers(getattr(clip, "model", clip)), tokenizer
        self.template = check_template("template", template)
        for name, value in options.items():
            if name not in self.hyperparameters:
                known = ", ".join(self.hyperparameters)
                raise TypeError(f"{type(self).__name__} has no option {name!r}, it has {known}")
            if value is not None:
                setattr(self, name, self.check_option(name, value))
        words = self.context_init.split() if options.get("context_init") else []
        if self.sized_by_words and words and options.get("n_context") is None:
            self.n_context = len(words)
        self.losses: list[float] = []
        self.setup(torch.Generator().manual_seed(0))
        self.to(self.towers.device)

    @classmethod
    def check_option(cls, name: str, value: Any) -> Any:
        """The value of a hyper-parameter, of the kind of the published one: a count, a number, a text."""
        default = getattr(cls, name)
        if isinstance(default, int):
            return checks.integer(name, value, 1)
        if isinstance(default, float):
            return checks.number(name, value, low=0.0, strict=name == "lr")
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a text, got {checks.describe(value)}")
        return " ".join(as_words(value).split())

    # What a learner is made of.

    def setup(self, generator: torch.Generator) -> None:
        """Register the parameters, their start drawn from ``generator``; every :meth:`fit` calls it anew."""
        raise NotImplementedError  # abstract: each learner has its own

    def encode_prompts(self, prompts: Prompts) -> Tensor:
        """The text features (C, D) that the logits are made of, differentiable in the parameters."""
        raise NotImplementedError  # abstract: each learner has its own

    def loss(self, inputs: Inputs, labels: Tensor, prompts: Prompts) -> Tensor:
        """The loss of one batch: rows of :meth:`inputs`, labels (N,), classes of :meth:`bind`."""
        raise NotImplementedError  # abstract: each learner has its own

    def bind(self, classnames: Sequence[str]) -> Prompts:
        """What the loss needs of the classes that are tuned on."""
        return self.prompts(classnames)

    def inputs(self, images: Images) -> Inputs:
        """What the loss needs of the training images: their features (N, D), computed once."""
        return self._features(images)

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised features (N, D) of a batch of preprocessed images, differentiable in the parameters."""
        return F.normalize(self.towers.encode_image(images), dim=-1)

    def class_logits(self, features: Tensor, prompts: Prompts) -> Tensor:
        """Logits (N, C) of image features (N, D), differentiable in both."""
        return self.scale(features @ self.encode_prompts(prompts).T)

    def gradients(self, inputs: Inputs, labels: Tensor, prompts: Prompts) -> tuple[float, Sequence[Tensor]]:
        """The loss of one batch, and its gradients in the order of :meth:`trained`."""
        with torch.enable_grad():
            loss = self.loss(inputs, labels, prompts)
        return loss.item(), torch.autograd.grad(loss, self.trained())

    def after_epoch(self, epoch: int) -> None:
        """Called after each epoch of :meth:`fit`, counted from 0."""

    # What all of them share.

    def fit(
        self: Learner,
        images: Images,
        labels: Tensor,
        classnames: Sequence[str],
        *,
        seed: int = 0,
        drop_last: bool = False,
        autocast: torch.dtype | None = None,
        progress: Progress | None = None,
    ) -> Learner:
        """Tune on ``images`` with ``labels`` (N,) in [0, C) of the C ``classnames``.

        ``images``: (N, 3, H, W), preprocessed; a learner that leaves the image tower alone also takes a
        dataset of them, or their features (N, D). ``drop_last``: leave out an epoch's last batch where it is smaller
        than the others, as the published trainers do. ``autocast``: run the towers under autocast to that dtype.
        ``progress(done, total)`` is called after every epoch. The images are not augmented, so that
        features are computed once and an epoch costs milliseconds (the published code crops and flips them).
        """
        model, device = self.towers.model, self.towers.device
        prompts = self.bind(classnames)
        with evaluating(model):
            inputs = self.inputs(images)
            count = len(inputs[0] if isinstance(inputs, tuple) else inputs)
            checks.labels("labels", labels, count, len(prompts.classnames), "image")
            labels = labels.to(device, torch.int64)
            generator = torch.Generator().manual_seed(seed)
            self.setup(generator)
            self.to(device)
            trained = self.trained()
            optimizer = torch.optim.SGD(trained, self.lr, self.momentum, weight_decay=self.weight_decay)
            context = contextlib.nullcontext() if autocast is None else torch.autocast(device.type, autocast)
            self.losses = []
            for epoch in range(self.epochs):
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate(epoch)
                total, order = 0.0, torch.randperm(count, generator=generator)
                order = order[: count - count % self.batch_size] if drop_last and count > self.batch_size else order
                for rows in order.split(self.batch_size):
                    with context:
                        loss, gradients = self.gradients(_take(inputs, rows), _take(labels, rows), prompts)
                    for parameter, gradient in zip(trained, gradients, strict=True):
                        parameter.grad = gradient
                    optimizer.step()
                    total += loss * len(rows)
                self.losses.append(total / len(order))
                self.after_epoch(epoch)
                if progress is not None:
                    progress(epoch + 1, self.epochs)
        for parameter in trained:
            parameter.grad = None
        return self

    def trained(self) -> list[nn.Parameter]:
        """The parameters that :meth:`fit` trains."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def learning_rate(self, epoch: int) -> float:
        """A small constant rate in the first epoch, then half a cosine over all epochs that starts at the
        full rate (in the published code the warm-up does not count)."""
        if epoch == 0:
            return self.warm_up_lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / self.epochs))

    def encode_text(self, embeddings: Tensor, ends: Tensor, deep: Sequence[Tensor] = (), **shared: int) -> Tensor:
        """Normalised :meth:`Towers.encode_text <pyfastcal.clip.towers.Towers.encode_text>`."""
        return F.normalize(self.towers.encode_text(embeddings, ends, deep, **shared), dim=-1)

    def scale(self, similarity: Tensor) -> Tensor:
        """Logits of cosine similarities: times tau, plus the model's bias if it has one."""
        return self.towers.logits(similarity)

    @torch.no_grad()
    def text_features(self, classnames: Sequence[str], *, normalize: bool = True) -> Tensor:
        """Tuned text features (C, D) of any classes, also ones that it was not tuned on. ``normalize=False``: as
        the logits take them; only ProDA's are then shorter than 1."""
        names = check_classnames(classnames)
        chunks = [names[i : i + TEXT_BATCH] for i in range(0, len(names), TEXT_BATCH)]
        features = torch.cat([self.encode_prompts(self.prompts(chunk)) for chunk in chunks])
        return F.normalize(features, dim=-1) if normalize else features

    def features(self, images: Images, **options: Any) -> Tensor:
        """Tuned image features (N, D), normalised, of images (N, 3, H, W), a dataset or a DataLoader:
        :func:`pyfastcal.clip.encode_images`, which has the ``options``. Those of the CLIP itself where the
        learner leaves the image tower alone."""
        return encode_images(self if self.tunes_images else self.clip, images, **options)

    def image_features(self, images: Images) -> Tensor:
        """:meth:`features` under the name that it has in a feature file."""
        return self.features(images)

    @torch.no_grad()
    def logits(self, images: Images, classnames: Sequence[str]) -> Tensor:
        """The learner's own logits (N, C), tau included, of images or of their tuned :meth:`features` (N, D)
        among any classes. CoCoOp's and ProDA's are not quite those of :meth:`text_features`: see there."""
        features = F.normalize(images.to(self.towers.device).float(), dim=-1) if _is_matrix(images) else None
        return self.class_logits(self.features(images) if features is None else features, self.prompts(classnames))

    @torch.no_grad()
    def classifier(self, classnames: Sequence[str]) -> nn.Module:
        """A module of preprocessed images that gives :meth:`logits` among these classes, the text side
        computed once: what :func:`pyfastcal.clip.wrap` takes."""
        return Classifier(self, self.encode_prompts(self.prompts(classnames)), normalize=False)

    def zeroshot_text_features(self, classnames: Sequence[str]) -> Tensor:
        """Text features (C, D), normalised, of the template: the model before tuning."""
        return encode_text(self.towers.model, self.tokenizer, classnames, self.template)

    def zeroshot_features(self, images: Images, **options: Any) -> Tensor:
        """Image features (N, D), normalised, of the model before tuning."""
        return encode_images(self.towers.model, images, **options)

    def _features(self, images: Images) -> Tensor:
        """Features of the frozen image tower: given ones, checked and normalised, or encoded ones."""
        if not _is_matrix(images):
            return self.zeroshot_features(images)
        checks.matrix("images", images, columns=self.towers.dim, like="the model's features", rows=True)
        checks.finite("images", images)
        return F.normalize(images.to(self.towers.device).float(), dim=-1)

    @property
    def clip(self) -> nn.Module:
        """The CLIP that is tuned."""
        return self.towers.model

    @property
    def logit_scale(self) -> float:
        """tau of the CLIP."""
        return self.towers.logit_scale

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.hyperparameters)

    def save(self, path: str | os.PathLike) -> None:
        """Write the learned parameters and the settings to a safetensors file."""
        files.save(self, path)

    @classmethod
    def load(
        cls: type[Learner], path: str | os.PathLike, clip: Any, tokenizer: Callable[..., Tensor] | None = None
    ) -> Learner:
        """Read what :meth:`save` wrote; ``clip`` must be the model that was tuned.

        ValueError, naming the file, where it is of another learner or does not fit the model."""
        return files.load(path, {cls.__name__: cls}, clip, tokenizer)


def _is_matrix(images: Any) -> bool:
    return isinstance(images, Tensor) and images.ndim == 2


def _take(inputs: Any, rows: Tensor) -> Any:
    """Rows of a tensor, or of each of several."""
    if isinstance(inputs, tuple):
        return tuple(_take(x, rows) for x in inputs)
    return inputs[rows.to(inputs.device)]
