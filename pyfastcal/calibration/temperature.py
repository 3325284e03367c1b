"""Temperature scaling, by Newton's method on the fused NLL."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import ops
from ..arguments import checks, ranges
from ..arguments.arrays import accepts_numpy
from ..arguments.warn import warn_caller
from ..ops.scale_logits import divide_logits
from .fit_buffers import FitBuffers
from .fit_rows import labelled
from .logit_scaling import LogitScaling

_SUBSET_FROM = 1 << 14  # rows
_LONGEST = 3.0  # the longest step in log beta
_PATIENCE = 8  # evaluations after which a minimum that was not passed yet is doubted


class TemperatureScaling(FitBuffers, LogitScaling):
    """TS: divide all logits by one temperature, the one of the least negative log-likelihood on a labelled split.

    Args:
        temperature: within [1e-30, 1e30], where it is known; else ``fit`` finds it.

    Attributes:
        temperature: () float64, above 1 where the model is over-confident on the split; None before ``fit``.

    Source: "On Calibration of Modern Neural Networks" (ICML 2017, arXiv 1706.04599).
    """

    temperature: Tensor | None
    fit_buffers = ("temperature",)

    def __init__(self, temperature: float | None = None) -> None:
        super().__init__()
        if temperature is not None:
            self.temperature = torch.tensor(ranges.factor("temperature", temperature), dtype=torch.float64)

    @accepts_numpy
    @torch.no_grad()
    def fit(self, logits: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> "TemperatureScaling":
        """Minimise ``mean_i -log softmax(logits[i] / temperature)[labels[i]]`` by Newton's method, each step one pass
        over the logits (``ops.nll``).

        Args:
            logits: (N, C), C >= 2, float32, float16, bfloat16 or float64; minus infinity masks a class, which must not
                be the row's label. ``labels``: (N,) integers in [0, C).
            ignore_index: rows with this label are left out.

        The minimum is unique and found to about 1e-8 (relative; float64 logits: 1e-12). It need not exist: where every
        label has the highest logit, the colder the better; where labels have no higher logits than other classes on
        average, the hotter the better. Then the temperature is taken at which the likelihood is half of what it tends
        to, as far from certainty as one more row could prove, and a warning says so.

        Raises:
            ValueError: naming the argument, for a wrong shape, dtype or value, and for logits so large or so close to
                each other that their temperature would lie outside [1e-30, 1e30].
        """
        checks.matrix("logits", logits, rows=True)
        labels, logits = labelled(ignore_index, labels, logits)
        if logits.shape[1] < 2:
            raise ValueError(f"logits must have at least 2 classes, got {checks.describe(logits)}")
        labels = checks.labels("labels", labels, len(logits), logits.shape[1])
        beta = _inverse_temperature(logits, labels)
        if math.isnan(beta) and bool(((labels < 0) | (labels >= logits.shape[1])).any()):
            # nothing could be checked while torch.compile traced
            raise ValueError(f"labels must lie in [0, {logits.shape[1]}), got others")
        if not ranges.SMALLEST < beta < ranges.LARGEST:
            bounds = ", ".join(f"{float(x):g}" for x in torch.aminmax(logits))
            raise ValueError(
                f"logits must have a temperature in [{ranges.SMALLEST:g}, {ranges.LARGEST:g}], got logits in [{bounds}]"
            )
        self.temperature = torch.tensor(1 / beta, dtype=torch.float64, device=logits.device)
        return self

    def _factor(self, logits: Tensor, prediction: Tensor) -> Tensor:
        """``1 / temperature`` for every row."""
        return self._inverses(len(logits), logits)

    def forward(self, logits: Tensor) -> Tensor:
        """``logits / temperature``, in the dtype and shape of ``logits``, (N, C) or (C,) of one image; each row's
        argmax stays where it is, and minus infinity what it is.

        Raises:
            ValueError: NaN, plus infinity, a row of minus infinity alone; a quotient that is too large for the dtype.
        """
        divided = divide_logits(logits, self._buffers["temperature"])  # attributes of a module are slow
        return self._scaled(logits) if divided is None else divided

    def feature_weights(
        self, image_features: Tensor, text_features: Tensor, **options: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        checks.matrix("text_features", text_features)
        return self._inverses(len(text_features), text_features), None

    def _inverses(self, n: int, like: Tensor) -> Tensor:
        """``1 / temperature``, n times."""
        self._need_fit()
        known, dtype = self.temperature, torch.promote_types(like.dtype, torch.float32)
        if known.dtype == torch.float64 and known.device == like.device and checks.values_visible(known):
            value = float(known)
            if ranges.SMALLEST <= value <= ranges.LARGEST:  # the usual case, in one step
                return torch.full((n,), 1 / value, dtype=dtype, device=known.device)
        ranges.factors("temperature", known[None])  # in half precision it may have become 0 or infinite
        return (1 / known).to(dtype).expand(n)

    def _check_loaded(self, name: str, key: str, loaded: Tensor) -> None:
        ranges.factors(key, checks.floating(key, loaded, 0)[None])

    def extra_repr(self) -> str:
        return f"temperature={float(self.temperature):.6g}" if self.is_fitted else ""


def _inverse_temperature(logits: Tensor, labels: Tensor) -> float:
    """beta of the least NLL, or what stands for it where there is none."""
    beta = 1.0
    if len(logits) >= _SUBSET_FROM:  # begin where a sixteenth of the rows has its minimum: most steps cost little then
        beta, _ = _root(logits[::16], labels[::16], beta, 1e-2, evaluations=6)
    beta, limit = _root(logits, labels, beta, 1e-7 if logits.dtype == torch.float64 else 3e-5)
    return beta if limit is None else _half_likelihood(logits, labels, beta, limit)


def _root(
    logits: Tensor, labels: Tensor, beta: float, tolerance: float, evaluations: int = 100
) -> tuple[float, "_Limit | None"]:
    """The root of NLL's slope, which rises with beta, and None; or the last beta and the limit where NLL has no
    minimum. ``tolerance``: of the product of the last two steps in log beta, whose square is about the error."""
    low, high, before, doubted = 0.0, math.inf, None, False
    for evaluation in range(1, evaluations + 1):
        _, slope, curvature = ops.nll(logits, labels, beta).tolist()
        if not math.isfinite(slope + curvature):  # of logits whose squares even float64 cannot hold
            return math.nan, None
        low, high = (beta, high) if slope < 0 else (low, beta)
        bracketed = low > 0 and high < math.inf
        flat = len(logits) * beta**2 * curvature < 1e-3  # less than a single row can tell: there may be no minimum
        if (flat or (evaluation >= _PATIENCE and not bracketed)) and not doubted:
            doubted = True
            limit = _limit(logits, labels)
            if limit is not None:
                return beta, limit
        here = _Point(math.log(beta), slope, beta * curvature)
        step = here.step(before)
        following = beta * math.exp(max(-_LONGEST, min(_LONGEST, step)))
        following = max(ranges.SMALLEST, min(ranges.LARGEST, following))
        last = 1.0 if before is None else min(1.0, abs(here.log_beta - before.log_beta))
        if abs(step) * last < tolerance:
            return following, None
        before = here
        beta = following if low < following < high or not bracketed else math.sqrt(low * high)
    return beta, None


class _Point(NamedTuple):
    """NLL's slope by beta at a log beta, and the derivative of that slope by log beta."""

    log_beta: float
    slope: float
    rise: float

    def step(self, before: "_Point | None") -> float:
        """To where the slope should be 0, in log beta: by the cubic through this point and the one before, with log
        beta as a function of the slope; by Newton's method where they are not both close."""
        if self.slope == 0:
            return 0.0
        if self.rise <= 0:
            return math.copysign(math.inf, -self.slope)
        if before is not None and before.rise > 0 and abs(self.slope) < abs(before.slope) / 4:
            gap = before.slope - self.slope
            u = -self.slope / gap
            newton = u * (1 - u) ** 2 * gap / self.rise + u * u * (u - 1) * gap / before.rise
            return newton + u * u * (3 - 2 * u) * (before.log_beta - self.log_beta)
        ratio = self.slope / self.rise
        # above the minimum on log beta, which leads down by a factor of e at most; below it on beta, since NLL need not
        # be convex in log beta there
        return -ratio / (1 + ratio) if ratio > 0 else math.log1p(-ratio)


