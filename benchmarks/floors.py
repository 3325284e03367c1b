"""What a device copies and multiplies at best, measured in the run that the kernels are measured in."""

import functools

import torch
from torch import Tensor

from .harness import Floor


def copy(n_bytes: int, device: str) -> Floor:
    """Moving ``n_bytes``, at the rate of a large copy (which moves every byte twice)."""
    source, target = _buffers(device)
    return Floor(lambda: target.copy_(source), share=n_bytes / (2 * source.nbytes))


def product(image: Tensor, text: Tensor, rate: bool, times: int = 1) -> dict[str, Floor]:
    """Multiplying features ``times`` times: torch's product of them or, as on GPUs, the ``rate`` of a large one."""
    if not rate:
        return {"torch GEMM": Floor(lambda: [image @ text.T for _ in range(times)])}
    return {"GEMM rate": gemm(2.0 * times * len(image) * len(text) * image.shape[1], image.device.type)}


def gemm(flops: float, device: str) -> Floor:
    """Doing ``flops``, at the rate of torch's product of large square bf16 matrices."""
    a, b, out = _matrices(device)
    return Floor(lambda: torch.mm(a, b, out=out), share=flops / (2 * a.shape[0] ** 3))


@functools.cache
def _buffers(device: str) -> tuple[Tensor, Tensor]:
    n = 1 << (30 if device == "cuda" else 20)
    return torch.ones(n, dtype=torch.uint8, device=device), torch.empty(n, dtype=torch.uint8, device=device)


@functools.cache
def _matrices(device: str) -> tuple[Tensor, Tensor, Tensor]:
    n = 8192 if device == "cuda" else 128
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    return a, b, torch.empty_like(a)
