"""Features of the tuned and of the zero-shot model -> CAC's z. The floor is torch's two products."""

from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from pyfastcal import ops

from . import data, floors
from .harness import Case, Floor

SIZES = ((50_000, 512, 1000),)
QUICK = ((500, 64, 100),)
GPU_SIZES = ((500_000, 512, 1000, "bf16"),)
GPU_QUICK = ((500, 64, 100, "bf16"),)


def work(size: tuple) -> str:
    n, dim, n_classes, *dtype = size
    return f"features of two models {n:,} x {' '.join([str(dim), *dtype])}, {n_classes:,} classes -> CAC z"


def case(size: tuple, device: str = "cpu") -> Case:
    n, dim, n_classes, *dtype = size
    features = (
        *data.clip_features(n, n_classes, dim, device=device)[:2],
        *data.clip_features(n, n_classes, dim, seed=2, device=device)[:2],
    )
    if dtype:
        features = tuple(x.to(data.DTYPES[dtype[0]]) for x in features)
        floor = {"GEMM rate": floors.gemm(4.0 * n * dim * n_classes, device)}
    else:
        image, text, zeroshot_image, zeroshot_text = features
        floor = {"torch GEMM": Floor(lambda: (image @ text.T, zeroshot_image @ zeroshot_text.T))}
    atol = 2e-3 if dtype else 1e-6  # torch rounds cosines to bf16
    return Case(
        lambda: ops.contrast_distance(*features),
        idiom,
        features,
        lambda ours, theirs: assert_close(ours, theirs.float(), rtol=1e-4, atol=atol),
        floors=floor,
        device=device,
        compile=device == "cpu",
    )


def idiom(image: Tensor, text: Tensor, zeroshot_image: Tensor, zeroshot_text: Tensor) -> Tensor:
    tuned = normalize(image, dim=1) @ normalize(text, dim=1).T
    zeroshot = normalize(zeroshot_image, dim=1) @ normalize(zeroshot_text, dim=1).T
    return (tuned - zeroshot).abs().mean(dim=1)
