"""The tasks' drawings as the package holds them: a lossless WebP sheet a task, an index, and the sets' notices.

``python -m scripts.drawings.sheets`` writes them from what ``python -m scripts.drawings`` made."""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image

from pyfastcal.clip.tasks.drawings import COLUMNS, FOLDER, NAMES

from .data import TASK, Pretraining, as_sheet
from .packages import read
from .sets import SETS
from .tasks import classes_of

LEAST_LEFT = 3  # hands that a class must have here; one whose drawings could not be rendered may have fewer


def write(data: Pretraining, packages: Path, folder: Path) -> None:
    """``NAME.webp`` for each task, ``index.json`` and ``NOTICE.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    place, icons = {concept.name: i for i, concept in enumerate(data.concepts)}, data.icons
    index: dict = {"sets": {}, "tasks": {}}
    for task in NAMES:
        chosen, entries = [], []
        for concept in classes_of(task, data.concepts):
            rows = torch.nonzero((data.concept == place[concept.name]) & (data.role == TASK))[:, 0].tolist()
            names = [SETS[int(data.set_index[row])] for row in rows]
            if len({s.hand for s in names}) < LEAST_LEFT:
                continue
            chosen += rows
            listed = [[s.name, icons[row]] for s, row in zip(names, rows, strict=True)]
            entries.append({"name": concept.name, "drawings": listed})
            index["sets"] |= {s.name: {"hand": s.hand, "coloured": s.coloured} for s in names}
        index["tasks"][task] = entries
        sheet = as_sheet(data.images[chosen].permute(0, 2, 3, 1).numpy(), COLUMNS)
        Image.fromarray(sheet).save(folder / f"{task}.webp", lossless=True, method=6, exact=False)
    (folder / "index.json").write_text(_json(index), encoding="utf-8")
    (folder / "NOTICE.md").write_text(_notice(index, packages), encoding="utf-8")


def _json(index: dict) -> str:
    """A class per line."""
    lines = [f"{json.dumps(name)}: {json.dumps(about)}" for name, about in sorted(index["sets"].items())]
    tasks = [
        f"{json.dumps(task)}: [\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]"
        for task, entries in index["tasks"].items()
    ]
    return '{"sets": {\n' + ",\n".join(lines) + '\n},\n"tasks": {\n' + ",\n".join(tasks) + "\n}}\n"


NOTICE = """\
# Whose drawings these are

The sheets in this folder hold drawings of the sets below, taken from the packages `@iconify-json/NAME` of
the npm registry and rendered at 64 x 64 pixels, otherwise unchanged; tasks show them turned, scaled, on
backgrounds and with changed colours. The CLIPs `drawings*` were pre-trained on drawings of all sets below.
Names of classes and keywords are of emojibase-data (MIT, Miles Johnson, https://github.com/milesj/emojibase).

| set | version | author | licence | in the sheets |
| --- | --- | --- | --- | --- |
"""


def _notice(index: dict, packages: Path) -> str:
    lines = NOTICE.splitlines()
    for s in SETS:
        info = read(packages, s, "info.json")
        author, licence = info["author"], info["license"]
        held = "yes" if s.name in index["sets"] else "no"
        by = f"[{author['name']}]({author['url']})" if author.get("url") else author["name"]
        under = f"[{licence['title']}]({licence['url']})" if licence.get("url") else licence["title"]
        lines.append(f"| {info['name']} (`{s.name}`) | {s.version} | {by} | {under} | {held} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the tasks' sheets into the package.")
    parser.add_argument("--data", type=Path, default=Path("build/drawings"))
    parser.add_argument("--packages", type=Path, help="default: DATA/packages")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    write(Pretraining(args.data), args.packages or args.data / "packages", args.out)


if __name__ == "__main__":
    main()
