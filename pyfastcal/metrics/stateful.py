"""What the torchmetrics classes share: a state of integer sums, its synchronisation, and the rows of top labels."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..arguments import checks
from ..arguments.arrays import accepts_numpy
from ..installation.extras import require
from . import diagram
from .layout import Layout, Reading
from .reliability import ReliabilityCurve, curve_of
from .rows import checked_ignore_index, masked, not_ignored
from .state_checks import check_state, moved

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

    def __init__(self, name: str, size: int, ignore_index: int | None, validate: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.validate = checks.choice("validate", validate, (True, False))
        self.ignore_index = checked_ignore_index(ignore_index)
        # collections let metrics share a state whose name and values are equal: the name says what is counted
        self._state_name = name if ignore_index is None else f"{name}_but_{ignore_index}"
        self.add_state(self._state_name, torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def state(self) -> Tensor:
        """The flat int64 tensor of sums; ValueError if it was made something else."""
        return self._checked(getattr(self, self._state_name))

    def _carry(self) -> None:
        """Make of a sum of states a state again."""
        raise NotImplementedError  # abstract: each kind of state has its own

    def _verify(self, state: Tensor) -> None:
        """ValueError if no rows have this state."""
        raise NotImplementedError  # abstract: each kind of state has its own

    def _checked(self, state: Any) -> Tensor:
        return check_state(self._state_name, state, len(self._defaults[self._state_name]))

    def _incoming(self, state: Any) -> Tensor:
        """A state from elsewhere, on the device of this metric."""
        return moved(self._state_name, self._checked(state), self.device)

    def _writable(self) -> Tensor:
        state = self.state
        if state.is_inference() and not torch.is_inference_mode_enabled():  # left by an update in inference mode
            state = state.clone()
            setattr(self, self._state_name, state)
        return state

    def _sync_dist(self, dist_sync_fn: Any = _gather_all, process_group: Any = None) -> None:
        if dist_sync_fn is _gather_all:  # the default: its barrier and two gathers do what one reduction does
            total = self.state.clone()
            torch.distributed.all_reduce(total, group=process_group or self.process_group)
            setattr(self, self._state_name, total)
        else:
            super()._sync_dist(dist_sync_fn, process_group)
        self._carry()

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        if (name := self._state_name) in incoming_state:  # else it is torchmetrics that says so
            incoming_state = incoming_state | {name: self._incoming(incoming_state[name])}
        super()._reduce_states(incoming_state)
        self._carry()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if (name := prefix + self._state_name) in state_dict:
            state = self._incoming(state_dict[name])
            self._verify(state)
            state_dict[name] = state.clone()  # or both metrics into which it is loaded would count in it
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = ()) -> torch.nn.Module:
        """As torchmetrics does it, but a cast leaves the state what it is: any other type would lose counts."""

        def uncast(state: Tensor) -> Tensor:
            moved = fn(state)
            return moved if moved.dtype == state.dtype else state.to(moved.device)

        name, state = self._state_name, self.state
        super()._apply(fn, (*exclude_state, name))
        self._defaults[name] = torch.zeros_like(uncast(self._defaults[name]))  # to_empty would give anything
        setattr(self, name, uncast(state))
        return self


class TopLabel(Sums):
    """A metric of the confidence in the predicted class."""

    def __init__(self, layout: Layout, ignore_index: int | None, validate: bool, **kwargs: Any) -> None:
        super().__init__(layout.name, layout.size, ignore_index, validate, **kwargs)
        self._layout = layout

    @property
    def n_bins(self) -> int:
        return self._layout.n_bins

    @accepts_numpy
    def update(self, confidence: Tensor, prediction: Tensor, labels: Tensor | None = None) -> None:
        """Add rows: ``confidence`` (N,) floating in [0, 1]; ``prediction`` and ``labels`` (N,) integers, or, without
        ``labels`` and ``ignore_index``, whether each is correct: (N,) booleans, or zeros and ones. ValueError that
        names what is wrong; the state is then as it was."""
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
        return diagram.draw(self.reliability(n_bootstrap=n_bootstrap, level=level, seed=seed), ax)

    def _add(self, confidence: Any, prediction: Any, labels: Any, proximity: Any = None) -> None:
        state, options = self._writable(), {"ignore_index": self.ignore_index, "validate": self.validate}
        if (labels is not None or self.ignore_index is None) and self._layout.added_at_once(
            state, confidence, prediction, labels, proximity, **options
        ):
            return
        n = len(checks.floating("confidence", confidence, 1))
        if labels is not None:
            correct, kept = self._compared(confidence, prediction, labels)
        elif self.ignore_index is None:
            correct, kept = checks.entries("prediction", prediction, n, "confidence"), None
            checks.same_device("prediction", prediction, "confidence", confidence)
            if self.validate:
                correct = checks.correctness("prediction", prediction, n)
        else:
            raise ValueError(f"labels must be given with ignore_index={self.ignore_index}, got None")
        self._layout.add(state, confidence, correct, proximity, kept=kept, validate=self.validate)

    def _compared(self, confidence: Tensor, prediction: Any, labels: Any) -> tuple[Tensor, Tensor | None]:
        """Which predictions are correct, and which rows count (None: all)."""
        given = []
        for name, x in (("prediction", prediction), ("labels", labels)):
            given.append(checks.integers(name, x, len(confidence), "confidence"))
            checks.same_device(name, x, "confidence", confidence)
        kept = not_ignored(given[1], self.ignore_index)
        if self.validate:
            for name, x in zip(("prediction", "labels"), given, strict=True):
                checks.labels(name, masked(kept, x, 0), len(x), None, "confidence")
        return given[0] == given[1], kept

    def _read(self) -> Reading:
        return self._layout.read(self.state)

    def _read_synced(self) -> Reading:
        if self._is_synced:
            return self._read()
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self._read()

    def _carry(self) -> None:
        self._layout.carry(self.state)

    def _verify(self, state: Tensor) -> None:
        self._layout.verify(state, self._state_name)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = ()) -> torch.nn.Module:
        super()._apply(fn, exclude_state)
        self._layout.follow(self.state.device)
        return self


class TopLabelNear(TopLabel):
    """One that takes proximities too."""

    @accepts_numpy
    def update(
        self, confidence: Tensor, prediction: Tensor, labels: Tensor | None = None, proximity: Tensor | None = None
    ) -> None:
        """Add rows: ``confidence`` (N,) floating in [0, 1]; ``prediction`` and ``labels`` (N,) integers, or, without
        ``labels`` and ``ignore_index``, whether each is correct: (N,) booleans, or zeros and ones; ``proximity`` (N,)
        floating in [0, 1], as ``fc.proximity`` gives it. ValueError that names what is wrong; the state is then as it
        was."""
        self._add(confidence, prediction, labels, proximity)
