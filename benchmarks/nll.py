"""Logits and labels -> the mean negative log-likelihood and its two derivatives by beta. The floor reads the logits."""

import torch
from torch import Tensor
from torch.testing import assert_close

from pyfastcal import ops

from . import data, floors
from .harness import Case, Floor
from .peaks import Cost

SIZES = ((20_000, 1000),)
QUICK = ((500, 50),)
GPU_SIZES = ((1_000_000, 1000, "fp32"),)
GPU_QUICK = ((500, 100, "fp32"),)
BETA = 0.7


def work(size: tuple) -> str:
    n, n_classes, *dtype = size
    return f"logits {n:,} x {' '.join([f'{n_classes:,}', *dtype])} -> NLL and its derivatives"


def case(size: tuple, device: str = "cpu") -> Case:
    n, n_classes, *dtype = size
    logits, labels = data.clip_logits(n, n_classes, device=device)
    return Case(
        lambda: ops.nll(logits, labels, BETA),
        idiom,
        (logits, labels),
        lambda ours, theirs: assert_close(ours, theirs.double(), rtol=1e-3, atol=1e-4),
        floors={"copy": floors.copy(logits.nbytes, device)} if dtype else {"logits.sum()": Floor(logits.sum)},
        cost=Cost(n_bytes=logits.nbytes),
        device=device,
    )


def idiom(logits: Tensor, labels: Tensor) -> Tensor:
    """The derivatives of a log-partition function: mean and variance of the logits under the softmax."""
    log_probs = torch.log_softmax(BETA * logits, dim=1)
    probs, true = log_probs.exp(), logits.gather(1, labels[:, None])[:, 0]
    mean = (probs * logits).sum(1)
    variance = (probs * (logits - mean[:, None]).square()).sum(1)
    loss = -log_probs.gather(1, labels[:, None]).mean()
    return torch.stack([loss, (mean - true).mean(), variance.mean()])
