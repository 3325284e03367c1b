"""How text features lie: those of the bundled CLIP "drawings" beside those of a real CLIP.

``python -m scripts.figures.geometry --other NAME=FILE.safetensors:KEY ...`` measures the bundled CLIP's features of all
classes of the tasks, and any others' that are given (two keys, ``KEY+KEY``, are two templates of the same classes); to
docs/geometry.json and the model card's table. Without ``--other`` what the file holds of others stays."""

import argparse
import json

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.real_text import features_of
from pyfastcal import DistanceAwareCalibration, ops
from pyfastcal.clip import encode_text, load_small, tasks
from pyfastcal.clip.tasks import drawings
from scripts.figures.page import DOCS, with_tables

CARD, FIGURES = DOCS / "small_clips.md", DOCS / "geometry.json"
NEIGHBOURS = 10  # in hubness, as is usual (Radovanovic et al. 2010)
TEMPLATES = ("a drawing of a {}.", "a picture of a {}.")
HALVINGS = 10  # random halves into base and new classes, for proximity and gamma


def geometry(features: Tensor, other: Tensor | None = None) -> dict[str, float]:
    """Figures of text features (C, D): the mean of the cosines between classes and their standard deviation; the mean
    cosine to the nearest other class; the skewness of how often a class is among the 10 nearest of others (hubness);
    and, with features of the same classes from another template, DAC's proximity of new classes to base classes and its
    gamma."""
    unit = F.normalize(features.double(), dim=-1)
    cosines = (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)].view(len(unit), -1)
    _, indices = ops.knn(unit.float(), unit.float(), NEIGHBOURS, exclude_self=True)
    counts = torch.bincount(indices.flatten(), minlength=len(unit)).double()
    skewness = ((counts - counts.mean()) ** 3).mean() / counts.std(correction=0) ** 3
    found = {
        "classes": len(unit),
        "cosine mean": cosines.mean(),
        "cosine spread": cosines.std(),
        "nearest": cosines.amax(1).mean(),
        "hubness": skewness,
    }
    if other is not None:
        gammas, near = _gammas(features.float(), other.float())
        found["proximity"] = near.mean()
        found |= {f"gamma {q}": gammas.quantile(q / 100) for q in (5, 50, 95)}
    return {key: round(float(value), 4) for key, value in found.items()}


def _gammas(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Gamma of the new classes of random halvings, ``other`` in the place of the tuned features, and the proximity (the
    mean distance to the nearest 5) of ``one``."""
    gammas, near = [], []
    for seed in range(HALVINGS):
        order = torch.randperm(len(one), generator=torch.Generator().manual_seed(seed))
        base, new = order[: len(one) // 2], order[len(one) // 2 :]
        dac = DistanceAwareCalibration()
        dac.fit(tuned=other[new], zeroshot=one[new], base_tuned=other[base], base_zeroshot=one[base])
        gammas.append(dac.class_weight)
        unit = F.normalize(one, dim=-1)
        near.append(ops.knn(unit[new], unit[base], dac.k)[0].mean(1))
    return torch.cat(gammas), torch.cat(near)


def of_drawings() -> dict[str, dict[str, float]]:
    """The classes of each task, and all of them together."""
    clip = load_small("drawings")

    def features(names: list[str]) -> list[Tensor]:
        return [encode_text(clip.model, clip.tokenizer, names, template) for template in TEMPLATES]

    names = sorted({name for task in tasks.DRAWINGS for name in drawings.drawings_of(task).classes})
    found = {"drawings: all classes": geometry(*features(names))}
    for task in tasks.DRAWINGS:
        found[f"drawings: {task}"] = geometry(*features(drawings.drawings_of(task).classes))
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    lines = [
        "| text features | classes | cosine between classes: mean ± spread | to the nearest | hubness | proximity | "
        "gamma between two templates: 5 %, median, 95 % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in found.items():
        gamma = " / ".join(f"{row[f'gamma {q}']:.2f}" for q in (5, 50, 95)) if "gamma 50" in row else "-"
        proximity = f"{row['proximity']:.2f}" if "proximity" in row else "-"
        cosine = f"{row['cosine mean']:.2f} ± {row['cosine spread']:.2f} | {row['nearest']:.2f}"
        lines.append(f"| {name} | {row['classes']:.0f} | {cosine} | {row['hubness']:.1f} | {proximity} | {gamma} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the geometry of text features for the model card.")
    what = {"metavar": "NAME=FILE:KEY[+KEY]", "help": "a safetensors file"}
    parser.add_argument("--other", action="append", default=[], type=features_of, **what)
    args = parser.parse_args()
    before = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    others = {name: geometry(*heads) for name, heads in args.other}
    if not others:
        others = {name: row for name, row in before.items() if not name.startswith("drawings")}
    found = of_drawings() | others
    FIGURES.write_text(json.dumps(found, indent=1) + "\n")
    CARD.write_text(with_tables(CARD.read_text(), {"geometry": table(found)}))


if __name__ == "__main__":
    main()
