"""The command line. Results go to stdout, progress and errors to stderr; an error is one line, ``--debug``
shows where it came from. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="pyfastcal",
    help="Confidences one can trust, for CLIP: calibrate, measure, report.",
    epilog="Start with: pyfastcal demo",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version.")] = False,
) -> None:
    if version:
        from .info import package_version

        print(f"pyfastcal {package_version()}")
        raise typer.Exit


def command(**options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose expected errors become one line on stderr and exit code 1."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def wrapper(*args: Any, debug: bool, **kwargs: Any) -> None:
            try:
                function(*args, debug=debug, **kwargs)
            except (ValueError, ImportError, OSError, RuntimeError) as error:
                if debug or isinstance(error, typer.Exit):
                    raise
                print(f"pyfastcal: {_one_line(error)}", file=sys.stderr)
                raise typer.Exit(1) from None

        return app.command(**options)(wrapper)

    return register


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _methods(value: str) -> str:
    from .evaluate import check_methods

    try:
        check_methods(_split(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return value


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Bins = Annotated[int, typer.Option("--n-bins", min=1, max=1000, help="Bins of confidence.")]
Methods = Annotated[
    str,
    typer.Option(callback=_methods, help="Methods, with commas: zero-shot, conf (none), dac, cac, cac-fit."),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every number as JSON.")]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write the report, one HTML file. Needs matplotlib."),
]


@command()
def demo(
    task: Annotated[str, typer.Option(help="digits: real images; shapes: a rendered world.")] = "digits",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="How many runs.")] = 5,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the report and the numbers.")] = Path("demo"),
    report: ReportFile = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the reliability diagrams as a PNG picture."),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="Also write the feature files, for `pyfastcal evaluate`.")
    ] = False,
    n_bins: Bins = 10,
    debug: Debug = False,
) -> None:
    """Tune CoOp on a small bundled CLIP, calibrate it, and see whether it helped.

    Writes DIR/TASK.html and DIR/TASK.json. A few minutes on two cores.

    Examples:

        pyfastcal demo

        pyfastcal demo --task shapes --seeds 10 --out results
    """
    from . import demo as demonstration
    from ._optional import require
    from .progress import ProgressReport
    from .report import print_report, write_json, write_picture, write_report

    if task not in demonstration.TASKS:
        raise typer.BadParameter(f"must be one of {', '.join(demonstration.TASKS)}, got {task!r}", param_hint="--task")
    require("matplotlib", "report")  # before minutes of work, not after
    with ProgressReport() as progress:
        result = demonstration.run(task, range(seeds), n_bins=n_bins, progress=progress)
    written = [
        write_report(report or out / f"{task}.html", result),
        write_json(out / f"{task}.json", result),
    ]
    if picture:
        written.append(write_picture(picture, result))
    if features:
        written.append(demonstration.save_all_features(out / "features", result))
    print_report(result)
    print("Written:", ", ".join(map(str, written)))


@command()
def evaluate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Feature files, one per split.")],
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Held-out images of the classes that were tuned on. DAC, cac-fit and PIECE use it.",
        ),
    ] = None,
    methods: Methods = "conf,dac,cac,cac-fit",
    report: ReportFile = None,
    json_file: Json = None,
    n_bins: Bins = 10,
    debug: Debug = False,
) -> None:
    """Calibrate saved features and measure the result.

    A feature file is a safetensors file with image_features, text_features, labels and logit_scale, and
    zeroshot_text_features for DAC and CAC; `pyfastcal extract` writes one.

    Examples:

        pyfastcal evaluate new.safetensors --base base.safetensors

        pyfastcal evaluate new.safetensors --base base.safetensors --report new.html --json new.json

        pyfastcal evaluate base.safetensors new.safetensors --base validation.safetensors --methods conf,dac
    """
    from .evaluate import evaluate_split
    from .io import load_features
    from .progress import ProgressReport, Steps
    from .report import Report, Run, environment, print_report, write_json, write_report

    if report:
        from ._optional import require

        require("matplotlib", "report")
    chosen = _split(methods)
    base_features = load_features(base) if base else None
    loaded = {name: load_features(file) for name, file in zip(_names(files), files, strict=True)}
    evaluations = []
    with ProgressReport() as progress:
        for name, features in loaded.items():
            step = Steps(progress, f"{name}: calibrate and measure", len(chosen))
            evaluations.append(evaluate_split(features, base_features, chosen, n_bins, split=name, progress=step))
    about = [f"Features: {', '.join(map(str, files))}."] + ([f"Base classes: {base}."] if base else [])
    result = Report("Calibration", [Run("", tuple(evaluations))], n_bins, about, environment())
    written = [write_report(report, result)] if report else []
    written += [write_json(json_file, result)] if json_file else []
    print_report(result)
    if written:
        print("Written:", ", ".join(map(str, written)))


def _names(files: list[Path]) -> list[str]:
    """What the splits are called: the files' stems, or the whole paths where two stems are the same."""
    stems = [file.stem for file in files]
    return stems if len(set(stems)) == len(stems) else [os.fspath(file) for file in files]


@command()
def extract(
    images: Annotated[
        str,
        typer.Argument(metavar="IMAGES", help="A folder with one folder per class, or torchvision:NAME:ROOT."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The feature file to write (.safetensors).")],
    model: Annotated[
        str, typer.Option(help="Any model of open_clip, hf-hub:..., pyfastcal/digits or pyfastcal/shapes.")
    ],
    pretrained: Annotated[
        str | None, typer.Option(metavar="TAG|FILE", help="Weights: a tag of open_clip, or a file.")
    ] = None,
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
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 256,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    debug: Debug = False,
) -> None:
    """Encode images and class names with a CLIP, and write a feature file. Needs pyfastcal[clip].

    Examples:

        pyfastcal extract photos/new new.safetensors --model ViT-B-16 --pretrained laion2b_s34b_b88k

        pyfastcal extract torchvision:CIFAR10:data cifar.safetensors --model ViT-B-32 --pretrained openai

        pyfastcal extract digits/ d.safetensors --model pyfastcal/digits --text-features coop.safetensors

        pyfastcal extract photos new.safetensors --model ViT-B-16 --pretrained openai --text-features model.pth.tar-5
    """
    from .extract import TEMPLATE
    from .extract import extract as encode
    from .io import save_features
    from .progress import ProgressReport

    with ProgressReport() as progress:
        features = encode(
            images,
            model,
            pretrained,
            classes=classes,
            template=(template[0] if len(template) == 1 else template) if template else TEMPLATE,
            text_features=text_features,
            train=train,
            batch_size=batch_size,
            num_workers=workers,
            device=device,
            precision=precision,
            progress=functools.partial(progress, "encode images"),
        )
    save_features(out, features)
    (n, dim), c = features.image_features.shape, len(features.text_features)
    print(f"Written: {out} ({n:,} images, {c:,} classes, {dim} dimensions)")


@command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show versions, which kernels run, and which optional parts are installed."""
    from .report.environment import describe

    found = describe()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for section, items in found.items():
        print(section)
        for key, value in items.items():
            value = ", ".join(map(str, value)) if isinstance(value, list) else value
            if value not in (None, ""):
                print(f"  {key:<22} {value}")


def main() -> None:
    """The ``pyfastcal`` program."""
    app(prog_name="pyfastcal")
