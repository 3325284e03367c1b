"""Drop-in modules: a CLIP with fixed classes, and any model with calibrated logits."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import checks, ranges
from ..calibration.logit_scaling import LogitScaling
from .adapters import adapt


class Classifier(nn.Module):
    """Images (N, 3, H, W), preprocessed, to logits (N, C): a model's image tower against fixed text features.

    ``model``: as for :func:`pyfastcal.clip.encode_images`, with a logit scale; ``text_features``: (C, D),
    of a template or of tuned prompts, kept as a buffer. Differentiable, but for tau; runs in the mode it is in.
    ValueError for a model that is none."""

    def __init__(self, model: Any, text_features: Tensor, *, normalize: bool = True) -> None:
        super().__init__()
        self.adapter = adapt(model)
        self.adapter.scale()  # finds out whether there is one
        parts = {"model": self.adapter.model, "host": self.adapter.host}
        for name, part in parts.items():  # registered, so that .to(device) and .eval() reach them
            if isinstance(part, nn.Module) and (name == "model" or part is not self.adapter.model):
                self.add_module(name, part)
        checks.finite("text_features", checks.matrix("text_features", text_features, rows=True))
        texts = F.normalize(text_features.float(), dim=-1) if normalize else text_features.float()
        self.register_buffer("text_features", texts.detach().to(self.adapter.device))

    @property
    def clip(self) -> nn.Module | None:
        """The module with the logit scale: the model, or the CLIP that a learner tunes."""
        return self.adapter.host

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32."""
        features = F.normalize(self.adapter.image(self.adapter.place(images)).float(), dim=-1)
        logits, bias = self.adapter.scale() * features @ self.text_features.T, self.adapter.bias()
        return logits if bias is None else logits + bias


def wrap(
    model: nn.Module,
    calibrator: LogitScaling,
    *,
    zeroshot: nn.Module | None = None,
    logit_scale: float | None = None,
) -> "Calibrated":
    """The same forward as ``model``, with logits that ``calibrator`` has scaled: see :class:`Calibrated`.

    Args:
        model: transformers' CLIPModel or SiglipModel, OpenAI's or open_clip's CLIP, a :class:`Classifier`, or
            any module that gives logits (N, C): alone, first in a tuple, or under "logits" in a mapping.
        calibrator: fitted, for the classes that the model will be asked about, in their order.
        zeroshot: for CAC, the model before tuning; it is called with the same arguments.
        logit_scale: for CAC, tau of the model, where it has no ``logit_scale`` of its own.

    Raises:
        ValueError: ``calibrator`` does not scale logits, or needs what is not there.
    """
    if not isinstance(calibrator, LogitScaling):
        raise ValueError(f"calibrator must be one that scales logits, such as DAC, got {checks.describe(calibrator)}")
    if not callable(model):
        raise ValueError(f"model must be a module, got {checks.describe(model)}")
    if zeroshot is None and calibrator.contrasts:
        raise ValueError("zeroshot must be given for ContrastAwareCalibration: the model before tuning, got None")
    if zeroshot is not None and not calibrator.contrasts:
        raise ValueError(f"zeroshot must be None for {type(calibrator).__name__}, got {checks.describe(zeroshot)}")
    if zeroshot is not None:
        logit_scale = None if logit_scale is None else ranges.factor("logit_scale", logit_scale)
        if logit_scale is None:
            adapt(model).scale()  # says what is missing
    return Calibrated(model, calibrator, zeroshot, logit_scale)


