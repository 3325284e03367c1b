"""Drawings on canvases: a cut-out picture on a background, turned, moved, lit, blurred and grained as a domain has it.

Vectorised over the batch; everything random is drawn from the generator."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CANVAS_SIZE = 48


class Domain(NamedTuple):
    """How far and how often pictures of a domain are changed. Probabilities are shares of images; ``angle``: radians,
    ``scale``: side of the drawing by that of the canvas, ``shift``: of half a canvas, ``hue``: of half a turn."""

    angle: float = 0.35
    scale: tuple[float, float] = (0.65, 1.05)
    shift: float = 0.15
    stretch: float = 0.15  # log of width by height
    white: float = 0.35  # probability of a white background
    texture: float = 0.3  # probability of an uneven one
    unevenness: float = 0.4
    cells: int = 6  # a side of its pattern
    hue: float = 0.1
    light: float = 0.3
    gray: float = 0.1  # probability of colour loss
    lines: float = 0.07  # probability that only outlines are left
    blur: float = 0.2  # probability
    noise: float = 0.06  # highest standard deviation
    occlusion: float = 0.0  # probability that a patch is covered
    warp: float = 0.0  # largest bend, of half a canvas


class Canvas(NamedTuple):
    """Images (N, 3, 48, 48) in [0, 1]; ``ink`` (N, 3), colours of drawings that have none of their own, and
    ``background`` (N, 3); ``lines`` (N,) bool."""

    images: Tensor
    ink: Tensor
    background: Tensor
    lines: Tensor


def paint(
    drawings: Tensor,
    coloured: Tensor,
    domain: Domain,
    generator: torch.Generator,
    *,
    ink: Tensor | None = None,
    background: Tensor | None = None,
    size: int = CANVAS_SIZE,
) -> Canvas:
    """Paint each of ``drawings`` (N, 4, S, S), RGBA uint8, on a canvas. ``coloured`` (N,) bool: a drawing without
    colours is painted in ``ink`` (N, 3). Colours with NaN, or None, are drawn at random."""
    n = len(drawings)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    def some(probability: float) -> Tensor:
        return (torch.rand(n, generator=generator) < probability)[:, None, None, None]

    dark = uniform(0.0, 0.45, 3) * (torch.rand(n, 1, generator=generator) < 0.6)
    bright = torch.where(some(domain.white)[:, :, 0, 0], torch.ones(()), uniform(0.6, 1.0, 3))
    swapped = (torch.rand(n, generator=generator) < 0.12) & ~coloured  # light ink on a dark ground
    dark, bright = torch.where(swapped[:, None], bright, dark), torch.where(swapped[:, None], dark, bright)
    ink = dark if ink is None else torch.where(ink.isnan(), dark, ink)
    background = bright if background is None else torch.where(background.isnan(), bright, background)

    pixels = drawings.float() / 255
    alpha = pixels[:, 3:]
    colour = torch.where(coloured[:, None, None, None], pixels[:, :3], ink[:, :, None, None])
    moved = _move(torch.cat([colour * alpha, alpha], 1), domain, uniform, size)
    colour, alpha = moved[:, :3], moved[:, 3:]

    tone, cells = background[:, :, None, None], domain.cells
    pattern = F.interpolate(uniform(-0.5, 0.5, 3, cells, cells), size=size, mode="bilinear", align_corners=False)
    uneven = some(domain.texture) * domain.unevenness * uniform(0.0, 1.0, 1, 1, 1)
    images = colour + (tone + pattern * uneven).clamp(0, 1) * (1 - alpha)

    lines = some(domain.lines)
    images = torch.where(lines, _outlines(images), images)
    images = _turn_hue(images, uniform(-math.pi, math.pi) * domain.hue)
    gray = images.mean(1, keepdim=True)
    images = torch.where(some(domain.gray), torch.lerp(gray, images, uniform(0.0, 0.3, 1, 1, 1)), images)
    contrast, brightness = 1 + domain.light * uniform(-1, 0.5, 1, 1, 1), domain.light * uniform(-0.4, 0.3, 1, 1, 1)
    images = (images - 0.5) * contrast + 0.5 + brightness
    soft = F.interpolate(F.avg_pool2d(images, 2), size=size, mode="bilinear", align_corners=False)
    images = torch.where(some(domain.blur), torch.lerp(images, soft, uniform(0.3, 1.0, 1, 1, 1)), images)
    if domain.occlusion:
        images = torch.where(some(domain.occlusion) & _patch(uniform, size), uniform(0, 1, 3, 1, 1), images)
    grain = torch.randn(images.shape, generator=generator) * domain.noise * uniform(0.0, 1.0, 1, 1, 1)
    return Canvas((images + grain).clamp(0, 1), ink, background, lines[:, 0, 0, 0])


def _move(pixels: Tensor, domain: Domain, uniform, size: int) -> Tensor:  # type: ignore[no-untyped-def]
    """Turn, scale, stretch and shift. Colours are multiplied by alpha, so that nothing bleeds in at the edges."""
    angle, scale = uniform(-1, 1) * domain.angle, uniform(*domain.scale)
    stretch, shift = torch.exp(uniform(-0.5, 0.5) * domain.stretch), uniform(-1, 1, 2) * domain.shift
    cos, sin = angle.cos() / scale, angle.sin() / scale
    x = torch.stack([cos * stretch, -sin / stretch, shift[:, 0]], 1)
    y = torch.stack([sin * stretch, cos / stretch, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([x, y], 1), [len(pixels), 4, size, size], align_corners=False)
    if domain.warp:
        bend = F.interpolate(uniform(-1, 1, 2, 4, 4), size=size, mode="bicubic", align_corners=False)
        grid = grid + domain.warp * bend.permute(0, 2, 3, 1)
    return F.grid_sample(pixels, grid, align_corners=False)


def _outlines(images: Tensor) -> Tensor:
    """Dark lines where the light changes, on white."""
    gray = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    dx, dy = gray[..., 1:-1, 2:] - gray[..., 1:-1, :-2], gray[..., 2:, 1:-1] - gray[..., :-2, 1:-1]
    return (1 - 1.6 * (dx.square() + dy.square() + 1e-6).sqrt()).clamp(0, 1).expand_as(images)


def _turn_hue(images: Tensor, angle: Tensor) -> Tensor:
    """Rotate colours about the gray axis."""
    cos, sin = angle.cos(), angle.sin()
    a, b = (1 - cos) / 3, sin / 3**0.5
    rows = [(cos + a, a - b, a + b), (a + b, cos + a, a - b), (a - b, a + b, cos + a)]
    turn = torch.stack([torch.stack(row, 1) for row in rows], 1)
    return (turn @ images.flatten(2)).view_as(images)


def _patch(uniform, size: int) -> Tensor:  # type: ignore[no-untyped-def]
    """(N, 1, size, size) bool: a box of a quarter to two fifths of a side."""
    at = torch.arange(size) / size
    low, width = uniform(0.0, 0.7, 2), uniform(0.25, 0.4, 2)
    inside = (at >= low[..., None]) & (at < (low + width)[..., None])
    return (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
