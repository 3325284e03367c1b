"""Images of the tasks as the models take them."""

from typing import NamedTuple

import torch
from torch import Tensor

# The mean and standard deviation of OpenAI's CLIP, which open_clip's preprocessing takes where nothing
# else is said: the small CLIPs keep to them, so that open_clip's own transform fits them too.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
IMAGE_SIZE = 32


class Split(NamedTuple):
    """Labelled images: ``images`` (N, 3, 32, 32) float32, normalised; ``labels`` (N,) int64, positions in
    the list of class names that the split belongs to."""

    images: Tensor
    labels: Tensor


def normalize(images: Tensor) -> Tensor:
    """Images (N, 1 or 3, H, W) in [0, 1] to normalised (N, 3, H, W)."""
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return (images - mean) / std


def pixels(images: Tensor) -> Tensor:
    """Normalised images (N, 3, H, W) as they are to be looked at: (N, H, W, 3) uint8."""
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return ((images * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
