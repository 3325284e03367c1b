"""Prompt learners: the tuned models whose confidences pyfastcal calibrates.

:class:`PromptLearner` is what they share: prompts for any list of classes, the training loop, saving. A
learner says which parameters it has, how prompts become text features, and what its loss is."""

import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import checks
from ..io import atomic_write
from .features import check_classnames, check_template, encode_images, encode_text
from .towers import Towers

Progress = Callable[[int, int], None]  # epochs done, epochs in all
Learner = TypeVar("Learner", bound="PromptLearner")


class Prompts(NamedTuple):
    """The prompts of C classes, room for the context left behind the start token."""

    embeddings: Tensor  # (C, L, width) token embeddings, zeros where the context goes
    ends: Tensor  # (C,) int64, where each prompt ends


class PromptLearner(nn.Module):
    """Base of the learners: tunes a few prompt vectors of a CLIP that stays as it is.

    ``clip``: an OpenAI-style open_clip model, or a :class:`~pyfastcal.clip.small.SmallCLIP`, then
    ``tokenizer`` may be left out; ``tokenizer``: texts -> ids; ``template``: the zero-shot prompt;
    ``n_context``: number of context tokens; ``epochs``, ``batch_size``, ``lr``: of SGD with momentum 0.9 and
    weight decay 5e-4, the rate falling by half a cosine after one epoch of warm-up at 1e-5. What is None
    has the learner's published value. ValueError for a model that cannot take prompts.

    A subclass sets the published values, registers its parameters in :meth:`setup`, and says in
    :meth:`encode_prompts` how prompts become text features and in :meth:`loss` what is minimised. One that
    tunes the image tower too overrides :meth:`image_features` and :meth:`inputs`, one that mends its
    gradients :meth:`gradients`.

    Deterministic: a seed fixes the start and the order of the images, whatever torch's global generator
    holds.
    """

    n_context, epochs, batch_size, lr = 16, 200, 32, 2e-3
    momentum, weight_decay, warm_up_lr = 0.9, 5e-4, 1e-5

    def __init__(
        self,
        clip: Any,
        tokenizer: Callable[..., Tensor] | None = None,
        template: str = "a photo of a {}.",
        *,
        n_context: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
    ) -> None:
        super().__init__()
        tokenizer = tokenizer or getattr(clip, "tokenizer", None)
        if tokenizer is None:
            raise ValueError("tokenizer must be given where clip is not a SmallCLIP, got None")
        self.towers, self.tokenizer = Towers(getattr(clip, "model", clip)), tokenizer
        self.template = check_template("template", template)
        given = {"n_context": n_context, "epochs": epochs, "batch_size": batch_size}
        for name, value in given.items():
            setattr(self, name, checks.integer(name, getattr(self, name) if value is None else value, 1))
        self.lr = checks.number("lr", self.lr if lr is None else lr, low=0.0, strict=True)
        self.setup(torch.Generator().manual_seed(0))
        self.to(self.towers.device)

    # What a learner is made of.

    def setup(self, generator: torch.Generator) -> None:
        """Register the parameters, their start drawn from ``generator``; every :meth:`fit` calls it anew."""
        raise NotImplementedError

    def encode_prompts(self, prompts: Prompts) -> Tensor:
        """Normalised text features (C, D), differentiable in the parameters."""
        raise NotImplementedError

    def loss(self, inputs: Tensor, labels: Tensor, prompts: Prompts) -> Tensor:
        """The loss of one batch: rows of :meth:`inputs`, labels (N,), prompts of the classes."""
        raise NotImplementedError

    def inputs(self, images: Tensor) -> Tensor:
        """What the loss sees of the training images: their features (N, D), computed once."""
        return self.image_features(images)

    def gradients(self, inputs: Tensor, labels: Tensor, prompts: Prompts) -> tuple[float, Sequence[Tensor]]:
        """The loss of one batch, and its gradients in the order of :meth:`trained`."""
        with torch.enable_grad():
            loss = self.loss(inputs, labels, prompts)
        return loss.item(), torch.autograd.grad(loss, self.trained())

    # What all of them share.

    def fit(
        self: Learner,
        images: Tensor,
        labels: Tensor,
        classnames: Sequence[str],
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Learner:
        """Tune on ``images`` (N, 3, H, W), preprocessed, with ``labels`` (N,) in [0, C) of the C
        ``classnames``.

        ``progress(done, total)`` is called after every epoch; the epochs' mean losses are kept in
        ``losses``. The images are not augmented, so that their features are computed once and an epoch costs
        milliseconds (the published code crops and flips them).
        """
        checks.not_empty("images", checks.floating("images", images, 4))
        prompts, device = self.prompts(classnames), self.towers.device
        checks.labels("labels", labels, len(images), len(classnames), "image")
        generator = torch.Generator().manual_seed(seed)
        self.setup(generator)
        self.to(device)
        inputs, labels = self.inputs(images), labels.to(device)
        optimizer = torch.optim.SGD(self.trained(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        self.losses: list[float] = []
        for epoch in range(self.epochs):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(epoch)
            total = 0.0
            for rows in torch.randperm(len(labels), generator=generator).to(device).split(self.batch_size):
                loss, gradients = self.gradients(inputs[rows], labels[rows], prompts)
                for parameter, gradient in zip(self.trained(), gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                total += loss * len(rows)
            self.losses.append(total / len(labels))
            if progress is not None:
                progress(epoch + 1, self.epochs)
        return self

    def trained(self) -> list[nn.Parameter]:
        """The parameters that :meth:`fit` trains."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def learning_rate(self, epoch: int) -> float:
        """Half a cosine over all epochs; the first, at a constant small rate, is warm-up."""
        if epoch == 0:
            return self.warm_up_lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))

    @torch.no_grad()
    def prompts(self, classnames: Sequence[str]) -> Prompts:
        """``[start] [room for the context] name . [end]`` for every class.

        ValueError for no names, and for a name that does not fit behind the context.
        """
        names = check_classnames(classnames)
        ids = self.tokenizer([f"{name}." for name in names]).to(self.towers.device)
        ends, length, shift = self.towers.end_positions(ids), self.towers.context_length, self.n_context
        longest = int(ends.argmax())
        # A tokenizer that cuts long texts fills the whole row, and then this finds it too long.
        if int(ends[longest]) + shift >= length:
            raise ValueError(
                f"classnames: {names[longest]!r} has {int(ends[longest]) - 1} tokens or more, too many "
                f"for the model's {length} with start, end and {shift} context tokens"
            )
        embeddings = self.towers.embed(ids[:, : length - shift])
        room = embeddings.new_zeros(len(names), shift, embeddings.shape[2])
        return Prompts(torch.cat([embeddings[:, :1], room, embeddings[:, 1:]], dim=1), ends + shift)

    def insert(self, prompts: Prompts, context: Tensor) -> Tensor:
        """Token embeddings (C, L, width) of the prompts with ``context`` (n_context, width) in its room."""
        start, rest = prompts.embeddings[:, :1], prompts.embeddings[:, 1 + self.n_context :]
        return torch.cat([start, context.to(start.dtype).expand(len(start), -1, -1), rest], dim=1)

    @torch.no_grad()
    def text_features(self, classnames: Sequence[str]) -> Tensor:
        """Tuned text features (C, D), normalised, of any classes, also ones that it was not tuned on."""
        return self.encode_prompts(self.prompts(classnames))

    def zeroshot_text_features(self, classnames: Sequence[str]) -> Tensor:
        """Text features (C, D), normalised, of the template: the model before tuning."""
        return encode_text(self.towers.model, self.tokenizer, classnames, self.template)

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Image features (N, D), normalised, of preprocessed images (N, 3, H, W)."""
        return encode_images(self.towers.model, images)

    @property
    def logit_scale(self) -> float:
        """tau of the CLIP."""
        return self.towers.logit_scale

    def extra_repr(self) -> str:
        return f"n_context={self.n_context}, epochs={self.epochs}, batch_size={self.batch_size}, lr={self.lr}"

    def save(self, path: str | os.PathLike) -> None:
        """Write the learned parameters and the settings to a safetensors file."""
        settings = {"learner": type(self).__name__, "template": self.template, "n_context": self.n_context}
        tensors = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        atomic_write(path, lambda name: save_file(tensors, name, metadata={"pyfastcal": json.dumps(settings)}))

    @classmethod
    def load(
        cls: type[Learner], path: str | os.PathLike, clip: Any, tokenizer: Callable[..., Tensor] | None = None
    ) -> Learner:
        """Read what :meth:`save` wrote; ``clip`` must be the model that was tuned.

        ValueError, naming the file, where it is of another learner or does not fit the model."""
        try:
            with safe_open(path, framework="pt") as file:
                settings = json.loads((file.metadata() or {})["pyfastcal"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except Exception as error:
            raise ValueError(f"{os.fspath(path)}: not a file of {cls.__name__}.save ({error})") from error
        if settings["learner"] != cls.__name__:
            raise ValueError(f"{os.fspath(path)}: holds a {settings['learner']}, not a {cls.__name__}")
        learner = cls(clip, tokenizer, settings["template"], n_context=settings["n_context"])
        try:
            learner.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"{os.fspath(path)}: does not fit the model: {' '.join(str(error).split())}") from error
        return learner


class CoOp(PromptLearner):
    """Context Optimization (Zhou, Yang, Loy, Liu: "Learning to Prompt for Vision-Language Models", IJCV
    2022, arXiv 2109.01134), unified context, class name at the end, random start.

    Defaults as published for 16 shots: 16 context tokens drawn from N(0, 0.02), 200 epochs, batches of
    32, SGD at 0.002. One departure: image features are computed once, of images as they are (see
    :meth:`PromptLearner.fit`)."""

    def setup(self, generator: torch.Generator) -> None:
        start = 0.02 * torch.randn(self.n_context, self.towers.width, generator=generator)
        self.context = nn.Parameter(start)

    def encode_prompts(self, prompts: Prompts) -> Tensor:
        return self.towers.encode_text(self.insert(prompts, self.context), prompts.ends)

    def loss(self, inputs: Tensor, labels: Tensor, prompts: Prompts) -> Tensor:
        """Cross-entropy over the classes that are tuned on."""
        logits = self.logit_scale * inputs @ self.encode_prompts(prompts).T
        return F.cross_entropy(logits, labels)
