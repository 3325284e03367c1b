"""``pyfastcal evaluate``."""

import functools
import itertools
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import Bins, Debug, ReportFile, names_in, say_written


def _methods(value: str) -> str:
    from ..evaluate.methods import check_methods

    try:
        check_methods(names_in(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return value


Methods = Annotated[
    str,
    typer.Option(
        callback=_methods,
        help="Methods, with commas, or all: zero-shot, conf (none), ts, den, hb, ir, mir, bms-mir, dac, ts+dac, cac, "
        "cac-fit.",
    ),
]


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
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every number as JSON.")
    ] = None,
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
    from ..evaluate.checkpoint import MERGED
    from ..evaluate.methods import check_methods
    from ..evaluate.ranks import joined
    from ..evaluate.split import evaluate_split
    from ..evaluate.stream import evaluate_shards
    from ..io.features import load_classes, load_features
    from ..io.progress import ProgressReport, Steps
    from ..io.shards import classes_of, find_shards, is_shards
    from ..report import Report, Run, environment, print_report, write_json, write_report

    if report:
        from ..installation.extras import require

        require("matplotlib", "report")
    chosen = check_methods(names_in(methods))
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

        kept = checkpoint / MERGED if checkpoint else None
        outputs = {"--checkpoint": kept, "--report": report, "--json": json_file}
        ranks.from_first(functools.partial(_check_files, splits, found, outputs, [base, classes]))
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
        say_written(*written)


def _check_files(
    splits: list[list[str]], found: list[Any], outputs: dict[str, Path | None], others: list[Path | None]
) -> None:
    """ValueError where a split is named twice, or an output would replace one of its files or of the ``others``.
    ``found``: the shards of each split, or the name of its one file."""
    from ..io.paths import check_outputs, identity, named_once

    read = [[name for shard in x for name in shard.files] if isinstance(x, list) else [x] for x in found]
    named_once("splits", (split[0] for split in splits), (frozenset(map(identity, names)) for names in read))
    check_outputs(outputs, [*itertools.chain(*read), *others])


def _names(splits: list[list[str]]) -> list[str]:
    """What the splits are called: the files' stems, or the whole paths where two stems are the same or there are
    several files."""
    paths = [split[0] if len(split) == 1 else f"{split[0]} and {len(split) - 1} more" for split in splits]
    stems = [Path(path).stem for path in paths]
    plain = len(set(stems)) == len(stems) and all(len(split) == 1 and "*" not in split[0] for split in splits)
    return stems if plain else paths
