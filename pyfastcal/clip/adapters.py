"""How features come out of models of other makes: open_clip's, transformers', functions of one's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checks
from .towers import image_dtype


class Adapter:
    """open_clip's models and all that are called like them, prompt learners too: ``encode_image``,
    ``encode_text``, ``logit_scale``. The base of the adapters.

    ``host``: the module that says where the work is done and goes into evaluation mode meanwhile: the
    model, or the CLIP that a learner tunes; None for a function that is no module."""

    def __init__(self, model: Any) -> None:
        self.model = model
        host = getattr(model, "clip", model)
        self.host: nn.Module | None = host if isinstance(host, nn.Module) else None

    @property
    def device(self) -> torch.device:
        """Where the model's first parameter is."""
        parameter = None if self.host is None else next(self.host.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def place(self, images: Tensor) -> Tensor:
        """A batch of images on the model's device, in the dtype of its image tower."""
        return images.to(self.device, image_dtype(self.host or nn.Identity()), non_blocking=True)

    def image(self, images: Tensor) -> Tensor:
        """Features (N, D) of a placed batch."""
        return self.model.encode_image(images)

    def text(self, tokens: Any) -> Tensor:
        """Features (N, D) of what :meth:`tokens` gave."""
        if not hasattr(self.model, "encode_text"):
            raise ValueError(f"model must have encode_text, got a {type(self.model).__name__}")
        return self.model.encode_text(tokens)

    def tokens(self, tokenizer: Callable[..., Any] | None, texts: Sequence[str]) -> Any:
        """The texts as the model takes them, on its device."""
        if tokenizer is None:
            raise ValueError("tokenizer must be given, got None")
        return tokenizer(list(texts)).to(self.device)

    def scale(self) -> Tensor:
        """tau, a tensor of one value, and of its own precision: float32 at least."""
        scale = getattr(self.host, "logit_scale", None)
        if not isinstance(scale, Tensor):
            raise ValueError(f"model must have logit_scale, got a {type(self.model).__name__}")
        return scale.detach().float().exp()

    def bias(self) -> Tensor | None:
        """What is added to every logit (SigLIP), or None."""
        bias = getattr(self.host, "logit_bias", None)
        return bias.detach().float() if isinstance(bias, Tensor) else None


class Transformers(Adapter):
    """transformers' CLIPModel, SiglipModel and their kin: ``get_image_features``, ``get_text_features``.

    Its tokenizers, and processors with one, pad to the length of the text tower, which is what SigLIP was
    trained on and CLIP does not see; texts that are too long are cut, as open_clip does."""

    def place(self, images: Tensor) -> Tensor:
        return images.to(self.device, self.model.dtype, non_blocking=True)

    def image(self, images: Tensor) -> Tensor:
        return _pooled(self.model.get_image_features(pixel_values=images))

    def text(self, tokens: Any) -> Tensor:
        inputs = dict(tokens) if isinstance(tokens, Mapping) else {"input_ids": tokens}
        return _pooled(self.model.get_text_features(**inputs))

    def tokens(self, tokenizer: Callable[..., Any] | None, texts: Sequence[str]) -> Any:
        if not _from_transformers(tokenizer):
            return super().tokens(tokenizer, texts)
        config = getattr(self.model.config, "text_config", self.model.config)
        length = {"padding": "max_length", "truncation": True, "max_length": config.max_position_embeddings}
        return tokenizer(text=list(texts), return_tensors="pt", **length).to(self.device)  # type: ignore[misc]


class Function(Adapter):
    """Any other callable: of images, and of whatever the tokenizer gives, or of texts without one. What is a
    module keeps its device and dtype, what is none gets images as they come."""

    def place(self, images: Tensor) -> Tensor:
        return images if self.host is None else super().place(images)

    def image(self, images: Tensor) -> Tensor:
        try:
            features = _pooled(self.model(images))
        except (RuntimeError, TypeError) as error:
            kind = f"a {type(self.model).__name__} that cannot take images"
            raise ValueError(f"model must {_WANTED}, got {kind} ({' '.join(str(error).split())})") from error
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            got = f"{checks.describe(features)} for {len(images)} images"
            raise ValueError(f"model must {_WANTED}, got {got}")
        return features

    def text(self, tokens: Any) -> Tensor:
        return _pooled(self.model(tokens))

    def tokens(self, tokenizer: Callable[..., Any] | None, texts: Sequence[str]) -> Any:
        return list(texts) if tokenizer is None else super().tokens(tokenizer, texts)


_WANTED = (
    "have encode_image, as open_clip's have, or get_image_features, as transformers' have, or be a function "
    "that gives features (N, D) of N images"
)


def adapt(model: Any) -> Adapter:
    """The adapter of a model. ValueError for what is none."""
    if hasattr(model, "get_image_features"):
        return Transformers(model)
    if hasattr(model, "encode_image"):
        return Adapter(model)
    if not callable(model):
        raise ValueError(f"model must {_WANTED}, got {checks.describe(model)}")
    return Function(model)


def scale_and_bias(model: Any) -> tuple[float, float | None]:
    """tau and the logit bias (None but for SigLIP's kin) of a model: what makes logits of its cosine
    similarities. ValueError for a model without ``logit_scale``."""
    adapter = adapt(model)
    bias = adapter.bias()
    return float(adapter.scale()), None if bias is None else float(bias)


@contextmanager
def evaluating(module: nn.Module | None) -> Iterator[None]:
    """Evaluation mode, and back to what every part of the module was."""
    training = [] if module is None else [part for part in module.modules() if part.training]
    if module is not None:
        module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def image_transform(preprocess: Callable[..., Any]) -> Callable[[Any], Tensor]:
    """A function of one image: ``preprocess`` itself, or one that calls it as transformers' image processors
    want to be called."""
    if not _from_transformers(preprocess):
        return preprocess
    return lambda image: preprocess(images=image, return_tensors="pt")["pixel_values"][0]


def _from_transformers(x: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "transformers" for kind in type(x).__mro__)


def _pooled(output: Any) -> Any:
    """The features in what a transformers model gives: since its version 5 an output with pooler_output."""
    for name in ("image_embeds", "text_embeds", "pooler_output"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    return output
