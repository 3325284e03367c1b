"""``python -m benchmarks``: measure, print the table, write the results."""

import argparse
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console

from . import (
    bins,
    confidence,
    contrast,
    dac_fit,
    density,
    harness,
    knn,
    knn_sweep,
    memory,
    nll,
    products,
    results,
    shards,
    similarity,
    similarity_confidence,
    small,
    tables,
    temperature,
)

OPS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(confidence, similarity_confidence, similarity, contrast, bins, nll, density, dac_fit, temperature, shards),
        small,
        knn_sweep,
        knn,  # last: its peers take longest on a GPU
    )
}


def sizes_of(module: ModuleType, device: str, quick: bool) -> tuple[tuple, ...]:
    if device == "cuda":
        return module.GPU_QUICK if quick else module.GPU_SIZES
    return module.QUICK if quick else module.SIZES


class Run:
    """What is measured, and the file that it is written to after every work, if any, so that nothing is lost."""

    def __init__(self, stamp: dict[str, Any], path: Path | None = None):
        self.stamp, self.path, self.rows = stamp, path, []
        if path is not None and path.exists():
            before, self.rows = results.read(path)
            if differ := [
                key for key in ("commit", "dirty", "gpu", "cpu", "quick") if before.get(key) != stamp.get(key)
            ]:
                raise ValueError(f"{path} is of another {differ[0]}: {before.get(differ[0])}")
            self.stamp = before

    def add(self, rows: list[harness.Row]) -> None:
        """In place of those of the same work, if it was measured before; not of less in place of more."""
        work = rows[0].work
        if rows[0].seconds is None and any(row.work == work and row.seconds for row in self.rows):
            return
        at = next((i for i, row in enumerate(self.rows) if row.work == work), len(self.rows))
        others = [row for row in self.rows if row.work != work]
        self.rows = [*others[:at], *rows, *others[at:]]
        if self.path is not None:
            results.write(self.rows, self.stamp, self.path)


def measure(
    ops: list[str],
    quick: bool,
    settings: harness.Settings,
    console: Console,
    run: Run,
    device: str = "cpu",
    budget: float = math.inf,
) -> bool:
    """Adds the rows to ``run`` and tells whether all contenders agreed; work on which they did not has no figures.
    ``budget``: seconds after which no more work is begun."""
    agreed = True
    end = time.monotonic() + budget
    place = "cuda" if device == "cuda" and torch.cuda.is_available() else "cpu"
    for op in ops:
        module = OPS[op]
        for size in sizes_of(module, device, quick):
            work = module.work(size)
            if time.monotonic() > end:
                run.add([harness.Row(op, work, "pyfastcal", "ours", note="not measured: out of time")])
                continue
            try:
                with console.status(work):
                    rows = measure_one(op, size, settings, place)
            except RuntimeError as error:  # the other works are still worth measuring
                if device != "cuda" and not isinstance(error, harness.Disagreement):
                    raise
                console.print(f"[red]{work}: {error}[/]")
                rows = [harness.Row(op, work, "pyfastcal", "ours", note=f"failed: {str(error).splitlines()[0]}")]
                agreed = False
            if not rows:
                continue
            agreed &= all(row.seconds is not None for row in rows if row.role == "product")
            run.add(rows)
            console.print(f"[dim]{work}: {tables.short(rows)}[/]", highlight=False)
    return agreed


def measure_one(op: str, size: tuple, settings: harness.Settings, device: str, note: str = "") -> list[harness.Row]:
    """The rows of one work; where a GPU has too little memory, of a quarter of it. None of a work without products to
    compare, where nothing else is asked for."""
    module = OPS[op]
    work = module.work(size)
    rows: list[harness.Row] | None = None
    case = None
    try:
        case = module.case(size, device)
        rows = list(harness.measure(op, work, case, settings)) if case.variants or not settings.products_only else []
    except torch.cuda.OutOfMemoryError:
        if size[0] < 1000:
            raise
    wanted = case is not None and case.memory
    del case
    if device == "cuda":
        torch.cuda.empty_cache()
    if rows is None:
        return measure_one(op, (size[0] // 4, *size[1:]), settings, device, note or f"too little memory for {work}")
    for row in rows:
        row.note = row.note or note
    return rows + (memory.rows(op, work, size) if rows and wanted else [])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="OPS", help=f"some of {','.join(OPS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, no torch.compile: seconds, no targets")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda --quick runs without a GPU too")
    parser.add_argument("--budget", type=float, default=math.inf, help="seconds after which no more work is begun")
    parser.add_argument(
        "--out", type=Path, help="folder of the results file (default benchmarks/results; none if --quick)"
    )
    parser.add_argument("--into", type=Path, metavar="FILE", help="the results file itself; what it holds is added to")
    parser.add_argument(
        "--contenders",
        choices=("all", "floors", "products"),
        default="all",
        help="floors: ours and the floors; products: these of what has two on a GPU of 9.0, and a verdict on them",
    )
    parser.add_argument("--rounds", type=int, help="rounds to take the median of")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where a target does not hold")
    parser.add_argument("--markdown", action="store_true", help="print the newest results as Markdown; measure nothing")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    if options.markdown:
        newest = results.newest(options.out or results.RESULTS, options.device)
        if newest is None:
            console.print("no complete results yet: run python -m benchmarks first")
            return 1
        print(tables.markdown(small.others(newest[1]), newest[0]))
        return 0
    only = options.only.split(",") if options.only else []
    if unknown := set(only) - set(OPS):
        parser.error(f"--only takes some of {','.join(OPS)}, got {','.join(sorted(unknown))}")
    settings = {"cpu": harness.Settings(), "cuda": harness.GPU_SETTINGS}[options.device]
    if options.quick:
        settings = harness.QUICK_SETTINGS
    comparing = options.contenders == "products"
    settings = replace(settings, peers=options.contenders == "all", products_only=comparing)
    if options.rounds:
        settings = replace(settings, rounds=options.rounds)
    if options.device == "cuda" and not torch.cuda.is_available() and not options.quick:
        parser.error("--device cuda needs a GPU that torch sees (or --quick)")
    place = "cuda" if options.device == "cuda" and torch.cuda.is_available() else "cpu"
    stamp = results.stamp(place, quick=options.quick, only=only, rounds=settings.rounds)
    path = options.into
    if path is None and (options.out or not options.quick):
        path = (options.out or results.RESULTS) / results.name_of(stamp)
        path.unlink(missing_ok=True)
    run = Run(stamp, path)
    ops = only or (list(products.OPS) if comparing else list(OPS))
    agreed = measure(ops, options.quick, settings, console, run, options.device, options.budget)
    output = Console()
    output.print(tables.headline(run.stamp))
    output.print(tables.terminal(small.others(run.rows)))
    if sweep := small.grids(run.rows):
        print(f"The time of the torch idiom over ours, by rows and classes:\n\n{sweep}")
    if sweep := knn_sweep.grids(run.rows):
        print(f"The time of the torch idiom over ours, by queries and neighbours:\n\n{sweep}")
    if comparing:
        print(tables.verdict(run.rows))
    if path is not None:
        console.print(f"written to {path}")
    missed = [row for row in run.rows if row.holds is False]
    if missed:
        console.print(f"{len(missed)} targets do not hold in this run")
    return 1 if not agreed or (missed and options.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
