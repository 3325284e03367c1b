"""Icons to drawings: RGBA images of 64 x 64 by resvg (``resvg-py``)."""

import io
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from pyfastcal.clip.tasks.drawings import SIDE

from .concepts import Concept
from .packages import read
from .sets import DrawingSet

SIZE = SIDE


def svg_of(package: dict, name: str) -> str:
    """The SVG of an icon or an alias. ``currentColor`` is black."""
    own: dict = {}
    while name not in package["icons"]:
        alias = package["aliases"][name]
        own, name = {**alias, **own}, alias["parent"]
    own = {**package["icons"][name], **own}

    def value(key: str, default: int) -> int:
        return own.get(key, package.get(key, default))

    width, height = value("width", 16), value("height", 16)
    box = f"{value('left', 0)} {value('top', 0)} {width} {height}"
    # longest side SIZE, the shape kept: preserveAspectRatio centres it
    head = (
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{SIZE}" height="{SIZE}"'
    )
    body = own["body"].replace("currentColor", "#000000")
    return f'<svg {head} viewBox="{box}" preserveAspectRatio="xMidYMid meet">{body}</svg>'


def rendered(package: dict, name: str) -> np.ndarray | None:
    """(64, 64, 4) uint8, or None where nothing is to be seen."""
    svg = svg_of(package, name)
    if "<text" in svg:  # which fonts there are would decide
        return None
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, skip_system_fonts=True)
    image = np.array(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
    if image.shape != (SIZE, SIZE, 4):
        raise ValueError(f"{name}: rendered as {image.shape}")
    ink = image[..., 3] > 32
    flat = ink.all() and np.ptp(image[..., :3].reshape(-1, 3), axis=0).max() < 16
    return None if ink.mean() < 0.01 or flat else image


class Drawings:
    """The drawings of some concepts, in order of concept, set and icon: ``images`` (N, 64, 64, 4) uint8, ``concept``
    (N,), ``set_index`` (N,), ``icon``, names. A set's drawings of a concept that are equal are one."""

    def __init__(self, folder: Path, concepts: list[Concept], sets: tuple[DrawingSet, ...]) -> None:
        images, concept_of, set_of, self.icon = [], [], [], []
        packages = {s.name: read(folder, s, "icons.json") for s in sets}
        for c, concept in enumerate(concepts):
            for s, drawing_set in enumerate(sets):
                seen = set()
                for name in dict.fromkeys(concept.icons.get(drawing_set.name, ())):
                    image = rendered(packages[drawing_set.name], name)
                    if image is None or image.tobytes() in seen:
                        continue
                    seen.add(image.tobytes())
                    images.append(image)
                    concept_of.append(c)
                    set_of.append(s)
                    self.icon.append(name)
        self.images = np.stack(images)
        self.concept, self.set_index = np.array(concept_of), np.array(set_of)


def alike(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Correlation of a drawing (64, 64, 4) with others (N, 64, 64, 4), each on white, at 16 x 16."""

    def small(images: np.ndarray) -> np.ndarray:
        x = images.astype(np.float32) / 255
        x = x[..., :3] * x[..., 3:] + 1 - x[..., 3:]
        x = x.reshape(len(x), 16, 4, 16, 4, 3).mean((2, 4)).reshape(len(x), -1)
        x -= x.mean(1, keepdims=True)
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)

    return small(others) @ small(one[None])[0]
