"""Calls every op on small inputs at the borders of its kernels and compares with the CPU, to the bit where that is
promised; a second call must give the same bits as the first. Also what compute-sanitizer watches.

    python -m scripts.gpu.ops [--device cuda] [--kernels]

Inputs are made on the CPU and results compared there, so that on the GPU hardly any kernels run but pyfastcal's.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator

import torch

import pyfastcal as fc
from pyfastcal import ops
from scripts.gpu import by_warpgroups
from scripts.gpu.compare import Case, Result, close, close_cosines, equal, nearest, normal

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def cases() -> Iterator[Case]:
    for dtype, classes in itertools.product(DTYPES, (1, 33, 1000, 5000)):
        logits = normal(37, classes, dtype=dtype) * 10
        weight, factor = torch.linspace(0.5, 1, classes), torch.linspace(0.9, 1.1, 37)

        def confidence(device: str, logits=logits, weight=weight, factor=factor) -> Result:
            logits, weight, factor = (x.to(device) for x in (logits, weight, factor))
            return ops.confidence(logits, class_weight=weight, sample_weight=factor)

        yield f"confidence, {classes} classes, {dtype}", confidence, close

        labels = torch.arange(37) * 7 % classes

        def nll(device: str, logits=logits, labels=labels) -> Result:
            return (ops.nll(logits.to(device), labels.to(device), 0.7),)

        yield f"nll, {classes} classes, {dtype}", nll, close

    for n_queries, n_points in ((1, 1), (70, 1500), (5, 9000)):
        queries, points = 3 * normal(n_queries, 2), normal(n_points, 2, seed=1)
        width = torch.tensor([0.2, 0.1], dtype=torch.float64)

        def density(device: str, queries=queries, points=points, width=width) -> Result:
            return (ops.log_density(*(x.to(device) for x in (queries, points, width))),)

        yield f"log_density of {n_points} points at {n_queries} queries", density, close

    for n, groups in ((1, 1), (5000, 1), (5000, 40), (3000, 3000)):
        confidences = torch.rand(n, generator=torch.Generator().manual_seed(1))
        correct, group = confidences > 0.4, torch.arange(n) * 7 % groups

        def bins(device: str, x=confidences, correct=correct, group=group, groups=groups) -> Result:
            x, correct, group = (t.to(device) for t in (x, correct, group))
            return (ops.fixed_point_bin_counts(x, correct, 15, group=group, n_groups=groups),)

        yield f"bins, {n} confidences, {groups} groups", bins, equal

    for dtype, (n, dim, classes, distinct) in itertools.product(
        DTYPES, ((130, 40, 300, 2), (5, 65, 1, 1), (70, 24, 257, 257))
    ):
        image, text = normal(n, dim, dtype=dtype), normal(classes, dim, seed=1, dtype=dtype)
        weight = 0.5 + torch.arange(classes) % distinct / classes

        def similarity_confidence(device: str, image=image, text=text, weight=weight) -> Result:
            image, text, weight = (x.to(device) for x in (image, text, weight))
            return ops.similarity_confidence(image, text, 20.0, class_weight=weight)

        yield f"similarity_confidence, {n} x {dim}, {classes} classes, {dtype}", similarity_confidence, close

        def similarity(device: str, image=image, text=text) -> Result:
            return (ops.similarity(image.to(device), text.to(device)),)

        yield f"similarity, {n} x {dim}, {classes} classes, {dtype}", similarity, close_cosines

    for dtype, on in itertools.product(DTYPES, ("similarity", "probability")):
        features = (
            normal(70, 24, dtype=dtype),
            normal(300, 24, seed=1, dtype=dtype),
            normal(70, 40, seed=2, dtype=dtype),
            normal(300, 40, seed=3, dtype=dtype),
        )

        def contrast(device: str, features=features, on=on) -> Result:
            return (ops.contrast_distance(*(x.to(device) for x in features), on=on, logit_scale=20.0),)

        yield f"contrast_distance on {on}, {dtype}", contrast, close

    copies = normal(900, 16, seed=4)
    copies[100:800] = copies[3]
    spoilt = normal(40, 16, seed=5)
    spoilt[7, 3] = torch.nan
    for name, queries, bank, k, options in (
        ("fp32", normal(130, 33, seed=6), normal(600, 33, seed=7), 10, {}),
        ("bf16", normal(3, 64, seed=6, dtype=torch.bfloat16), normal(900, 64, seed=7, dtype=torch.bfloat16), 128, {}),
        ("fp16", normal(9, 16, seed=6).half(), normal(300, 16, seed=7).half(), 1, {"normalize": False}),
        ("fp32 as it is", normal(9, 200, seed=6), normal(300, 200, seed=7), 5, {"normalize": False}),
        ("without oneself", normal(140, 16), normal(140, 16), 139 - 12, {"exclude_self": True}),
        ("of copies", copies[:4].clone(), copies, 5, {}),
        ("of rows that are not finite", normal(20, 16), spoilt, 3, {}),
    ):

        def knn(device: str, queries=queries, bank=bank, k=k, options=options) -> Result:
            return torch.ops.pyfastcal.knn(
                queries.to(device),
                bank.to(device),
                k,
                options.get("exclude_self", False),
                options.get("normalize", True),
            )

        yield f"knn, {name}", knn, nearest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--kernels", action="store_true", help="look which kernels run too, with torch's profiler")
    options = parser.parse_args()
    device = options.device
    info = fc.build_info()
    problem = info["problem"] or (info["cuda_problem"] if device == "cuda" else None)
    if problem:
        print(f"no kernels: {problem}", file=sys.stderr)
        return 1
    failed = 0
    for name, call, compare in itertools.chain(cases(), by_warpgroups.cases()):
        print(name, end=": ", flush=True)  # before: whatever ends the run, the log says which it was
        try:
            first, second = (tuple(x.cpu() for x in call(device)) for _ in range(2))
            compare(first, call("cpu"))
            equal(second, first)
        except (AssertionError, RuntimeError) as error:
            failed += 1
            print(error, flush=True)
        else:
            print("ok", flush=True)
    if options.kernels:
        print("kernels", end=": ", flush=True)
        try:
            print(by_warpgroups.check_kernels(device))
        except (AssertionError, RuntimeError) as error:
            failed += 1
            print(error)
    print(f"{failed} calls differ" if failed else "all as on the CPU")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