class Calibrated(nn.Module):
    """What :func:`wrap` gives: a model whose logits are calibrated, and which is called as before.

    What comes out is what came out of the model but for the logits, and no row's argmax moves:

    - logits (N, C), alone or first in a tuple, or ``logits_per_image`` or ``logits`` of an output with
      names: scaled row by row. ``logits_per_text``, for the search of an image for a text, stays as it is.
    - features and a scale, as from open_clip's ``forward``: the scale becomes one per image, (N, 1), the bias
      too if there is one, so that ``logit_scale * image_features @ text_features.T`` gives the
      calibrated logits. :meth:`get_logits` gives them as open_clip's does.
    """

    def __init__(
        self,
        model: nn.Module,
        calibrator: LogitScaling,
        zeroshot: nn.Module | None = None,
        logit_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.model, self.calibrator, self.zeroshot, self.logit_scale = model, calibrator, zeroshot, logit_scale

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the model for these arguments, its logits calibrated."""
        output, inputs = self.model(*args, **kwargs), ()
        if self.zeroshot is not None:
            inputs = self._contrast(_logits(self.zeroshot(*args, **kwargs), "zeroshot"))
        features = _features(output)
        if features is not None:
            return _with_factor(output, features, self.calibrator.factor(features.logits(), *inputs))
        return _with_logits(output, self.calibrator(_logits(output, "model"), *inputs))

    def get_logits(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """As open_clip's: logits of the images (N, C), calibrated, and of the texts (C, N), as they are."""
        images, texts = self.model.get_logits(image, text)
        inputs = () if self.zeroshot is None else self._contrast(self.zeroshot.get_logits(image, text)[0])
        return self.calibrator(images, *inputs), texts

    def _contrast(self, zeroshot_logits: Tensor) -> tuple[Tensor, Tensor | float]:
        return zeroshot_logits, adapt(self.model).scale() if self.logit_scale is None else self.logit_scale


class _Features(NamedTuple):
    """What open_clip's forward gives, as a tuple or a dictionary."""

    image_features: Tensor  # (N, D)
    text_features: Tensor  # (C, D)
    logit_scale: Tensor  # one value
    logit_bias: Tensor | None = None  # one value

    def logits(self) -> Tensor:
        logits = self.logit_scale * self.image_features @ self.text_features.T
        return logits if self.logit_bias is None else logits + self.logit_bias


def _features(output: Any) -> _Features | None:
    """The features in an output of open_clip's form; None where it is of another."""
    if isinstance(output, Mapping):
        if not all(key in output for key in _Features._fields[:3]):
            return None
        return _Features(*(output.get(key) for key in _Features._fields))
    if not isinstance(output, tuple) or len(output) not in (3, 4):
        return None
    images, texts, *rest = output
    if not all(isinstance(x, Tensor) for x in output) or any(x.numel() != 1 for x in rest):
        return None
    return _Features(*output) if images.ndim == texts.ndim == 2 and images.shape[1] == texts.shape[1] else None


def _with_factor(output: Any, features: _Features, factor: Tensor) -> Any:
    """The output with scale and bias times ``factor`` (N,), each (N, 1)."""
    column = factor[:, None].to(features.logit_scale.dtype)
    scaled = {"logit_scale": column * features.logit_scale}
    if features.logit_bias is not None:
        scaled["logit_bias"] = column * features.logit_bias
    if isinstance(output, Mapping):
        return {**output, **scaled}
    return (*output[:2], *scaled.values())


def _key(output: Mapping) -> str | None:
    return next((key for key in ("logits_per_image", "logits") if key in output), None)


def _logits(output: Any, name: str) -> Tensor:
    """The logits (N, C) in an output."""
    if (features := _features(output)) is not None:
        return features.logits()
    if isinstance(output, Mapping):
        found = None if _key(output) is None else output[_key(output)]
    else:
        found = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(found, Tensor):
        got = f"a mapping of {', '.join(output)}" if isinstance(output, Mapping) else checks.describe(output)
        raise ValueError(f"{name} must give logits (N, C), alone, first in a tuple, or under 'logits', got {got}")
    return found


def _with_logits(output: Any, logits: Tensor) -> Any:
    """The output with other logits."""
    if isinstance(output, Mapping):
        values = {**output, _key(output): logits}
        return type(output)(**values) if hasattr(output, "to_tuple") else values  # transformers' outputs
    return logits if isinstance(output, Tensor) else type(output)((logits, *output[1:]))
