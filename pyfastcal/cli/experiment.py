"""``pyfastcal experiment``."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import Bins, Debug, Device, Precision, Pretrained, Workers, names_in, say_written


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
            help="Bundled tasks or groups, with commas, or all: drawings (animals, plants-weather, food-drink, "
            "transport, buildings-places, house-objects, tools-office, sports-games, clothing, faces-hands, flags), "
            "small (digits, shapes, shapes-clean, shapes-dark, shapes-blurry, shapes-noisy, shapes-faded).  "
            "\\[default: small]",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="Bundled CLIPs to run the tasks on, with commas, or all that they have. Default: each task's own."
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
        int | None,
        typer.Option(min=1, help="At most so many. Default: the published; on drawings what 1500 steps have room for."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: the processor's cores; 1 with --data.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A folder of images, one sub-folder per class, instead of bundled tasks."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The CLIP for --data: any model of open_clip, hf-hub:...")] = None,
    pretrained: Pretrained = None,
    base_classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Base classes, one per line. Default: the first half of the folders, as in the papers."
        ),
    ] = None,
    template: Annotated[str, typer.Option(help="Zero-shot prompt for --data.")] = "a photo of a {}.",
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at a time.")] = 256,
    workers: Workers = 0,
    device: Device = "cpu",
    precision: Precision = "fp32",
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
    from .. import experiment as experiments
    from ..clip.extract import read_names
    from ..experiment import page
    from ..installation.extras import require_all
    from ..io.paths import check_outputs
    from ..io.progress import ProgressReport

    require_all("demo")
    chosen = experiments.check_learners(names_in(learners))
    names = "results.json", "ablations.json", "report.html", "experiment.json"
    check_outputs({f"{name} of --out": out / name for name in names}, [base_classes, pretrained])
    if any(path.resolve() in (out.resolve(), *out.resolve().parents) for path in data or ()):
        raise typer.BadParameter("must not be in the folder of the images", param_hint="--out")
    sources: list[Any] = []
    if data:
        if tasks is not None or models is not None:
            raise typer.BadParameter(
                "bundled tasks have models of their own: give either", param_hint="--tasks, --models, --data"
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
        sources = list(experiments.bundled(names_in(tasks or "small"), names_in(models) if models else None))
    few = () if few_shot_learners == "none" else names_in(few_shot_learners)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ProgressReport() as progress:
        results = experiments.run(
            out,
            sources,
            chosen,
            range(seeds),
            methods=names_in(methods),
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
    say_written(out / "results.json", out / "ablations.json", report)
