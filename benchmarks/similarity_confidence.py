"""Features -> DAC's confidence, without the logits in between. The floor is torch's product of the features."""

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

import pyfastcal as fc

from . import data, floors, products
from .harness import Case
from .peaks import Cost

SIZES = (
    (50_000, 512, 1000),
    (256, 512, 1000),
    (2000, 768, 21_841),
    (50_000, 512, 1000, 1000, "bf16"),
    (256, 512, 1000, 1000, "bf16"),
    (2000, 768, 21_841, 21_841, "bf16"),
)
QUICK = ((500, 64, 100),)
# with the number of different weights: few of them go through the scores once; 0: without
GPU_SIZES = (
    (1_000_000, 512, 1000, 2, "bf16"),
    (1_000_000, 512, 1000, 1000, "bf16"),
    (1_000_000, 512, 1000, 0, "bf16"),
    (1_000_000, 768, 1000, 2, "bf16"),
    (256, 512, 1000, 2, "bf16"),
)
GPU_QUICK = ((500, 456, 100, 2, "bf16"), (500, 456, 100, 0, "bf16"), (64, 64, 100, 100, "bf16"))


def work(size: tuple) -> str:
    n, dim, n_classes, *rest = size
    weights, dtype = (f", {f'{rest[0]:,}' if rest[0] else 'no'} weights", f" {rest[1]}") if rest else ("", "")
    return f"features {n:,} x {dim}{dtype}, {n_classes:,} classes{weights} -> DAC confidence"


def case(size: tuple, device: str = "cpu") -> Case:
    n, dim, n_classes, *rest = size
    gpu = bool(rest) and size not in SIZES
    image, text, _ = data.clip_features(n, n_classes, dim, device=device)
    if not rest:
        weight = data.class_weights(n_classes)
        tolerance = agree
    else:
        weight = data.class_weights(n_classes, device=device, distinct=rest[0]) if rest[0] else None
        image, text = (x.to(data.DTYPES[rest[1]]) for x in (image, text))
        tolerance = agree_in_bf16
    graph = n <= 256

    def ours() -> tuple[Tensor, Tensor]:
        return fc.similarity_confidence(image, text, data.LOGIT_SCALE, class_weight=weight)

    return Case(
        ours,
        idiom,
        (image, text, weight),
        tolerance,
        floors=floors.product(image, text, gpu),
        variants=products.variants(ours, dim, device) if gpu else {},
        cost=Cost(2.0 * n * dim * n_classes, image.nbytes + text.nbytes),
        same=agree,
        memory=not rest and size != SIZES[1],
        device=device,
        compile=not rest or (rest[0], dim) == (2, 512),  # the idiom is the same for all weights
        graph=graph,
    )


def idiom(image: Tensor, text: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = data.LOGIT_SCALE * normalize(image, dim=1) @ normalize(text, dim=1).T
    if weight is not None:
        logits = logits * weight[logits.argmax(dim=1)][:, None]
    return tuple(torch.softmax(logits, dim=1).max(dim=1))


def agree(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    same = ours[1] == theirs[1]  # two classes within a rounding of each other may change places
    assert same.float().mean() > 0.999, f"{int((~same).sum())} of {len(same)} predictions differ"
    assert_close(ours[0][same], theirs[0][same], rtol=1e-3, atol=1e-5)


def agree_in_bf16(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """torch rounds normalised features and logits to bf16: logits of 30 are off by a tenth."""
    same = ours[1] == theirs[1]
    assert same.float().mean() > 0.9, f"{int((~same).sum())} of {len(same)} predictions differ"
    error = (ours[0] - theirs[0].float())[same].abs().mean()
    assert error < 0.02, f"confidences are {float(error):.3f} apart"
