"""Pre-training data of the small CLIP "digits": glyphs of computer fonts, warped as hands warp them, with
captions.

No handwritten image is used. What is taken from the target's description (UCI "Optical Recognition of
Handwritten Digits") is how its images were made: bitmaps scaled to fill their box, reduced to 8 x 8
counts of ink."""

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyfastcal.clip.tasks import digits
from pyfastcal.clip.tasks.images import IMAGE_SIZE, normalize
from scripts.clip.captions import FILLERS, filler_length, prefixed, words_of

FONTS = (  # all of them come with matplotlib
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmss10", "cmtt10", "cmb10"),
)
STROKES = (0, 1, 2, 3)  # widening of the glyphs' outlines, pixels of 64
PREFIXES = (
    "a photo of the",
    "a picture of the",
    "an image of the",
    "a scan of the",
    "a blurry photo of the",
    "a dark picture of the",
    "a noisy image of the",
    "a low resolution image of the",
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CANVAS = 64


class Glyphs:
    """Half of the glyphs are digits, half capital letters, which give the text tower more to tell apart."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = random.Random(seed)
        self.names = [*digits.CLASS_NAMES, *(f"letter {letter}" for letter in LETTERS)]
        self.bank = _draw("0123456789" + LETTERS.upper())

    @property
    def words(self) -> list[str]:
        return sorted(words_of([*FILLERS, *PREFIXES, *self.names, ". , a an the of x type"]))

    def batch(self, size: int) -> tuple[Tensor, list[str]]:
        """Normalised images (size, 3, 32, 32) and their captions; images of one symbol share a caption."""
        digit = torch.rand(size, generator=self.generator) < 0.5
        symbol = torch.where(digit, self._integers(0, 10, size), self._integers(10, len(self.names), size))
        glyphs = self.bank[symbol, self._integers(0, self.bank.shape[1], size)][:, None]
        images = normalize(self._scan(_fill_box(self._warp(glyphs), self._uniform(0.75, 1.3, size))))
        filler = filler_length(self.rng)
        captions = {
            i: prefixed(self.rng, filler, self.rng.choice(PREFIXES), self.names[i]) for i in set(symbol.tolist())
        }
        return images.expand(-1, 3, -1, -1), [captions[i] for i in symbol.tolist()]

    def _warp(self, glyphs: Tensor) -> Tensor:
        """A random affine map and a smooth random field of displacements."""
        n = len(glyphs)
        angle, shear = self._uniform(-0.25, 0.25, n), self._uniform(-0.3, 0.3, n)
        affine = torch.zeros(n, 2, 3)
        affine[:, 0, 0], affine[:, 0, 1] = angle.cos(), -angle.sin() + shear
        affine[:, 1, 0], affine[:, 1, 1] = angle.sin(), angle.cos()
        field = 0.09 * torch.randn(n, 2, 4, 4, generator=self.generator)
        field = F.interpolate(field, CANVAS, mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
        grid = F.affine_grid(1.15 * affine, list(glyphs.shape), align_corners=False) + field
        return F.grid_sample(glyphs, grid, align_corners=False)

    def _scan(self, ink: Tensor) -> Tensor:
        """Reduce to the resolution of a scan (8 x 8 for half of the batch), then show as the task shows
        its own."""
        n = len(ink)
        out = torch.empty(n, 1, IMAGE_SIZE, IMAGE_SIZE)
        resolution = torch.tensor([8, 8, 12, 16])[self._integers(0, 4, n)]
        for side in resolution.unique().tolist():
            rows = resolution == side
            out[rows] = digits.show(F.adaptive_avg_pool2d(ink[rows], side))
        contrast, noise = self._uniform(0.8, 1.1, n, 1, 1, 1), self._uniform(0.0, 0.1, n, 1, 1, 1)
        return (out * contrast + noise * torch.randn(out.shape, generator=self.generator)).clamp(0, 1)

    def _uniform(self, low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=self.generator)

    def _integers(self, low: int, high: int, size: int) -> Tensor:
        return torch.randint(low, high, (size,), generator=self.generator)


def _fill_box(ink: Tensor, stretch: Tensor) -> Tensor:
    """Scale each glyph (N, 1, H, W) to fill the canvas, its height or its width, whichever comes first."""
    n, _, height, width = ink.shape
    rows, columns = ink.amax(3)[:, 0] > 0.3, ink.amax(2)[:, 0] > 0.3
    top, bottom = _extent(rows)
    left, right = _extent(columns)
    half_height = ((bottom - top) / height).clamp(min=0.1)
    half_width = ((right - left) / width).clamp(min=0.1)
    zoom_x = torch.maximum(half_width, half_height / stretch)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = zoom_x, (left + right) / width - 1
    theta[:, 1, 1], theta[:, 1, 2] = torch.maximum(half_height, half_width / 2), (top + bottom) / height - 1
    return F.grid_sample(ink, F.affine_grid(theta, list(ink.shape), align_corners=False), align_corners=False)


def _extent(inked: Tensor) -> tuple[Tensor, Tensor]:
    """First inked line and one past the last of (N, L) booleans, as floats."""
    size = inked.shape[1]
    first = inked.int().argmax(1)
    last = size - inked.flip(1).int().argmax(1)
    return first.float(), last.float()


def _draw(symbols: str) -> Tensor:
    """White glyphs on black (symbols, fonts x stroke widths, 64, 64) in [0, 1]."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    fonts = [ImageFont.truetype(str(folder / f"{name}.ttf"), 40) for name in FONTS]

    def glyph(symbol: str, font: object, stroke: int, barred: bool) -> np.ndarray:
        image = Image.new("L", (CANVAS, CANVAS), 0)
        draw, middle = ImageDraw.Draw(image), CANVAS // 2
        draw.text((middle, middle), symbol, fill=255, font=font, anchor="mm", stroke_width=stroke)
        if barred and symbol == "7":  # as many hands write it and no font has it
            draw.line((middle - 11, middle + 1, middle + 11, middle + 1), fill=255, width=3 + 2 * stroke)
        return np.asarray(image)

    variants = [(font, stroke, i % 2 == 1) for i, font in enumerate(fonts) for stroke in STROKES]
    bank = [[glyph(symbol, *variant) for variant in variants] for symbol in symbols]
    return torch.from_numpy(np.array(bank)).float() / 255
