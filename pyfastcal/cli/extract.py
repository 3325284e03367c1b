"""``pyfastcal extract``."""

import functools
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..io.text import counted, printable
from .app import Debug, Device, Precision, Pretrained, Workers, say_written


def extract(
    images: Annotated[
        str,
        typer.Argument(metavar="IMAGES", help="A folder with one folder per class, or torchvision:NAME:ROOT."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The feature file to write (.safetensors).")],
    model: Annotated[
        str, typer.Option(help="Any model of open_clip, hf-hub:..., pyfastcal/digits or pyfastcal/shapes.")
    ],
    pretrained: Pretrained = None,
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class names, one per line, in the order of the labels."),
    ] = None,
    template: Annotated[list[str] | None, typer.Option(help="Zero-shot prompt; give several to average them.")] = None,
    text_features: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Tuned text features, a saved prompt learner, or one's model.pth.tar-N."),
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="The training split (torchvision).")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without the images that cannot be read, and say so.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 256,
    workers: Workers = 0,
    device: Device = "cpu",
    precision: Precision = "fp32",
    debug: Debug = False,
) -> None:
    """Encode images and class names with a CLIP, and write a feature file. Needs pyfastcal[clip].

    Examples:

        pyfastcal extract photos/new new.safetensors --model ViT-B-16 --pretrained laion2b_s34b_b88k

        pyfastcal extract torchvision:CIFAR10:data cifar.safetensors --model ViT-B-32 --pretrained openai

        pyfastcal extract digits/ d.safetensors --model pyfastcal/digits --text-features coop.safetensors

        pyfastcal extract photos new.safetensors --model ViT-B-16 --pretrained openai --text-features model.pth.tar-5
    """
    from ..clip.extract import TEMPLATE
    from ..clip.extract import extract as encode
    from ..io.features import save_features
    from ..io.paths import check_outputs
    from ..io.progress import ProgressReport

    check_outputs({"OUT": out}, _inputs(images, out, pretrained, classes, text_features))
    with ProgressReport() as progress:
        features = encode(
            images,
            model,
            pretrained,
            classes=classes,
            template=(template[0] if len(template) == 1 else template) if template else TEMPLATE,
            text_features=text_features,
            train=train,
            skip_bad=skip_bad,
            batch_size=batch_size,
            num_workers=workers,
            device=device,
            precision=precision,
            progress=functools.partial(progress, "encode images"),
        )
    save_features(out, features)
    (n, dim), c = features.image_features.shape, len(features.text_features)
    if skipped := features.meta.get("skipped"):
        print(f"Without {counted(len(skipped), 'image')} that could not be read:", file=sys.stderr)
        for reason in skipped:
            print(f"  {printable(reason)}", file=sys.stderr)
    say_written(f"{out} ({counted(n, 'image')}, {counted(c, 'class')}, {dim} dimensions)")


def _inputs(images: str, out: Path, *files: str | Path | None) -> list[str | Path]:
    """The files that are read; of the images only what OUT could overwrite."""
    from ..clip.datasets import SUFFIXES

    inside = Path(images).resolve() in out.resolve().parents and out.suffix.lower() in SUFFIXES and out.exists()
    return [file for file in files if file is not None and os.path.exists(file)] + [out] * inside
