"""The ops that multiply features, by each product that a GPU has (PYFASTCAL_CUDA_PRODUCT), as they are chosen there.

On a GPU that is not of compute capability 9.0 both names mean the same product.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from benchmarks import products
from pyfastcal import ops

from ..devices import moved, needs_gpu
from .cases import normal, weights

BF16, FP16 = torch.bfloat16, torch.float16
PRODUCTS = products.to_compare()
DEPTH, ROWS = 520, 300  # above 448; three tiles of rows

Result = tuple[Tensor, ...]


class Case(NamedTuple):
    """``call(*rows, *others)``: a result has an entry for each of the rows."""

    call: Callable[..., Result]
    rows: tuple[Tensor, ...]
    others: tuple[Tensor | None, ...]
    compare: Callable[["Case", Result, Result], None]  # of what may differ by rounding

    def on_gpu(self) -> tuple[Result, Result]:
        return moved("cuda", self.rows), moved("cuda", self.others)


def features(n: int, seed: int, dtype: torch.dtype, dim: int = DEPTH) -> Tensor:
    return normal(seed, n, dim).to(dtype)


def confidence(image: Tensor, factor: Tensor, text: Tensor, weight: Tensor | None, bias: Tensor | None) -> Result:
    return ops.similarity_confidence(image, text, 20.0, logit_bias=bias, class_weight=weight, sample_weight=factor)


def contrast(on: str) -> Callable[..., Result]:
    return lambda image, image0, text, text0: (ops.contrast_distance(image, text, image0, text0, on=on),)


def contrast_of_the_same_images(image: Tensor, text: Tensor, text0: Tensor) -> Result:
    return (ops.contrast_distance(image, text, image, text0),)


def similarity(image: Tensor, text: Tensor) -> Result:
    return (ops.similarity(image, text),)


def nearest(queries: Tensor, bank: Tensor) -> Result:
    return ops.knn(queries, bank, 10)


def same_but_for_ties(case: Case, ours: Result, theirs: Result) -> None:
    """Predictions differ only where both logits are the largest but for rounding; then factors may differ too."""
    image, text = (normalize(x.double(), dim=1) for x in (case.rows[0], case.others[0]))
    bias = case.others[2]
    logits = 20 * image @ text.T + (0 if bias is None else bias.double())
    for _, prediction in (ours, theirs):
        behind = logits.amax(1) - logits.gather(1, prediction[:, None])[:, 0]
        assert behind.max() <= 64 * 2.0**-23 * logits.abs().max()
    same = ours[1] == theirs[1]
    assert_close(ours[0][same], theirs[0][same], rtol=1e-4, atol=1e-6)


def close(atol: float, rtol: float = 0) -> Callable[[Case, Result, Result], None]:
    return lambda case, ours, theirs: assert_close(ours, theirs, rtol=rtol, atol=atol)


def confidence_case(
    classes: int, distinct: int, n: int = ROWS, dtype: torch.dtype = BF16, dim: int = DEPTH, biased: bool = False
) -> Case:
    rows = features(n, 0, dtype, dim), torch.linspace(0.9, 1.1, n)
    weight = weights(2, distinct)[torch.arange(classes) % distinct] if distinct else None
    bias = normal(3, classes) if biased else None
    return Case(confidence, rows, (features(classes, 1, dtype, dim), weight, bias), same_but_for_ties)


# So few rows that blocks share out their classes.
CASES = {
    "confidence": confidence_case(700, 0),
    "confidence, 2 weights": confidence_case(129, 2, dtype=FP16),
    "confidence, 4 weights, bias": confidence_case(333, 4, dim=456, biased=True),
    "confidence, many weights": confidence_case(656, 656),
    "contrast on similarity": Case(
        contrast("similarity"),
        (features(ROWS, 0, BF16), features(ROWS, 1, BF16)),
        (features(270, 2, BF16), features(270, 3, BF16)),
        close(1e-6, 1e-4),
    ),
    "contrast on probability": Case(
        contrast("probability"),
        (features(ROWS, 0, FP16, 776), features(ROWS, 1, FP16)),
        (features(270, 2, FP16, 776), features(270, 3, FP16)),
        close(1e-6, 1e-4),
    ),
    "contrast of the same images": Case(
        contrast_of_the_same_images,
        (features(ROWS, 0, BF16),),
        (features(270, 1, BF16), features(270, 2, BF16)),
        close(1e-6, 1e-4),
    ),
    "similarity": Case(similarity, (features(ROWS, 0, BF16),), (features(270, 1, BF16),), close(2e-6)),
    "knn": Case(nearest, (features(ROWS, 0, BF16),), (features(2000, 1, BF16),), close(0)),
    "knn of fp32": Case(nearest, (features(ROWS, 0, torch.float32),), (normal(1, 2000, DEPTH),), close(0)),
}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_product = pytest.mark.parametrize("product", PRODUCTS)


def results(case: Case, product: str) -> Result:
    rows, others = case.on_gpu()
    return moved("cpu", products.by(product, case.call)(*rows, *others))


def assert_same_bits(ours: Result, theirs: Result) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


@needs_gpu
@each_case
@each_product
def test_as_on_the_cpu_and_the_same_bits_again(case, product):
    ours = results(case, product)
    expected = case.call(*case.rows, *case.others)
    if case.call is nearest:
        assert_close(ours[0], expected[0], rtol=3e-7, atol=0)
        assert torch.equal(ours[1], expected[1])
    else:
        case.compare(case, ours, expected)
    for _ in range(3):
        assert_same_bits(results(case, product), ours)


def assert_products_agree(case: Case) -> None:
    by_warps, by_warpgroups = results(case, "mma"), results(case, "wgmma")
    if products.on_hopper():
        case.compare(case, by_warpgroups, by_warps)
    else:
        assert_same_bits(by_warpgroups, by_warps)


both = pytest.mark.skipif(len(PRODUCTS) < 2, reason=f"{products.VARIABLE} forces one product")


@needs_gpu
@both
@each_case
def test_products_agree(case):
    assert_products_agree(case)


@needs_gpu
@both
@pytest.mark.parametrize("distinct", [0, 2, 3, 300])
def test_products_agree_of_blocks_with_several_tiles_of_rows(distinct):
    """On 132 multiprocessors three at most; the last rows' bits are those of a small batch."""
    case = confidence_case(300, distinct, n=40_000, dim=456)
    assert_products_agree(case)
    few = case._replace(rows=tuple(x[-130:] for x in case.rows))
    for product in PRODUCTS:
        assert_same_bits(results(few, product), tuple(x[-130:] for x in results(case, product)))


