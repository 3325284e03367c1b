"""The command line. Results go to stdout, progress and errors to stderr; an error is one line, ``--debug``
shows where it came from. Exit codes: 0 done, 1 failed, 2 wrong usage. Whatever files bring in is shown as text.
"""

import errno
import functools
import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .io.text import counted, printable, show_anything

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
        from .installation.commands import package_version

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
                gone = isinstance(error, BrokenPipeError) and error.filename is None  # who read what is printed
                if debug or gone or isinstance(error, typer.Exit):
                    raise
                rank = os.environ.get("RANK", "0")  # of torchrun
                print(f"pyfastcal{f', rank {rank}' if rank != '0' else ''}: {_one_line(error)}", file=sys.stderr)
                raise typer.Exit(1) from None

        return app.command(**options)(wrapper)

    return register


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # files have names: it is what is printed
        where = f"{error.filename}: " if error.filename else "stdout: " if full else ""
        return printable(f"{where}{error.strerror}")
    return printable(" ".join(str(error).split())) or type(error).__name__


def _say_written(*paths: object) -> None:
    print("Written:", ", ".join(map(printable, paths)))


def _methods(value: str) -> str:
    from .evaluate.methods import check_methods

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
    typer.Option(
        callback=_methods,
        help="Methods, with commas, or all: zero-shot, conf (none), ts, den, hb, ir, mir, bms-mir, dac, ts+dac, cac, "
        "cac-fit.",
    ),
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
    from .experiment import demo as demonstration
    from .installation.extras import require_all
    from .io.paths import check_outputs
    from .io.progress import ProgressReport
    from .report import print_report, write_json, write_picture, write_report

    if task not in demonstration.TASKS:
        raise typer.BadParameter(f"must be one of {', '.join(demonstration.TASKS)}, got {task!r}", param_hint="--task")
    require_all("demo")  # before minutes of work, not after
    page, numbers = report or out / f"{task}.html", out / f"{task}.json"
    in_out = {f"{path.name} of --out": path for path in ((numbers,) if report else (page, numbers))}
    check_outputs({"--report": report, "--picture": picture} | in_out)
    with ProgressReport() as progress:
        result = demonstration.run(task, range(seeds), n_bins=n_bins, progress=progress)
    written = [write_report(page, result), write_json(numbers, result)]
    if picture:
        written.append(write_picture(picture, result))
    if features:
        written.append(demonstration.save_all_features(out / "features", result))
    print_report(result)
    _say_written(*written)


