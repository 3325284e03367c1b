"""Features of the tuned and of the zero-shot model -> CAC's z. The floor is torch's two products."""

from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from pyfastcal import ops

from . import data
from .harness import Case, Floor

SIZES = ((50_000, 512, 1000),)
QUICK = ((500, 64, 100),)


def work(size: tuple[int, int, int]) -> str:
    n, dim, n_classes = size
    return f"features of two models {n:,} x {dim}, {n_classes:,} classes -> CAC z"


def case(size: tuple[int, int, int]) -> Case:
    n, dim, n_classes = size
    image, text, _ = data.clip_features(n, n_classes, dim)
    zeroshot_image, zeroshot_text, _ = data.clip_features(n, n_classes, dim, seed=2)
    features = (image, text, zeroshot_image, zeroshot_text)
    return Case(
        lambda: ops.contrast_distance(*features),
        idiom,
        features,
        lambda ours, theirs: assert_close(ours, theirs, rtol=1e-4, atol=1e-6),
        floors={"torch GEMM": Floor(lambda: (image @ text.T, zeroshot_image @ zeroshot_text.T))},
    )


def idiom(image: Tensor, text: Tensor, zeroshot_image: Tensor, zeroshot_text: Tensor) -> Tensor:
    tuned = normalize(image, dim=1) @ normalize(text, dim=1).T
    zeroshot = normalize(zeroshot_image, dim=1) @ normalize(zeroshot_text, dim=1).T
    return (tuned - zeroshot).abs().mean(dim=1)