class _Limit(NamedTuple):
    """What the sum of the rows' NLL tends to where it has no minimum: as beta goes to 0 (``rising`` from there) or to
    infinity."""

    total: float
    rising: bool
    reason: str


def _limit(logits: Tensor, labels: Tensor) -> _Limit | None:
    """The limit, where there is one; None where NLL has its minimum at some beta > 0."""
    own, top = logits.gather(1, labels.long()[:, None]), logits.amax(1, keepdim=True)
    if not bool((own < top).any()):
        total = float((logits == top).sum(1).double().log().sum())
        return _Limit(total, False, "every label has the highest logit: no temperature is low enough")
    kept = logits > -torch.inf
    classes = kept.sum(1)  # that are not masked
    mean = logits.where(kept, 0).sum(1, dtype=torch.float64) / classes
    if float((mean - own[:, 0]).mean()) >= 0:  # the slope at beta = 0
        total = float(classes.double().log().sum())
        return _Limit(total, True, "labels have no higher logits than other classes: no temperature is high enough")
    return None


def _half_likelihood(logits: Tensor, labels: Tensor, beta: float, limit: _Limit) -> float:
    """beta where the rows' NLL is log 2 above its limit."""

    def too_large(beta: float) -> bool:
        excess = len(logits) * float(ops.nll(logits, labels, beta)[0]) - limit.total
        return (excess > math.log(2)) == limit.rising

    low = high = beta
    while too_large(low) and low > 1e-28:
        low /= 16
    while not too_large(high) and high < 1e28:
        high *= 16
    if (too_large(low) or not too_large(high)) and bool((logits != logits[:, :1]).any()):
        return math.nan  # out of reach
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if too_large(middle) else (middle, high)
    text = f"{limit.reason}. Taken where the likelihood is half its limit: temperature {1 / low:.4g}"
    warn_caller(text)
    return low
