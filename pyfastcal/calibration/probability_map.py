"""What the calibrators share that map probabilities to probabilities: which numbers are mapped, and what becomes of the
rest of a row."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import checks
from ..arguments.arrays import accepts_numpy
from .fit_buffers import FitBuffers
from .fit_rows import labelled

TOP_LABEL, ONE_VS_REST, SHARED, PER_CLASS = "top_label", "one_vs_rest", "shared", "per_class"


class ProbabilityMap(FitBuffers):
    """Base of histogram binning and of the isotonic regressions: one map of [0, 1] for all, or one per class.

    A subclass makes its maps in ``_fit_maps`` and applies them in ``_map``. Strategies:

    - ``"top_label"``: the probability of the predicted class becomes the chance that the prediction is right; the
      others share the rest in proportion. One map.
    - ``"one_vs_rest"``: every class's probability becomes the chance of that class; then rows are divided by their sum.
      One map per class.
    - ``"shared"``: as before, with one map for the probabilities of all classes together; ``"per_class"``: one each.
    """

    strategies: tuple[str, ...] = (TOP_LABEL, ONE_VS_REST)

    def __init__(self, strategy: str) -> None:
        super().__init__()
        self.strategy = checks.choice("strategy", strategy, self.strategies)

    @property
    def knows_only_its_classes(self) -> bool:
        """Whether there is a map per class, so that it says nothing of classes that ``fit`` did not see."""
        return self.strategy in (ONE_VS_REST, PER_CLASS)

    @property
    def class_buffers(self) -> tuple[str, ...]:
        return self.fit_buffers if self.knows_only_its_classes else ()

    def select(self, indices: Tensor | Sequence[int] | Sequence[bool]) -> "ProbabilityMap":
        """As of every calibrator; where there is a map per class, at least two of them."""
        narrowed = super().select(indices)
        if narrowed.class_buffers and len(getattr(narrowed, narrowed.class_buffers[0])) < 2:
            raise ValueError("indices must name at least two classes where each has a map, got one")
        return narrowed

    @accepts_numpy
    @torch.no_grad()
    def fit(self, probs: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> "ProbabilityMap":
        """Learn the maps.

        Args:
            probs: (N, C) probabilities, C >= 2, rows that sum to 1; float32, float16, bfloat16 or float64.
            labels: (N,) integers in [0, C).
            ignore_index: rows with this label are left out.

        Raises:
            ValueError: naming the argument, for a wrong shape, dtype or value.
        """
        labels, probs = labelled_probabilities(ignore_index, labels, probs)
        if self.strategy == TOP_LABEL:
            confidence, prediction = probs.max(dim=1)
            self._fit_maps(confidence[:, None], (prediction == labels)[:, None])
            return self
        is_label = labels[:, None] == torch.arange(probs.shape[1], device=probs.device)
        if self.strategy == SHARED:
            probs, is_label = probs.reshape(-1, 1), is_label.reshape(-1, 1)
        self._fit_maps(probs, is_label)
        return self

    @accepts_numpy
    def forward(self, probs: Tensor) -> Tensor:
        """Calibrated probabilities (N, C), in the dtype of ``probs``; rows sum to 1.

        Raises:
            ValueError: ``probs`` are no probabilities, or not of the classes that the maps were learned for.
        """
        self._need_fit()
        check_probabilities("probs", probs)
        maps = len(getattr(self, self.fit_buffers[0]))
        if self.knows_only_its_classes and probs.shape[1] != maps:
            raise ValueError(f"probs must have the {maps} classes of the fit, got {checks.describe(probs)}")
        if self.strategy == TOP_LABEL:
            confidence, prediction = probs.max(dim=1)
            return share_rest(probs, prediction, self._map(confidence[:, None])[:, 0])
        mapped = self._map(probs.reshape(-1, 1)).view_as(probs) if self.strategy == SHARED else self._map(probs)
        return self._normalise(mapped, probs)

    def _normalise(self, mapped: Tensor, probs: Tensor) -> Tensor:
        """Rows (N, C) that sum to 1; one that was mapped to zeros alone, of which the maps know nothing, becomes
        uniform."""
        total = mapped.sum(dim=1, keepdim=True)
        return torch.where(total > 0, mapped / total, 1 / mapped.shape[1]).to(probs.dtype)

    def _fit_maps(self, values: Tensor, is_label: Tensor) -> None:
        """Learn one map per column of ``values`` (M, G) from the booleans ``is_label`` (M, G)."""
        raise NotImplementedError  # abstract: each calibrator has its own

    def _map(self, values: Tensor) -> Tensor:
        """Map each column of ``values`` (M, G), by the one map or its own; float64."""
        raise NotImplementedError  # abstract: each calibrator has its own

    def extra_repr(self) -> str:
        return f"strategy={self.strategy!r}"


def share_rest(probs: Tensor, prediction: Tensor, confidence: Tensor) -> Tensor:
    """``probs`` (N, C) with ``confidence`` (N,) for each row's ``prediction`` (N,); the other classes share the rest in
    proportion to what they had, evenly where they had nothing."""
    index = prediction[:, None]
    others = probs.double().scatter(1, index, 0.0)
    total = others.sum(dim=1, keepdim=True)
    share = torch.where(total > 0, others / total, 1 / (probs.shape[1] - 1))
    confidence = confidence.double()[:, None]
    return (share * (1 - confidence)).scatter(1, index, confidence).to(probs.dtype)


def check_probabilities(name: str, probs: Tensor, *, rows: bool = False) -> Tensor:
    """Probabilities of at least two classes."""
    if checks.probabilities(name, probs, rows=rows).shape[1] < 2:
        raise ValueError(f"{name} must have at least 2 classes, got {checks.describe(probs)}")
    return probs


def labelled_probabilities(
    ignore_index: int | None, labels: Tensor, probs: Tensor, *rows: Tensor
) -> tuple[Tensor, ...]:
    """``labels`` (N,) int64, ``probs`` (N, C), both checked, and further ``rows`` (N, ...) that a fit learns from."""
    check_probabilities("probs", probs, rows=True)
    labels, probs, *kept = labelled(ignore_index, labels, probs, *rows)
    labels = checks.labels("labels", labels, len(probs), probs.shape[1]).long()
    checks.same_device("labels", labels, "probs", probs)
    return labels, probs, *kept