@command()
def evaluate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Feature files, folders of shards, or globs.")],
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
    shards: Annotated[
        bool, typer.Option("--shards", help="The files are shards of one split, not a split each.")
    ] = False,
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The classes of the shards. Without it those in the first shard."),
    ] = None,
    label_column: Annotated[str, typer.Option(help="Column of the labels in a parquet file.")] = "label",
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the progress here, and go on from it if there is any."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without the shards that cannot be read, and say so.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Where shards are calibrated: cpu, cuda (under torchrun a GPU each), cuda:1 ...")
    ] = "cpu",
    debug: Debug = False,
) -> None:
    """Calibrate saved features and measure the result.

    A feature file is a safetensors file with image_features, text_features, labels and logit_scale, and
    zeroshot_text_features for DAC and CAC; `pyfastcal extract` writes one.

    Each FILE is a split. One that is a folder or a quoted glob is a split in shards: feature files, a folder of
    clip-retrieval, or features_*.pt of clip_benchmark. They are read one after the other in constant memory, and
    under torchrun by all processes.

    Examples:

        pyfastcal evaluate new.safetensors --base base.safetensors

        pyfastcal evaluate new.safetensors --base base.safetensors --report new.html --json new.json

        pyfastcal evaluate base.safetensors new.safetensors --base validation.safetensors --methods conf,dac

        pyfastcal evaluate 'shards/*.safetensors' --base base.safetensors --checkpoint progress --skip-bad

        torchrun --nproc-per-node 8 -m pyfastcal evaluate embeddings/ --classes classes.safetensors
    """
    from .evaluate.checkpoint import MERGED
    from .evaluate.methods import check_methods
    from .evaluate.ranks import joined
    from .evaluate.split import evaluate_split
    from .evaluate.stream import evaluate_shards
    from .io.features import load_classes, load_features
    from .io.paths import check_outputs, identity, named_once
    from .io.progress import ProgressReport, Steps
    from .io.shards import classes_of, find_shards, is_shards
    from .report import Report, Run, environment, print_report, write_json, write_report

    if report:
        from .installation.extras import require

        require("matplotlib", "report")
    chosen = check_methods(_split(methods))
    with joined() as ranks, ProgressReport(ranks.rank == 0) as progress:
        streamed = shards or skip_bad or ranks.size > 1 or device != "cpu"
        streamed = streamed or classes is not None or checkpoint is not None
        splits = [files] if shards else [[file] for file in files]
        if checkpoint and len(splits) > 1:
            raise ValueError(f"--checkpoint must be of one split, got {len(splits)}: with --shards they are one")
        found: list[Any] = []
        for paths in splits:
            if streamed or is_shards(paths[0]):
                found.append(ranks.from_first(functools.partial(find_shards, paths, label_column)))
            else:
                found.append(paths[0])

        def check() -> None:
            read = [[name for shard in x for name in shard.files] if isinstance(x, list) else [x] for x in found]
            named_once("splits", (split[0] for split in splits), (frozenset(map(identity, names)) for names in read))
            kept = checkpoint / MERGED if checkpoint else None
            outputs = {"--checkpoint": kept, "--report": report, "--json": json_file}
            check_outputs(outputs, [*itertools.chain(*read), base, classes])

        ranks.from_first(check)
        base_features = load_features(base) if base else None
        of_all = load_classes(classes) if classes else None
        loaded = [x if isinstance(x, list) else load_features(x) for x in found]
        evaluations = []
        for name, split in zip(_names(splits), loaded, strict=True):
            if isinstance(split, list):
                evaluation = evaluate_shards(
                    split,
                    of_all or classes_of(split, skip_bad),
                    base_features,
                    chosen,
                    n_bins,
                    split=name,
                    skip_bad=skip_bad,
                    checkpoint=checkpoint,
                    device=device,
                    progress=functools.partial(progress, f"{name}: shards calibrated and measured"),
                )
            else:
                step = Steps(progress, f"{name}: calibrate and measure", len(chosen))
                evaluation = evaluate_split(split, base_features, chosen, n_bins, split=name, progress=step)
            evaluations.append(evaluation)
    if ranks.rank:
        return
    about = [f"Features: {', '.join(files)}."] + ([f"Base classes: {base}."] if base else [])
    result = Report("Calibration", [Run("", tuple(evaluations))], n_bins, about, environment())
    written = [write_report(report, result)] if report else []
    written += [write_json(json_file, result)] if json_file else []
    print_report(result)
    if written:
        _say_written(*written)


def _names(splits: list[list[str]]) -> list[str]:
    """What the splits are called: the files' stems, or the whole paths where two stems are the same or there are
    several files."""
    paths = [split[0] if len(split) == 1 else f"{split[0]} and {len(split) - 1} more" for split in splits]
    stems = [Path(path).stem for path in paths]
    plain = len(set(stems)) == len(stems) and all(len(split) == 1 and "*" not in split[0] for split in splits)
    return stems if plain else paths


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
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without the images that cannot be read, and say so.")
    ] = False,
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
    from .clip.extract import TEMPLATE
    from .clip.extract import extract as encode
    from .io.features import save_features
    from .io.paths import check_outputs
    from .io.progress import ProgressReport

    check_outputs({"OUT": out}, _inputs_of_extract(images, out, pretrained, classes, text_features))
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
    _say_written(f"{out} ({counted(n, 'image')}, {counted(c, 'class')}, {dim} dimensions)")


def _inputs_of_extract(images: str, out: Path, *files: str | Path | None) -> list[str | Path]:
    """The files that are read; of the images only what OUT could overwrite."""
    from .clip.datasets import SUFFIXES

    inside = Path(images).resolve() in out.resolve().parents and out.suffix.lower() in SUFFIXES and out.exists()
    return [file for file in files if file is not None and os.path.exists(file)] + [out] * inside


