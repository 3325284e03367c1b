"""Features -> DAC's confidence, without the logits in between. The floor is torch's product of the features."""

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

import pyfastcal as fc

from . import data
from .harness import Case, Floor

SIZES = ((50_000, 512, 1000), (256, 512, 1000))
QUICK = ((500, 64, 100),)


def work(size: tuple[int, int, int]) -> str:
    n, dim, n_classes = size
    return f"features {n:,} x {dim}, {n_classes:,} classes -> DAC confidence"


def case(size: tuple[int, int, int]) -> Case:
    n, dim, n_classes = size
    image, text, _ = data.clip_features(n, n_classes, dim)
    weight = data.class_weights(n_classes)
    return Case(
        lambda: fc.similarity_confidence(image, text, data.LOGIT_SCALE, class_weight=weight),
        idiom,
        (image, text, weight),
        agree,
        floors={"torch GEMM": Floor(lambda: image @ text.T)},
        memory=size != SIZES[1],
    )


def idiom(image: Tensor, text: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    logits = data.LOGIT_SCALE * normalize(image, dim=1) @ normalize(text, dim=1).T
    factor = weight[logits.argmax(dim=1)]
    return tuple(torch.softmax(logits * factor[:, None], dim=1).max(dim=1))


def agree(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    same = ours[1] == theirs[1]  # two classes within a rounding of each other may change places
    assert same.float().mean() > 0.999, f"{int((~same).sum())} of {len(same)} predictions differ"
    assert_close(ours[0][same], theirs[0][same], rtol=1e-3, atol=1e-5)
