"""``python -m benchmarks``: measure, print the table, write the results."""

import argparse
import sys
from pathlib import Path
from types import ModuleType

from rich.console import Console

from . import (
    bins,
    confidence,
    contrast,
    dac_fit,
    density,
    harness,
    knn,
    memory,
    results,
    shards,
    similarity_confidence,
    tables,
    temperature,
)

OPS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (confidence, similarity_confidence, knn, dac_fit, bins, contrast, temperature, density, shards)
}


def measure(
    ops: list[str], quick: bool, settings: harness.Settings, console: Console
) -> tuple[list[harness.Row], bool]:
    """The rows, and whether all contenders agreed; work on which they did not has none."""
    rows: list[harness.Row] = []
    agreed = True
    for op in ops:
        module = OPS[op]
        for size in module.QUICK if quick else module.SIZES:
            work = module.work(size)
            with console.status(work):
                case = module.case(size)
                try:
                    rows += harness.measure(op, work, case, settings)
                except harness.Disagreement as error:
                    console.print(f"[red]{error}[/]")
                    agreed = False
                    continue
                wanted = case.memory
                del case
                if wanted:
                    rows += memory.rows(op, work, size)
            console.print(f"[dim]{work}: done[/]")
    return rows, agreed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="OPS", help=f"some of {','.join(OPS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, no torch.compile: seconds, no targets")
    parser.add_argument(
        "--out", type=Path, help="folder of the results file (default benchmarks/results; none if --quick)"
    )
    parser.add_argument("--rounds", type=int, help="rounds to take the median of")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where a target does not hold")
    parser.add_argument("--markdown", action="store_true", help="print the newest results as Markdown; measure nothing")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    if options.markdown:
        newest = results.newest(options.out or results.RESULTS)
        if newest is None:
            console.print("no complete results yet: run python -m benchmarks first")
            return 1
        print(tables.markdown(newest[1], newest[0]))
        return 0
    only = options.only.split(",") if options.only else []
    if unknown := set(only) - set(OPS):
        parser.error(f"--only takes some of {','.join(OPS)}, got {','.join(sorted(unknown))}")
    settings = harness.QUICK_SETTINGS if options.quick else harness.Settings()
    if options.rounds:
        settings.rounds = options.rounds
    stamp = results.stamp(quick=options.quick, only=only, rounds=settings.rounds)
    rows, agreed = measure(only or list(OPS), options.quick, settings, console)
    output = Console()
    output.print(tables.headline(stamp))
    output.print(tables.terminal(rows))
    if options.out or not options.quick:
        console.print(f"written to {results.write(rows, stamp, options.out or results.RESULTS)}")
    missed = [row for row in rows if row.holds is False]
    if missed:
        console.print(f"{len(missed)} targets do not hold in this run")
    return 1 if not agreed or (missed and options.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
