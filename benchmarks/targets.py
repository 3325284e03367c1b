"""What the project promises on two AVX2 cores and on an H100, and whether a figure keeps it.

Against torch, a peer or a published loop the figure is its time over ours ("at least"); against a floor, ours over
the floor ("at most"); for memory, megabytes beyond the inputs ("at most"). Of ours itself, its time may be promised.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    limit: float
    at_least: bool
    seconds: bool = False  # the limit is on the time itself

    def holds(self, figure: float) -> bool:
        return figure >= self.limit if self.at_least else figure <= self.limit

    def __str__(self) -> str:
        limit = f"{self.limit * 1e6:g} µs" if self.seconds else f"{self.limit:.3g}"
        return f"{'≥' if self.at_least else '≤'} {limit}"


def at_least(limit: float) -> Target:
    return Target(limit, True)


def at_most(limit: float) -> Target:
    return Target(limit, False)


def in_microseconds(limit: float) -> Target:
    return Target(limit * 1e-6, False, seconds=True)


def share_of_floor(share: float) -> Target:
    return at_most(1 / share)


_KNN = {"torch eager": at_least(1.35), "torch GEMM": at_most(1.1), "FAISS flat": at_least(1.0)}
_LOGITS_GPU = {"copy": share_of_floor(0.85), "torch.compile": at_least(5), "torch eager": at_least(10)}
_BF16 = {"torch eager": at_least(1.5)}
_KNN_GPU = {"GEMM rate": share_of_floor(0.65), "torch eager": at_least(4)}
_SMALL_GPU = {"pyfastcal": in_microseconds(15)}

# work -> contender -> target
TARGETS: dict[str, dict[str, Target]] = {
    "logits 50,000 x 1,000 -> DAC confidence -> 10 bins": {
        "torch eager": at_least(18),
        "logits.sum()": at_most(2.5),
    },
    "features 50,000 x 512, 1,000 classes -> DAC confidence": {
        "torch eager": at_least(2.1),
        "torch GEMM": at_most(0.9),
        "peak memory, ours": at_most(40),
    },
    "features 2,000 x 768, 21,841 classes -> DAC confidence": {"torch GEMM": at_most(0.5)},
    "features 50,000 x 512 bf16, 1,000 classes, 1,000 weights -> DAC confidence": _BF16,
    "features 256 x 512 bf16, 1,000 classes, 1,000 weights -> DAC confidence": _BF16,
    "features 2,000 x 768 bf16, 21,841 classes, 21,841 weights -> DAC confidence": _BF16,
    "features of two models 50,000 x 512 bf16, 1,000 classes -> CAC z": _BF16,
    "similarities 50,000 x 512 bf16, 1,000 classes": _BF16,
    "knn 4,000 x 20,000 x 512, K=10": _KNN | {"torch GEMM": at_most(0.25)},
    "knn 4,000 x 20,000 x 512, K=64": _KNN,
    "knn 1,000 x 1,000 x 512, K=5": _KNN,
    "knn 100 x 200,000 x 768, K=10": _KNN | {"FAISS flat": at_least(3)},
    "DAC fit, 5,000 base, 500 classes, D=512, K=5": {"published loop": at_least(40)},
    "bins, 10,000,000 confidences": {
        "torch eager": at_least(10),
        "torchmetrics": at_least(30),
        "read": at_most(3),
    },
    "logits 20,000 x 1,000 -> temperature": {"torch eager": at_least(50)},
    "density of 10,000 points at 10,000 queries": {"statsmodels": at_least(15), "scipy": at_least(5)},
    "8 shards of 8,192 x 512 float16, 1,000 classes -> all metrics": {"two passes": at_most(1.3)},
    # on an H100
    "logits 1,000,000 x 1,000 fp32 -> DAC confidence -> 10 bins": _LOGITS_GPU,
    "logits 1,000,000 x 1,000 bf16 -> DAC confidence -> 10 bins": _LOGITS_GPU,
    "logits 256 x 1,000 fp32 -> DAC confidence": _SMALL_GPU,
    "features 1,000,000 x 512 bf16, 1,000 classes, 2 weights -> DAC confidence": {
        "GEMM rate": share_of_floor(0.70),
        "torch eager": at_least(3),
    },
    "features 1,000,000 x 512 bf16, 1,000 classes, 1,000 weights -> DAC confidence": {
        "GEMM rate": share_of_floor(0.45),
        "torch eager": at_least(3),
    },
    "features 256 x 512 bf16, 1,000 classes, 2 weights -> DAC confidence": _SMALL_GPU,
    "knn 50,000 x 1,280,000 x 512 bf16, K=10": _KNN_GPU,
    "knn 50,000 x 1,280,000 x 512 fp32, K=10": _KNN_GPU,
    "bins, 1,000,000,000 confidences on the GPU": {"copy": share_of_floor(0.80)},
    "bins, 256 confidences on the GPU": _SMALL_GPU,
}
