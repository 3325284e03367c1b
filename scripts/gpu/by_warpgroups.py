"""The ops whose product may be that by warpgroups, made to take it: cases for ``ops``, and whether its kernels ran.

On a GPU that is not of compute capability 9.0 they take the other product, and on the CPU there is one.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks import products
from pyfastcal import ops
from scripts.gpu.compare import Case, Result, close, close_but_for_ties, close_cosines, nearest, normal

BF16, FP16 = torch.bfloat16, torch.float16
# Few rows share out their classes among blocks; this many give a block more than one tile of rows, where there are no
# more than 132 multiprocessors, as on all of 9.0.
MANY_ROWS = 133 * 128 - 70


def cases() -> Iterator[Case]:
    """As ``ops.cases``."""
    for name, call, compare in itertools.chain(features(), contrasts(), neighbours()):
        yield f"{name}, by warpgroups", products.by("wgmma", call), compare


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def to(device: str, *tensors: Tensor | None) -> tuple[Any, ...]:
    return tuple(x if x is None else x.to(device) for x in tensors)


def features() -> Iterator[Case]:
    # depth 459: rows that are copied; distinct class weights: 0 without; padding: columns between rows read in place
    for dtype, n, dim, classes, distinct, biased, padding in (
        (BF16, 300, 456, 700, 0, False, 0),
        (FP16, 129, 776, 256, 2, False, 0),
        (BF16, 64, 512, 129, 3, True, 8),
        (FP16, 1, 459, 1, 1, False, 0),
        (BF16, 150, 520, 650, 650, True, 0),
        (BF16, MANY_ROWS, 456, 270, 4, False, 0),
        (FP16, MANY_ROWS, 520, 270, 270, False, 0),
    ):
        image, text = normal(n, dim + padding, dtype=dtype), normal(classes, dim, seed=1, dtype=dtype)
        weight = 0.5 + torch.arange(classes) % distinct / classes if distinct else None
        bias = normal(classes, seed=2) if biased else None
        factor = torch.linspace(0.9, 1.1, n)

        def similarity_confidence(device: str, of=(image, text, bias, weight, factor), dim=dim) -> Result:
            image, text, bias, weight, factor = to(device, *of)
            return ops.similarity_confidence(
                image[:, :dim], text, 20.0, logit_bias=bias, class_weight=weight, sample_weight=factor
            )

        weights = f"{distinct} weights" + ", a bias" * biased
        yield (
            f"similarity_confidence, {n} x {dim}, {classes} classes, {weights}, {dtype}",
            similarity_confidence,
            close_but_for_ties,
        )
        if n == MANY_ROWS:
            continue

        def similarity(device: str, of=(image, text), dim=dim) -> Result:
            image, text = to(device, *of)
            return (ops.similarity(image[:, :dim], text),)

        yield f"similarity, {n} x {dim}, {classes} classes, {dtype}", similarity, close_cosines


def contrasts() -> Iterator[Case]:
    for dtype, n, dim, zeroshot_dim, classes, same in (
        (BF16, 140, 456, 500, 300, False),
        (FP16, 70, 776, 776, 130, True),
        (BF16, 9, 512, 64, 33, False),
    ):
        image, text = normal(n, dim, dtype=dtype), normal(classes, dim, seed=1, dtype=dtype)
        image0 = None if same else normal(n, zeroshot_dim, seed=2, dtype=dtype)
        text0 = normal(classes, zeroshot_dim, seed=3, dtype=dtype)
        for on in ("similarity", "probability"):

            def contrast(device: str, of=(image, text, image0, text0), on=on) -> Result:
                image, text, image0, text0 = to(device, *of)
                image0 = image if image0 is None else image0
                return (ops.contrast_distance(image, text, image0, text0, on=on, logit_scale=20.0),)

            images = ", the same images" * same
            yield f"contrast_distance on {on}, {n} x {dim} and {zeroshot_dim}{images}, {dtype}", contrast, close


def neighbours() -> Iterator[Case]:
    copies = normal(900, 456, seed=4)
    copies[100:800] = copies[3]
    spoilt = normal(140, 456, seed=5)
    spoilt[7, 3] = torch.nan
    spoilt[9] *= 1e30
    # nearer and nearer to what all queries are around, of which there are so many that a block has some four tiles:
    # every row passes, and lists fill up in each tile
    centre, angle = unit(normal(456, seed=8)), torch.linspace(1.5, 0.2, 1500)[:, None]
    across = normal(1500, 456, seed=9)
    across = unit(across - (across @ centre)[:, None] * centre)
    around, towards = centre + 0.01 * normal(34 * 128, 456, seed=10), angle.cos() * centre + angle.sin() * across
    for name, queries, bank, k, options in (
        ("fp32", normal(130, 520, seed=6), normal(600, 520, seed=7), 10, {}),
        ("bf16", normal(3, 776, seed=6, dtype=BF16), normal(900, 776, seed=7, dtype=BF16), 128, {}),
        ("fp16 as it is", normal(9, 456, seed=6).half(), normal(300, 456, seed=7).half(), 1, {"normalize": False}),
        ("fp32 as it is", normal(9, 459, seed=6), normal(300, 459, seed=7), 5, {"normalize": False}),
        ("without oneself", normal(140, 456), normal(140, 456), 139 - 12, {"exclude_self": True}),
        ("of copies", copies[:4].clone(), copies, 5, {}),
        ("of copies in bf16", copies[:4].to(BF16), copies.to(BF16), 5, {"normalize": False}),
        ("of rows that are not finite", normal(20, 456), spoilt, 3, {}),
        ("of lists that fill up", around.to(BF16), towards.to(BF16), 4, {}),
    ):

        def knn(device: str, of=(queries, bank), k=k, options=options) -> Result:
            choice = options.get("exclude_self", False), options.get("normalize", True)
            return torch.ops.pyfastcal.knn(*to(device, *of), k, *choice)

        yield f"knn, {name}", knn, nearest


def check_kernels(device: str) -> str:
    """Looks with torch's profiler which kernels run, and says so; AssertionError where it is not as it should be."""
    if device != "cuda" or not products.on_hopper():
        return "not looked at: no GPU of compute capability 9.0"
    for name, call, _ in (*itertools.islice(features(), 2), next(contrasts()), next(neighbours())):
        for product, wanted in (("mma", False), ("wgmma", True)):
            seen = kernels(products.by(product, call))
            if not seen:
                return "not looked at: torch's profiler sees no kernels here"
            found = any("by_warpgroups" in kernel for kernel in seen)
            assert found == wanted, f"{name}, {product}: {', '.join(sorted(seen))}"
    return "those of the product that was asked for"


def kernels(call: Callable[[str], Any]) -> set[str]:
    """The names of what a call runs on the GPU."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    call("cuda")  # what runs at a first call only
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        call("cuda")
        torch.cuda.synchronize()
    return {event.name for event in seen.events() if event.device_type == DeviceType.CUDA}
