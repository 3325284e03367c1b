"""``pyfastcal demo``."""

from pathlib import Path
from typing import Annotated

import typer

from .app import Bins, Debug, ReportFile, say_written


def demo(
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="Drawings by people: animals, plants-weather, food-drink, transport, buildings-places, house-objects, "
            "tools-office, sports-games, clothing, faces-hands, flags. Or digits, shapes and other tasks of "
            "`pyfastcal experiment`.",
        ),
    ] = "animals",
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, max=100, help="How many runs.  \\[default: 2 of drawings, 5 of others]", show_default=False
        ),
    ] = None,
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

        pyfastcal demo --task food-drink --seeds 5 --out results
    """
    from ..experiment import demo as demonstration
    from ..installation.extras import require_all
    from ..io.paths import check_outputs
    from ..io.progress import ProgressReport
    from ..report import print_report, write_json, write_picture, write_report

    if task not in demonstration.BUNDLED:
        known = ", ".join(demonstration.BUNDLED)
        raise typer.BadParameter(f"must be one of {known}, got {task!r}", param_hint="--task")
    require_all("demo")  # before minutes of work, not after
    page, numbers = report or out / f"{task}.html", out / f"{task}.json"
    in_out = {f"{path.name} of --out": path for path in ((numbers,) if report else (page, numbers))}
    check_outputs({"--report": report, "--picture": picture} | in_out)
    with ProgressReport() as progress:
        result = demonstration.run(task, range(seeds) if seeds else None, n_bins=n_bins, progress=progress)
    written = [write_report(page, result), write_json(numbers, result)]
    if picture:
        written.append(write_picture(picture, result))
    if features:
        written.append(demonstration.save_all_features(out / "features", result))
    print_report(result)
    say_written(*written)
