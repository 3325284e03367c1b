"""Neighbours and DAC's weights of a real CLIP's text features, in place of drawn ones:
``python -m benchmarks.real_text --features ImageNet=heads.safetensors:text_features+text_features2``.

A file holds text features (C, D), normalised or not; the key behind a plus those of the same classes after tuning. The
first half of the classes is base. Neighbours: of the new classes among the base ones, of all among all."""

import argparse
import sys
from collections.abc import Iterator

import torch
from rich.console import Console
from torch import Tensor
from torch.nn.functional import normalize

from pyfastcal.io.features import read_fields

from . import dac_fit, harness, knn, results, tables
from .harness import Case

K = 5
NEAR = 2e-3  # what is left of a difference of nearly equal rows in torch's cdist, which goes by products: of 0, 7e-4


def features_of(text: str) -> tuple[str, list[Tensor]]:
    """Of ``NAME=FILE:KEY[+KEY]``: the name, and unit features in fp32."""
    name, _, where = text.partition("=")
    file, _, keys = where.rpartition(":")
    if not (name and file and keys):
        raise argparse.ArgumentTypeError(f"must be NAME=FILE:KEY[+KEY], got {text!r}")
    try:
        found = read_fields(file, keys.split("+"), [])
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name, [normalize(found[key].float(), dim=1) for key in keys.split("+")]


def cases(name: str, heads: list[Tensor]) -> Iterator[tuple[str, Case]]:
    zeroshot, tuned = heads[0], heads[-1]
    half = len(zeroshot) // 2
    for what, queries, bank in (("new among base", zeroshot[half:], zeroshot[:half]), ("all", zeroshot, zeroshot)):
        yield f"knn, {name}, {what}: {len(queries):,} x {len(bank):,}, K={K}", knn.of_rows(queries, bank, K, NEAR)
    if len(heads) > 1:
        parts = (tuned[half:], zeroshot[half:], tuned[:half], zeroshot[:half])
        yield f"DAC fit, {name}: {half:,} base, {len(tuned) - half:,} classes", dac_fit.of_features(parts, K)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_text", description=__doc__)
    parser.add_argument("--features", metavar="NAME=FILE:KEY[+KEY]", type=features_of, action="append", required=True)
    parser.add_argument("--quick", action="store_true", help="few rounds, no torch.compile")
    options = parser.parse_args(arguments)
    settings = harness.QUICK_SETTINGS if options.quick else harness.Settings()
    rows, agreed, errors = [], True, Console(stderr=True)
    for name, heads in options.features:
        for work, case in cases(name, heads):
            with errors.status(work):
                try:
                    rows += harness.measure("real text", work, case, settings)
                except harness.Disagreement as error:
                    errors.print(f"[red]{work}: {error}[/]")
                    agreed = False
    output = Console()
    output.print(tables.headline(results.stamp("cpu", quick=options.quick)))
    output.print(tables.terminal(rows))
    return 0 if agreed else 1


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
