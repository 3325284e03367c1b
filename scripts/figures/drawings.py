"""The page of the drawings: ``python -m scripts.figures.drawings`` writes its lists of classes and its picture."""

import torch

from pyfastcal.clip import tasks
from pyfastcal.clip.tasks import drawings
from pyfastcal.clip.tasks.images import pixels
from scripts.figures.page import DOCS, with_tables

PAGE, PICTURE = DOCS / "drawings.md", DOCS / "drawings.webp"
SHOWN = 16  # classes of a task in the picture


def lists() -> dict[str, str]:
    """Sizes, and the classes of each task, base and new."""
    lines = ["| task | base classes | new classes | drawings | hands of a class |", "| --- | --- | --- | --- | --- |"]
    classes = []
    for name in tasks.DRAWINGS:
        found = drawings.drawings_of(name)
        half = (len(found.classes) + 1) // 2
        pairs = set(zip(found.labels.tolist(), found.hands, strict=True))
        hands = len(pairs) / len(found.classes)
        lines.append(f"| `{name}` | {half} | {len(found.classes) - half} | {len(found.labels)} | {hands:.1f} |")
        classes += [f"**{name}**, base: {', '.join(found.classes[:half])}.", ""]
        classes += [f"New: {', '.join(found.classes[half:])}.", ""]
    return {"sizes": "\n".join(lines), "classes": "\n".join(classes).rstrip()}


def picture() -> None:
    """A row of images for each task, of classes that lie equally far apart in the alphabet."""
    from PIL import Image

    rows = []
    for name in tasks.DRAWINGS:
        task = tasks.load(name, shots=1, test_images=1)
        images = torch.cat([task.base_test.images, task.new_test.images])
        chosen = images[torch.linspace(0, len(images) - 1, SHOWN).long()]
        rows.append(torch.cat(list(pixels(chosen)), dim=1))
    Image.fromarray(torch.cat(rows).numpy()).save(PICTURE, quality=85, method=6)


def main() -> None:
    picture()
    PAGE.write_text(with_tables(PAGE.read_text(), lists()))


if __name__ == "__main__":
    main()
