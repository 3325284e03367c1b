"""A run's images as elements of the page, which holds them."""

import base64
import io

from torch import Tensor

from ..installation.extras import require
from .markup import escape


def img(pixels: Tensor, alternative: str, side: int) -> str:
    """``pixels`` (H, W, 3) uint8, each of them shown as a square: at the multiple of their width that is nearest to
    ``side`` CSS pixels. ImportError that says what to install where Pillow is missing."""
    height, width, _ = pixels.shape
    times = max(1, round(side / width))
    buffer = io.BytesIO()  # PNG: no smaller in WebP, grainy as such images are
    require("PIL.Image", "demo").fromarray(pixels.cpu().numpy()).save(buffer, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<img src="{source}" width="{times * width}" height="{times * height}" alt="{escape(alternative)}">'