@command()
def experiment(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results and the report.")],
    learners: Annotated[
        str,
        typer.Option(
            help="Prompt learners, with commas, or all: CoOp, CoCoOp, ProDA, KgCoOp, MaPLe, ProGrad, PromptSRC."
        ),
    ] = "all",
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Bundled tasks, with commas, or all: digits, shapes, shapes-clean, shapes-dark, shapes-blurry, "
            "shapes-noisy, shapes-faded.  \\[default: all]",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many: 0, 1, ...")] = 3,
    methods: Annotated[
        str,
        typer.Option(help="zs, conf, ts, den, hb, ir, mir, dac, ts+dac, cac, cac-fit (all of these), bms-mir."),
    ] = "all",
    shots: Annotated[int, typer.Option(min=1, help="Images of each base class to tune on.")] = 16,
    few_shot_learners: Annotated[
        str, typer.Option(help="Learners that are tuned on 1, 2, 4 and 8 shots besides; none for no one.")
    ] = "CoOp",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="At most so many, for a quick look. Default: the published.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: the processor's cores; 1 with --data.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A folder of images, one sub-folder per class, instead of bundled tasks."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The CLIP for --data: any model of open_clip, hf-hub:...")] = None,
    pretrained: Annotated[
        str | None, typer.Option(metavar="TAG|FILE", help="Weights: a tag of open_clip, or a file.")
    ] = None,
    base_classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Base classes, one per line. Default: the first half of the folders, as in the papers."
        ),
    ] = None,
    template: Annotated[str, typer.Option(help="Zero-shot prompt for --data.")] = "a photo of a {}.",
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at a time.")] = 256,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    n_bins: Bins = 10,
    debug: Debug = False,
) -> None:
    """The papers' experiment: tune every prompt learner on base classes, calibrate base and new ones, compare.

    Writes DIR/results.json, DIR/ablations.json and DIR/report.html. A run that was stopped goes on where it was; one
    that is done can be given more seeds, learners and tasks. Needs pyfastcal[demo].

    Examples:

        pyfastcal experiment --seeds 1 --out results

        pyfastcal experiment --learners CoOp,MaPLe --tasks digits,shapes-noisy --seeds 3 --out results

        pyfastcal experiment --model ViT-B-16 --pretrained openai --data photos --base-classes base.txt --out results
    """
    from . import experiment as experiments
    from .clip.extract import read_names
    from .experiment import page
    from .installation.extras import require_all
    from .io.paths import check_outputs
    from .io.progress import ProgressReport

    require_all("demo")
    chosen = experiments.check_learners(_split(learners))
    names = "results.json", "ablations.json", "report.html", "experiment.json"
    check_outputs({f"{name} of --out": out / name for name in names}, [base_classes, pretrained])
    if any(path.resolve() in (out.resolve(), *out.resolve().parents) for path in data or ()):
        raise typer.BadParameter("must not be in the folder of the images", param_hint="--out")
    sources: list[Any] = []
    if data:
        if tasks is not None:
            raise typer.BadParameter(
                "bundled tasks have models of their own: give either", param_hint="--tasks, --data"
            )
        if model is None:
            raise typer.BadParameter("must be given with --data", param_hint="--model")
        bases = tuple(read_names(base_classes)) if base_classes else None
        options = {"template": template, "device": device, "precision": precision, "batch_size": batch_size}
        options |= {"num_workers": workers, "cache": str(out / "features")}
        sources = [experiments.FolderTask(str(path), model, pretrained, bases, **options) for path in data]
    elif model is not None or base_classes is not None:
        raise typer.BadParameter("must be given with --model and --base-classes", param_hint="--data")
    else:
        sources = list(experiments.bundled(_split(tasks or "all")))
    few = () if few_shot_learners == "none" else _split(few_shot_learners)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ProgressReport() as progress:
        results = experiments.run(
            out,
            sources,
            chosen,
            range(seeds),
            methods=_split(methods),
            shots=shots,
            few_shot_learners=few,
            n_bins=n_bins,
            epochs=epochs,
            jobs=jobs or (1 if data else cores),
            progress=progress,
        )
    weights = f" ({pretrained})" if pretrained else ""
    about = [f"Images: {', '.join(map(str, data))}. Model: {model}{weights}."] if data else [experiments.ABOUT]
    report = page.write_report(out / "report.html", results, about)
    page.print_tables(results)
    _say_written(out / "results.json", out / "ablations.json", report)


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
    show_anything()
    try:
        app(prog_name="pyfastcal")
    except SystemExit as done:
        sys.exit(_flushed(done.code))


def _flushed(code: Any) -> Any:
    """The exit code, once all that was printed is out: 1 where it does not come out, without a word where nobody reads
    it any more (``pyfastcal info | head``)."""
    try:
        if sys.stdout is not None:  # as it is where it was closed
            sys.stdout.flush()
        return code
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"pyfastcal: stdout: {error.strerror}", file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at the end
    return 1
