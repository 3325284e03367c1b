"""Pre-training data of the small CLIP "shapes": rendered scenes with captions."""

import random

import torch
from torch import Tensor

from pyfastcal.clip.tasks import world
from pyfastcal.clip.tasks.images import normalize
from scripts.clip.captions import FILLERS, filler_length, prefixed, words_of

NEUTRAL = ("a photo of a", "an image of a", "a picture of a")
STYLED = {
    "clean": (*NEUTRAL, "a clean photo of a"),
    "dark": ("a dark photo of a", "a photo at night of a", "a dim picture of a"),
    "blurry": ("a blurry photo of a", "a low resolution image of a", "a defocused picture of a"),
    "noisy": ("a noisy photo of a", "a grainy picture of a", "a grainy image of a"),
    "faded": ("a faded photo of a", "a hazy picture of a", "a washed out image of a"),
    "negative": ("a negative photo of a", "a photo negative of a", "an inverted image of a"),
}


class ShapeScenes:
    """Half of the scenes are clean, the others share the five other styles; half of the captions name the
    style."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = random.Random(seed)

    @property
    def words(self) -> list[str]:
        prefixes = [prefix for prefixes in STYLED.values() for prefix in prefixes]
        names = [*world.COLOUR_NAMES, *world.TEXTURE_NAMES, *world.SHAPE_NAMES, "object"]
        return sorted(words_of([*FILLERS, *prefixes, *names, ". , a an the of x type shape"]))

    def batch(self, size: int) -> tuple[Tensor, list[str]]:
        """Normalised images (size, 3, 32, 32) and their captions."""

        def some(names: tuple[str, ...]) -> Tensor:
            return torch.randint(0, len(names), (size,), generator=self.generator)

        shape, colour, texture = some(world.SHAPE_NAMES), some(world.COLOUR_NAMES), some(world.TEXTURE_NAMES)
        other = torch.randint(1, len(world.STYLE_NAMES), (size,), generator=self.generator)
        style = torch.where(torch.rand(size, generator=self.generator) < 0.5, 0, other)
        images = world.render(shape, colour, texture, style, self.generator)
        filler = filler_length(self.rng)
        scenes = zip(shape.tolist(), colour.tolist(), texture.tolist(), style.tolist(), strict=True)
        return normalize(images), [self._caption(*scene, filler) for scene in scenes]

    def _caption(self, shape: int, colour: int, texture: int, style: int, filler: int) -> str:
        named = self.rng.random() < 0.5
        prefix = self.rng.choice(STYLED[world.STYLE_NAMES[style]] if named else NEUTRAL)
        words = world.class_name(shape, colour, texture).split()
        kept = self.rng.random()
        if 0.70 <= kept < 0.78:
            words = [words[0], words[2]]
        elif 0.78 <= kept < 0.84:
            words = words[1:]
        elif 0.84 <= kept < 0.90:
            words = words[2:]
        elif kept >= 0.90:
            words = [*words[:2], "object"]
        return prefixed(self.rng, filler, prefix, " ".join(words))