@needs_gpu
@each_case
@each_product
def test_within_a_graph(case, product):
    """Captured with one product, which its replays keep, and fed with other rows."""
    rows, others = case.on_gpu()
    fed = moved("cuda", tuple(torch.zeros_like(x) + 1 for x in rows))
    call = products.by(product, case.call)
    expected = call(*rows, *others)
    call(*fed, *others)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(*fed, *others)
    for static, x in zip(fed, rows, strict=True):
        static.copy_(x)
    for _ in range(2):
        graph.replay()
        assert_same_bits(out, expected)


@needs_gpu
@each_case
@each_product
def test_a_row_does_not_depend_on_its_batch(case, product):
    rows, others = case.on_gpu()
    call = products.by(product, case.call)
    whole = call(*rows, *others)
    for size in (1, 37, 129):
        parts = [call(*part, *others) for part in zip(*(x.split(size) for x in rows), strict=True)]
        assert_same_bits(tuple(torch.cat(of) for of in zip(*parts, strict=True)), whole)


@needs_gpu
@each_case
@each_product
def test_on_two_streams(case, product):
    """Two batches under way at the same time, again and again, each on a stream of its own."""
    rows, others = case.on_gpu()
    batches = rows, tuple(x.flip(0) for x in rows)
    call = products.by(product, case.call)
    expected = [call(*batch, *others) for batch in batches]
    streams = [torch.cuda.Stream() for _ in batches]
    torch.cuda.synchronize()
    out = []
    for _ in range(5):
        for stream, batch, wanted in zip(streams, batches, expected, strict=True):
            with torch.cuda.stream(stream):
                out.append((call(*batch, *others), wanted))
    torch.cuda.synchronize()
    for found, wanted in out:
        assert_same_bits(found, wanted)
