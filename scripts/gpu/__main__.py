"""Builds, checks and measures everything on a machine with a GPU: one command, no network, some minutes.

    python -m scripts.gpu [--second] [--seconds S] [--only STAGE ...] [--out FOLDER] [--rehearse] [--dry-run]

The first run: build (for this GPU only; where it fails nothing else is begun), ops (each on the GPU against the CPU),
products (on compute capability 9.0: the works that both products can do, by mma.sync and by warpgroups), tests (those
marked gpu), floors (every work of the table in docs/kernels.md: ours, by each product, and its floor), memcheck (every
op at small sizes under compute-sanitizer), peers (the same works again with all contenders, as many as the time is
for). The second: build, failed (the tests that failed in the first), racecheck, ncu (counters of some kernels), repeat
(floors).

Products ends with a verdict: for each work both times, both shares of the rate of torch's product, and which is the
faster. What `auto` takes is decided in csrc/cuda/product/warpgroups/choice.cuh: MeasuredFaster is to be true of an op
where ops and tests pass by both and the verdict is yes. Where ops or products did not succeed, the tests and
measurements after them leave warpgroups out (PYFASTCAL_CUDA_PRODUCT=mma). One op alone: `python -m benchmarks --device
cuda --contenders products --only knn`.

Each has a share of the time. One that fails or takes too long does not stop the others, but the exit code tells; what
was there until then is in FOLDER ($OUT, or build/gpu): log.txt, stages.json, rows.json, tests.jsonl and the like.
Where the machine is sent a copy of the tree without its history, ``--commit`` here first: it writes the commit to
build/commit.json, which must travel too. Where its time is dear, build the CUDA half here and give it to the build
there by PYFASTCAL_CUDA_LIBRARY (setup.py).
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from benchmarks import results
from scripts import ROOT
from scripts.gpu.runner import Record, run_all, summary
from scripts.gpu.stages import BEGUN_BY, COMPARED, FIRST, ROWS, SECOND, Stages, gpu_arch, unruly


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--second", action="store_true", help="the second run")
    parser.add_argument("--before", type=Path, metavar="FILE", default=ROOT / "build/gpu/tests.jsonl", help="of failed")
    parser.add_argument("--seconds", type=float, default=400.0, help="for everything (default %(default)g)")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="these stages of both runs, in this order")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where everything goes")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: all of it, small, on the CPU, and more")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    parser.add_argument("--commit", action="store_true", help="only write down which commit this tree is")
    options = parser.parse_args(arguments)
    if options.commit:
        print(results.write_commit())
        return 0
    arch = gpu_arch()
    if arch is None and not (options.rehearse or options.dry_run):
        print("torch sees no GPU here (--dry-run prints the commands, --rehearse tries them)", file=sys.stderr)
        return 2
    folder = options.out or Path(os.environ.get("OUT") or ROOT / "build/gpu")
    stages = Stages("sm_90a" if options.dry_run and arch is None else arch, folder, options.before).by_name
    names = options.only or (SECOND if options.second else FIRST)
    if options.rehearse:
        stages |= unruly()
        names = options.only or (names[0], *unruly(), *names[1:])
    if unknown := set(names) - set(stages):
        parser.error(f"no stage {', '.join(sorted(unknown))}: {', '.join(stages)}")
    stages = [stages[name] for name in names]
    if options.dry_run:
        for stage in stages:
            print(f"{stage.name} ({stage.budget:.0f} s): {stage.line()}{' -- ' * bool(stage.skip)}{stage.skip}")
        return 0
    for name in set(names) & set(BEGUN_BY):  # what an earlier run left
        (folder / BEGUN_BY[name]).unlink(missing_ok=True)
    record = Record(folder, arch=arch, **results.commit())
    outcomes = run_all(stages, options.seconds, record)
    record.say(f"\n{summary(outcomes)}")
    if arch:
        for rows, into in ((folder / ROWS, results.RESULTS), (folder / COMPARED, results.PRODUCTS)):
            if rows.exists():
                shutil.copyfile(rows, into / results.name_of(results.read(rows)[0]))
    return 0 if all(o.good for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
