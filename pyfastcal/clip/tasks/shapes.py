"""Rendered images: coloured, textured shapes in the world of :mod:`.world`, in styles that the small CLIP
saw little of; half of the classes to tune on, half new."""

from collections.abc import Sequence

import torch

from ...arguments import checks
from . import world
from .images import Split, normalize
from .task import Task

TEMPLATE = "a photo of a {}."
# Half of the pre-training images are clean, a tenth of each other style: a task in two of the others is a
# domain shifted from what the model knows best.
DEFAULT_STYLES = ("blurry", "noisy")


def make(
    seed: int = 0,
    shots: int = 16,
    *,
    n_classes: int = 32,
    styles: Sequence[str] = DEFAULT_STYLES,
    test_images: int = 60,
) -> Task:
    """``n_classes`` of the 708 triples of colour, texture and shape, by ``seed``, the first half of them
    base; ``shots`` images of each base class for training, as many for validation, ``test_images`` of
    every class for the tests, each image in one of ``styles`` (of ``world.STYLE_NAMES``: the target
    domain)."""
    checks.integer("seed", seed, 0)
    checks.integer("shots", shots, 1)
    checks.integer("test_images", test_images, 1)
    styles = (styles,) if isinstance(styles, str) else tuple(styles)
    for style in styles:
        checks.choice("styles", style, world.STYLE_NAMES)
    if not styles:
        raise ValueError("styles must name at least one style, got none")
    triples = [
        (shape, colour, texture)
        for shape in range(len(world.SHAPE_NAMES))
        for colour in range(len(world.COLOUR_NAMES))
        for texture in range(len(world.TEXTURE_NAMES))
        if (world.SHAPE_NAMES[shape], world.TEXTURE_NAMES[texture]) != ("ring", "hollow")  # looks as a plain ring
    ]
    checks.integer("n_classes", n_classes, 4, len(triples), "all classes there are")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.tensor(triples)[torch.randperm(len(triples), generator=generator)[:n_classes]]
    base, new = chosen[: n_classes // 2], chosen[n_classes // 2 :]
    indices = torch.tensor([world.STYLE_NAMES.index(style) for style in styles])

    def split(classes: torch.Tensor, per_class: int) -> Split:
        labels = torch.arange(len(classes)).repeat_interleave(per_class)
        shape, colour, texture = classes[labels].T
        style = indices[torch.randint(0, len(indices), (len(labels),), generator=generator)]
        scenes = zip(*(x.split(1024) for x in (shape, colour, texture, style)), strict=True)
        return Split(normalize(torch.cat([world.render(*scene, generator) for scene in scenes])), labels)

    return Task(
        name="shapes",
        template=TEMPLATE,
        base_classes=[world.class_name(*triple) for triple in base.tolist()],
        new_classes=[world.class_name(*triple) for triple in new.tolist()],
        train=split(base, shots),
        validation=split(base, shots),
        base_test=split(base, test_images),
        new_test=split(new, test_images),
    )
