"""What the torchmetrics classes share: a state of integer sums, its synchronisation, and the rows of top labels."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import checks
from .._numpy import accepts_numpy
from .._optional import require
from . import _diagram
from ._layout import Layout, Reading
from .reliability import ReliabilityCurve, curve_of

if TYPE_CHECKING:
    import torchmetrics
else:
    torchmetrics = require("torchmetrics", "metrics")
_gather_all = torchmetrics.utilities.distributed.gather_all_tensors


class Sums(torchmetrics.Metric):
    """A metric whose state is one flat int64 tensor of sums."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, name: str, size: int, validate: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.validate = checks.choice("validate", validate, (True, False))
        # collections let metrics share a state whose name and values are equal: the name says what is counted
        self._state_name = name
        self.add_state(name, torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def state(self) -> Tensor:
        """The flat int64 tensor of sums."""
        return getattr(self, self._state_name)

    def _carry(self) -> None:
        """Make of a sum of states a state again."""
        raise NotImplementedError

    def _writable(self) -> Tensor:
        if self.state.is_inference() and not torch.is_inference_mode_enabled():  # left by an update in inference mode
            setattr(self, self._state_name, self.state.clone())
        return self.state

    def _sync_dist(self, dist_sync_fn: Any = _gather_all, process_group: Any = None) -> None:
        if dist_sync_fn is _gather_all:  # the default: its barrier and two gathers do what one reduction does
            total = self.state.clone()
            torch.distributed.all_reduce(total, group=process_group or self.process_group)
            setattr(self, self._state_name, total)
        else:
            super()._sync_dist(dist_sync_fn, process_group)
        self._carry()

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        super()._reduce_states(incoming_state)
        self._carry()


class TopLabel(Sums):
    """A metric of the confidence in the predicted class."""

    def __init__(self, layout: Layout, validate: bool, **kwargs: Any) -> None:
        super().__init__(layout.name, layout.size, validate, **kwargs)
        self._layout = layout

    @property
    def n_bins(self) -> int:
        return self._layout.n_bins

    @accepts_numpy
    def update(self, confidence: Tensor, prediction: Tensor, labels: Tensor | None = None) -> None:
        """Add rows: ``confidence`` (N,) floating in [0, 1]; ``prediction`` and ``labels`` (N,) integers, or, without
        ``labels``, whether each is correct: (N,) booleans, or zeros and ones. ValueError that names what is wrong; the
        state is then as it was."""
        self._add(confidence, prediction, labels)

    def reliability(self, *, n_bootstrap: int = 1000, level: float = 0.95, seed: int = 0) -> ReliabilityCurve:
        """What ``metrics.reliability_curve`` says of the rows so far, on the CPU. Where ranks are joined, all must
        call it."""
        return curve_of(self._read_synced().bins, n_bootstrap=n_bootstrap, level=level, seed=seed)

    def plot(
        self, val: Any = None, ax: Any = None, *, n_bootstrap: int = 1000, level: float = 0.95, seed: int = 0
    ) -> tuple[Any, Any]:
        """The reliability diagram of the rows so far, with the bootstrap band of ``reliability``; or, of values
        ``val`` that ``compute`` or ``forward`` gave, torchmetrics' own plot. Returns the figure and its axes; ``ax``:
        axes to draw on."""
        if val is not None:
            return self._plot(val, ax)
        return _diagram.draw(self.reliability(n_bootstrap=n_bootstrap, level=level, seed=seed), ax)

    def _add(self, confidence: Any, prediction: Any, labels: Any, proximity: Any = None) -> None:
        if self.validate:
            prediction, labels = _checked(checks.floating("confidence", confidence, 1), prediction, labels)
        correct = prediction if labels is None else prediction == labels
        self._layout.add(self._writable(), confidence, correct, proximity, validate=self.validate)

    def _read(self) -> Reading:
        return self._layout.read(self.state)

    def _read_synced(self) -> Reading:
        if self._is_synced:
            return self._read()
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self._read()

    def _carry(self) -> None:
        self._layout.carry(self.state)

    def _apply(self, fn: Any, exclude_state: Any = "") -> torch.nn.Module:
        moved = super()._apply(fn, exclude_state)
        self._layout.follow(self.state.device)
        return moved


class TopLabelNear(TopLabel):
    """One that takes proximities too."""

    @accepts_numpy
    def update(
        self, confidence: Tensor, prediction: Tensor, labels: Tensor | None = None, proximity: Tensor | None = None
    ) -> None:
        """Add rows: ``confidence`` (N,) floating in [0, 1]; ``prediction`` and ``labels`` (N,) integers, or, without
        ``labels``, whether each is correct: (N,) booleans, or zeros and ones; ``proximity`` (N,) floating in [0, 1],
        as ``fc.proximity`` gives it. ValueError that names what is wrong; the state is then as it was."""
        self._add(confidence, prediction, labels, proximity)


def _checked(confidence: Tensor, prediction: Any, labels: Any) -> tuple[Tensor, Tensor | None]:
    n = len(confidence)
    if labels is None:
        return checks.correctness("prediction", prediction, n), None
    given = []
    for name, x in (("prediction", prediction), ("labels", labels)):
        given.append(checks.labels(name, x, n, None, "confidence"))
        checks.same_device(name, x, "confidence", confidence)
    return given[0], given[1]
