"""A small world of rendered images: one object of a colour, a texture and a shape, on a gradient, in a style.

Everything is vectorised over the batch; a scene is four integers (shape, colour, texture, style), all
else about it (place, size, rotation, background, a smaller distractor behind it, light, noise) is drawn
from the generator."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .images import IMAGE_SIZE

COLOURS = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.95, 0.50, 0.10),
    "yellow": (0.93, 0.87, 0.15),
    "green": (0.15, 0.65, 0.20),
    "cyan": (0.15, 0.80, 0.82),
    "blue": (0.15, 0.25, 0.85),
    "purple": (0.55, 0.15, 0.70),
    "pink": (0.97, 0.55, 0.72),
    "brown": (0.50, 0.30, 0.12),
    "white": (0.96, 0.96, 0.96),
    "black": (0.06, 0.06, 0.06),
    "gray": (0.50, 0.50, 0.50),
}
COLOUR_NAMES = tuple(COLOURS)
TEXTURE_NAMES = ("plain", "striped", "dotted", "checked", "hollow")
STYLE_NAMES = ("clean", "dark", "blurry", "noisy", "faded", "negative")
SENSOR_NOISE = 0.05  # standard deviation, of intensities in [0, 1]
STRONG_NOISE = 0.20  # that of the style "noisy"


def _polygon(x: Tensor, y: Tensor, corners: int) -> Tensor:
    """Regular polygon of circumradius 1."""
    angle, sector = torch.atan2(x, y), 2 * math.pi / corners
    folded = torch.remainder(angle + sector / 2, sector) - sector / 2
    return (x * x + y * y).sqrt() * folded.cos() / math.cos(math.pi / corners)


def _star(x: Tensor, y: Tensor) -> Tensor:
    angle, sector = torch.atan2(x, y), 2 * math.pi / 5
    folded = torch.remainder(angle + sector / 2, sector) - sector / 2
    return (x * x + y * y).sqrt() / (1 - 0.55 * (folded.abs() / (sector / 2)).pow(0.8))


def _box(x: Tensor, y: Tensor, width: float, height: float) -> Tensor:
    return torch.maximum(x.abs() / width, y.abs() / height)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    x, y = 1.25 * x, 1.2 * y + 0.15
    return 1 + 3 * ((x * x + y * y - 0.6) ** 3 - 1.2 * x * x * y**3)


# Implicit functions of points (x right, y up) in [-1, 1]: inside where the value is at most 1.
SHAPES = {
    "circle": lambda x, y: (x * x + y * y).sqrt() / 0.85,
    "square": lambda x, y: _box(x, y, 0.75, 0.75),
    "triangle": lambda x, y: _polygon(x, y, 3),
    "diamond": lambda x, y: x.abs() / 0.65 + y.abs(),
    "pentagon": lambda x, y: _polygon(x, y, 5) / 0.92,
    "hexagon": lambda x, y: _polygon(x, y, 6) / 0.9,
    "star": _star,
    "cross": lambda x, y: torch.minimum(_box(x, y, 0.9, 0.32), _box(x, y, 0.32, 0.9)),
    "ring": lambda x, y: 0.76 + ((x * x + y * y).sqrt() - 0.65).abs(),
    "crescent": lambda x, y: torch.maximum((x * x + y * y).sqrt() / 0.9, 1.78 - ((x - 0.4) ** 2 + y * y).sqrt()),
    "heart": _heart,
    "bar": lambda x, y: _box(x, y, 0.95, 0.35),
}
SHAPE_NAMES = tuple(SHAPES)


def class_name(shape: int, colour: int, texture: int) -> str:
    """``"red striped circle"``"""
    return f"{COLOUR_NAMES[colour]} {TEXTURE_NAMES[texture]} {SHAPE_NAMES[shape]}"


def render(shape: Tensor, colour: Tensor, texture: Tensor, style: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, 3, 32, 32) in [0, 1] of N scenes, each argument (N,) int64."""
    n = len(shape)

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *size, generator=generator)

    def some(names: tuple[str, ...]) -> Tensor:
        return torch.randint(0, len(names), (n,), generator=generator)

    gy, gx = _grid()
    start, end = uniform(0.1, 0.9, 3, 1, 1), uniform(0.1, 0.9, 3, 1, 1)
    angle = uniform(0, 2 * math.pi, 1, 1, 1)
    images = torch.lerp(start, end, (gx * angle.cos() + gy * angle.sin() + 1.4) / 2.8)

    cluttered, angle = torch.rand(n, generator=generator) < 0.5, uniform(0, 2 * math.pi)
    place = 0.75 * angle.cos(), 0.75 * angle.sin(), uniform(0.18, 0.35), uniform(0, 2 * math.pi)
    distractor = some(SHAPE_NAMES), some(COLOUR_NAMES), some(TEXTURE_NAMES)
    images = torch.where(_per_image(cluttered), _paint(images, *distractor, *place, generator), images)

    size = uniform(0.42, 0.80)
    reach = 0.6 * (1 - size)
    place = reach * uniform(-1, 1), reach * uniform(-1, 1), size, uniform(-0.45, 0.45)
    images = _paint(images, shape, colour, texture, *place, generator)

    images = images * uniform(0.75, 1.15, 1, 1, 1) * uniform(0.88, 1.12, 3, 1, 1)  # light, and its colour
    return _stylise(images, style, generator).clamp(0, 1)


