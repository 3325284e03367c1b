"""Features -> the cosines of all images and classes, fp32. The floor is torch's product of the features; on a GPU
also the bytes: both run at once there, so the larger of the two is the bound."""

from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from pyfastcal import ops

from . import data, floors, products
from .harness import Case
from .peaks import Cost

SIZES = ((50_000, 512, 1000), (50_000, 512, 1000, "bf16"))
QUICK = ((500, 64, 100),)
GPU_SIZES = ((1_000_000, 512, 1000, "bf16"),)
GPU_QUICK = ((500, 456, 100, "bf16"),)


def work(size: tuple) -> str:
    n, dim, n_classes, *dtype = size
    return f"similarities {n:,} x {' '.join([str(dim), *dtype])}, {n_classes:,} classes"


def case(size: tuple, device: str = "cpu") -> Case:
    n, dim, n_classes, *dtype = size
    gpu = bool(dtype) and size not in SIZES
    image, text, _ = data.clip_features(n, n_classes, dim, device=device)
    if dtype:
        image, text = (x.to(data.DTYPES[dtype[0]]) for x in (image, text))
    bounds = floors.product(image, text, gpu)
    if gpu:
        bounds |= {"copy": floors.copy(image.nbytes + 4 * n * n_classes, device)}
    atol = 5e-3 if dtype else 1e-6  # torch rounds unit vectors and cosines to bf16

    def ours() -> Tensor:
        return ops.similarity(image, text)

    return Case(
        ours,
        idiom,
        (image, text),
        lambda ours, theirs: assert_close(ours, theirs.float(), rtol=0, atol=atol),
        floors=bounds,
        cost=Cost(2.0 * n * dim * n_classes, image.nbytes + text.nbytes + 4 * n * n_classes),
        variants=products.variants(ours, dim, device) if gpu else {},
        same=lambda a, b: assert_close(a, b, rtol=0, atol=2e-6),
        device=device,
    )


def idiom(image: Tensor, text: Tensor) -> Tensor:
    return normalize(image, dim=1) @ normalize(text, dim=1).T
