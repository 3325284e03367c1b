"""The search for CAC's constants: least negative log-likelihood over a grid that closes in.

A row's loss depends on the constants through one number, its factor. So the loss of every row is tabulated
once over log-spaced factors, with its slope, and any candidate (alpha, k, lambda1, lambda2) is then one
cubic interpolation per row. That also copes with the jumps of gamma at lambda1 and lambda2, where gradients
say nothing.
"""

import copy
import itertools
import math

import torch
from torch import Tensor

from ..reference import equal_mass_groups, weight_of_distance

_SMALLEST, _LARGEST, _POINTS = 1e-3, 20.0, 41  # the factors that are tabulated
_ALPHA = (0.25, 4.0)
_DAMPING = 3.0  # k times the median distance goes from 0 to here
_LAMBDA1 = (0.0, 0.7, 0.8, 0.9, 1.0)
_LAMBDA2 = (1.0, 1.1, 1.2, _LARGEST)  # the first and the last pair leave gamma as it is on that side
_GROUPS = 512  # rows the search looks at: those of nearly equal distance have nearly equal factors
_CHUNK = 1 << 18  # logits tabulated at a time: they stay in cache


class LossTable:
    """Negative log-likelihood of each row as a function of its factor, tabulated."""

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        self.step = math.log(_LARGEST / _SMALLEST) / (_POINTS - 1)
        rows = max(1, _CHUNK // logits.shape[1])
        parts = [self._rows(logits[i : i + rows], labels[i : i + rows].long()) for i in range(0, len(logits), rows)]
        self.loss = torch.cat([loss for loss, _ in parts])
        self.slope = torch.cat([slope for _, slope in parts])
        self.share = torch.full_like(self.loss[:, 0], 1 / len(logits))

    def _rows(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = logits - logits.gather(1, labels[:, None])  # the true class is at 0
        top, predicted = logits.max(dim=1, keepdim=True)
        loss, slope = [], []
        for i in range(_POINTS):
            factor = _SMALLEST * math.exp(i * self.step)
            scaled = factor * logits
            probs = scaled.softmax(dim=1)
            # through the largest probability, which cannot underflow; the true class's can
            loss.append((factor * top - probs.gather(1, predicted).log())[:, 0])
            # d loss / d log(factor): the mean of the scaled logits under the softmax
            slope.append(torch.einsum("nc,nc->n", probs, scaled))
        return torch.stack(loss, 1).double(), torch.stack(slope, 1).double()

    def mean(self, factor: Tensor) -> Tensor:
        """Mean loss (P,) of candidate factors (P, N); infinite where one lies outside the table."""
        position = (factor.clamp(_SMALLEST, _LARGEST) / _SMALLEST).log() / self.step
        left = position.long().clamp(max=_POINTS - 2)
        t = position - left
        row = torch.arange(factor.shape[1], device=factor.device)
        f0, f1 = self.loss[row, left], self.loss[row, left + 1]
        s0, s1 = self.slope[row, left] * self.step, self.slope[row, left + 1] * self.step
        u = 1 - t
        value = u * u * ((1 + 2 * t) * f0 + t * s0) + t * t * ((3 - 2 * t) * f1 - u * s1)
        outside = ((factor < _SMALLEST) | (factor > _LARGEST)).any(dim=1)
        return torch.where(outside, torch.inf, (value * self.share).sum(dim=1))

    def grouped(self, z: Tensor, size: int) -> tuple["LossTable", Tensor]:
        """At most ``size`` rows, each the mean of rows of nearly equal ``z``; and the mean z of each."""
        if len(z) <= size:
            return self, z
        group = equal_mass_groups(z, size)
        share = torch.zeros(size, dtype=torch.float64, device=z.device).index_add_(0, group, self.share)
        kept = share > 0

        def mean(x: Tensor) -> Tensor:
            total = x.new_zeros(size, x.shape[1]).index_add_(0, group, x / len(z))
            return total[kept] / share[kept, None]

        table = copy.copy(self)
        table.loss, table.slope, table.share = mean(self.loss), mean(self.slope), share[kept]
        return table, mean(z[:, None])[:, 0]


def fit_contrast(
    logits: Tensor, labels: Tensor, z: Tensor, start: dict[str, float], *, fit_lambda: bool = False
) -> dict[str, float]:
    """Constants alpha, k, lambda1, lambda2 of the least loss; ``start`` gives the lambdas to keep, and stays
    where nothing is better."""
    table, z = LossTable(logits, labels), z.double()
    coarse = table.grouped(z, _GROUPS)

    def loss_of(constants: dict[str, float]) -> float:
        return float(table.mean(weight_of_distance(z, **constants)[None]))

    best, least = start, loss_of(start)
    pairs = [(start["lambda1"], start["lambda2"])]
    if fit_lambda:
        pairs += [pair for pair in itertools.product(_LAMBDA1, _LAMBDA2) if pair not in pairs]
    for pair in pairs:
        alpha, k = _search(*coarse, *pair)
        for found in ((alpha, k), (1.0, 0.0)):  # the second leaves every row as it is
            constants = dict(zip(("alpha", "k", "lambda1", "lambda2"), (*found, *pair), strict=True))
            if (loss := loss_of(constants)) < least:
                best, least = constants, loss
    return best


def _search(table: LossTable, z: Tensor, lambda1: float, lambda2: float) -> tuple[float, float]:
    """Grid over (log alpha, k) that closes in on its best point."""
    low = torch.tensor([math.log(_ALPHA[0]), 0.0], dtype=torch.float64)
    high = torch.tensor([math.log(_ALPHA[1]), _DAMPING / float(z.median().clamp(min=1e-6))]).double()
    centre, span, points, least = (low + high) / 2, (high - low) / 2, 21, math.inf
    for _ in range(6):
        axes = [
            torch.linspace(c - s, c + s, points, dtype=torch.float64).clamp(a, b)
            for c, s, a, b in zip(*(x.tolist() for x in (centre, span, low, high)), strict=True)
        ]
        grid = torch.cartesian_prod(*axes)
        alpha, k = grid.to(z.device).T[..., None]
        losses = table.mean(weight_of_distance(z, alpha.exp(), k, lambda1, lambda2))
        best = int(losses.argmin())
        if float(losses[best]) < least:
            least, centre = float(losses[best]), grid[best]
        span, points = 3 * span / points, 9
    return math.exp(centre[0]), float(centre[1])