def _stylise(images: Tensor, style: Tensor, generator: torch.Generator) -> Tensor:
    def where(name: str) -> Tensor:
        return _per_image(style == STYLE_NAMES.index(name))

    blurred = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, 1)
    images = torch.where(where("dark"), 0.45 * images, images)
    images = torch.where(where("blurry"), blurred, images)
    images = torch.where(where("faded"), 0.4 * images + 0.5, images)
    images = torch.where(where("negative"), 1 - images, images)
    noise = torch.where(where("noisy"), STRONG_NOISE, SENSOR_NOISE)
    return images + noise * torch.randn(images.shape, generator=generator)


def _paint(
    images: Tensor,
    shape: Tensor,
    colour: Tensor,
    texture: Tensor,
    x: Tensor,
    y: Tensor,
    size: Tensor,
    rotation: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Paint one object over each image; every argument after ``images`` is (N,)."""
    gy, gx = _grid()
    dx = (gx - x[:, None, None]) / size[:, None, None]
    dy = (gy - y[:, None, None]) / size[:, None, None]
    cos, sin = rotation.cos()[:, None, None], rotation.sin()[:, None, None]
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    field = torch.empty_like(u)
    for i, implicit in enumerate(SHAPES.values()):
        rows = shape == i
        if rows.any():
            field[rows] = implicit(u[rows], -v[rows])  # image rows run downwards
    sharpness = 0.4 * IMAGE_SIZE * size[:, None, None]
    mask = torch.sigmoid((1 - field) * sharpness)
    hollow = (texture == TEXTURE_NAMES.index("hollow"))[:, None, None]
    mask = torch.where(hollow, mask * torch.sigmoid((field - 0.62) * sharpness), mask)[:, None]

    tone = torch.tensor(list(COLOURS.values()))[colour]
    tone = (tone + 0.07 * torch.randn(tone.shape, generator=generator)).clamp(0, 1)
    contrast = (0.35 * tone + torch.where(tone.mean(1, keepdim=True) > 0.5, 0.0, 0.65)).clamp(0, 1)
    pattern = _pattern(texture, u, v, generator)[:, None]
    paint = torch.lerp(tone[:, :, None, None], contrast[:, :, None, None], pattern)
    return torch.lerp(images, paint, mask)


def _pattern(texture: Tensor, u: Tensor, v: Tensor, generator: torch.Generator) -> Tensor:
    """Where the second tone of a texture shows (1) and where the first (0)."""
    phase = 2 * math.pi * torch.rand(len(texture), 1, 1, generator=generator)
    patterns = {
        "striped": torch.sin(9 * u + phase) > 0,
        "dotted": torch.sin(9 * u + phase) * torch.sin(9 * v + phase) > 0.35,
        "checked": torch.sin(6.75 * u + phase) * torch.sin(6.75 * v + phase) > 0,
    }
    shown = torch.zeros_like(u)
    for name, pattern in patterns.items():
        shown = torch.where((texture == TEXTURE_NAMES.index(name))[:, None, None], pattern.float(), shown)
    return shown


def _grid() -> tuple[Tensor, Tensor]:
    """Row and column coordinates of the pixel centres in [-1, 1], each (32, 32)."""
    centres = (torch.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE * 2 - 1
    return torch.meshgrid(centres, centres, indexing="ij")  # type: ignore[return-value]


def _per_image(x: Tensor) -> Tensor:
    return x[:, None, None, None]
