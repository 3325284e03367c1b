"""Real images: scikit-learn's handwritten digits, five of the ten to tune on and five new.

They are the 1797 test images of UCI's "Optical Recognition of Handwritten Digits", 8 x 8, by 13 writers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...arguments import checks
from ...installation.extras import require
from .images import IMAGE_SIZE, Split, normalize
from .task import Task

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASS_NAMES = tuple(f"digit {number}" for number in NUMBERS)
TEMPLATE = "a photo of the {}."


def show(ink: Tensor) -> Tensor:
    """Amounts of ink (N, 1, S, S) in [0, 1] to images (N, 1, 32, 32) in [0, 1], with a margin of S/8."""
    margin = max(1, ink.shape[-1] // 8)
    ink = F.pad(ink, (margin,) * 4)
    return F.interpolate(ink, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=False).clamp(0, 1)


def make(seed: int = 0, shots: int = 16) -> Task:
    """Five of the ten digits are base classes, by ``seed``; ``shots`` (at most 64) images of each are for
    training, as many for validation, the rest (about 147 of each) for the test; the other five digits are
    all test.

    ImportError that says what to install where scikit-learn is missing.
    """
    checks.integer("seed", seed, 0)
    checks.integer("shots", shots, 1, 64, "the classes have 174 to 183 images")
    data = require("sklearn.datasets", "demo").load_digits()
    images = normalize(show(torch.from_numpy(data.images).float()[:, None] / 16)).expand(-1, 3, -1, -1)
    digit = torch.from_numpy(data.target)

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(digit), generator=generator)
    classes = torch.randperm(10, generator=generator).tolist()
    base, new = classes[:5], classes[5:]

    def split(digits: list[int], start: int, stop: int | None) -> Split:
        rows = [order[digit[order] == d][start:stop] for d in digits]
        labels = torch.arange(len(digits)).repeat_interleave(torch.tensor([len(r) for r in rows]))
        return Split(images[torch.cat(rows)], labels)

    return Task(
        name="digits",
        template=TEMPLATE,
        base_classes=[CLASS_NAMES[d] for d in base],
        new_classes=[CLASS_NAMES[d] for d in new],
        train=split(base, 0, shots),
        validation=split(base, shots, 2 * shots),
        base_test=split(base, 2 * shots, None),
        new_test=split(new, 0, None),
    )
