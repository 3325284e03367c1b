"""What a small CLIP does before any tuning, as figures in per cent."""

from torch import Tensor

from pyfastcal.clip import SmallCLIP, encode_images, encode_text, tasks
from pyfastcal.metrics import expected_calibration_error

Figures = dict[str, float]


def figures(confidence: Tensor, prediction: Tensor, labels: Tensor) -> Figures:
    """Accuracy, mean confidence and ECE (10 bins), in per cent, to a tenth."""
    correct = prediction == labels
    ece = expected_calibration_error(confidence, correct)
    values = {"accuracy": correct.float().mean(), "confidence": confidence.mean(), "ece": ece}
    return {key: round(100 * float(value), 1) for key, value in values.items()}


def classified(images: Tensor, texts: Tensor, labels: Tensor, scale: float) -> Figures:
    """Figures of a CLIP's own confidences."""
    return figures(*(scale * images @ texts.T).softmax(1).max(1), labels)


def parts(task: tasks.Task) -> dict[str, tuple[list[str], tasks.Split]]:
    """The two tests, each among its own classes."""
    return {"base": (task.base_classes, task.base_test), "new": (task.new_classes, task.new_test)}


def zero_shot(clip: SmallCLIP, task: tasks.Task) -> dict[str, Figures]:
    """Figures of the base and the new classes before any tuning."""
    scale = clip.model.logit_scale.exp().item()
    found = {}
    for part, (classnames, split) in parts(task).items():
        texts = encode_text(clip.model, clip.tokenizer, classnames, task.template)
        found[part] = classified(encode_images(clip.model, split.images), texts, split.labels, scale)
    return found
