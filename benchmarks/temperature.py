"""Logits and labels -> the temperature of the least negative log-likelihood. The floor reads the logits once.

The idiom is L-BFGS with a line search, which needs the fewest evaluations to find the minimum.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

import pyfastcal as fc

from . import data
from .harness import Case, Floor
from .peaks import Cost

SIZES = ((20_000, 1000),)
QUICK = ((500, 50),)
GPU_SIZES = GPU_QUICK = ()


def work(size: tuple[int, int]) -> str:
    n, n_classes = size
    return f"logits {n:,} x {n_classes:,} -> temperature"


def case(size: tuple[int, int], device: str = "cpu") -> Case:
    logits, labels = data.clip_logits(*size)
    return Case(
        lambda: fc.TemperatureScaling().fit(logits, labels).temperature,
        idiom,
        (logits, labels),
        lambda ours, theirs: assert_close(ours, theirs.double(), rtol=1e-4, atol=0),
        floors={"logits.sum()": Floor(logits.sum)},
        cost=Cost(n_bytes=logits.nbytes),
    )


def idiom(logits: Tensor, labels: Tensor) -> Tensor:
    temperature = torch.ones((), requires_grad=True)
    optimizer = torch.optim.LBFGS([temperature], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(logits / temperature, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return temperature.detach()
