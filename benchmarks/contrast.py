"""Features of the tuned and of the zero-shot model -> CAC's z. The floor is torch's two products."""

from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from pyfastcal import ops

from . import data, floors, products
from .harness import Case
from .peaks import Cost

SIZES = ((50_000, 512, 1000), (50_000, 512, 1000, "bf16", False))
QUICK = ((500, 64, 100),)
# last: whether a model is tuned on the text side alone, so that both have the same images
GPU_SIZES = ((500_000, 512, 1000, "bf16", False), (500_000, 512, 1000, "bf16", True))
GPU_QUICK = ((500, 456, 100, "bf16", True),)


def work(size: tuple) -> str:
    n, dim, n_classes, *rest = size
    dtype, same = (f" {rest[0]}", ", the same images" * rest[1]) if rest else ("", "")
    return f"features of two models {n:,} x {dim}{dtype}, {n_classes:,} classes{same} -> CAC z"


def case(size: tuple, device: str = "cpu") -> Case:
    n, dim, n_classes, *rest = size
    gpu = bool(rest) and size not in SIZES
    features = (
        *data.clip_features(n, n_classes, dim, device=device)[:2],
        *data.clip_features(n, n_classes, dim, seed=2, device=device)[:2],
    )
    if rest:
        image, text, zeroshot_image, zeroshot_text = (x.to(data.DTYPES[rest[0]]) for x in features)
        features = (image, text, image if rest[1] else zeroshot_image, zeroshot_text)
    atol = 2e-3 if rest else 1e-6  # torch rounds cosines to bf16

    def ours() -> Tensor:
        return ops.contrast_distance(*features)

    return Case(
        ours,
        idiom,
        features,
        lambda ours, theirs: assert_close(ours, theirs.float(), rtol=1e-4, atol=atol),
        # two products of the same images too: the difference of two texts in 16 bits would be another
        floors=floors.product(*features[:2], gpu, times=2),
        cost=Cost(4.0 * n * dim * n_classes, sum(x.nbytes for x in features)),
        variants=products.variants(ours, dim, device) if gpu else {},
        same=lambda a, b: assert_close(a, b, rtol=1e-4, atol=1e-6),
        device=device,
        compile=device == "cpu",
    )


def idiom(image: Tensor, text: Tensor, zeroshot_image: Tensor, zeroshot_text: Tensor) -> Tensor:
    tuned = normalize(image, dim=1) @ normalize(text, dim=1).T
    zeroshot = normalize(zeroshot_image, dim=1) @ normalize(zeroshot_text, dim=1).T
    return (tuned - zeroshot).abs().mean(dim=1)
