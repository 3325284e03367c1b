"""What the calibrators share that learn buffers of whatever size the data asks for."""

from typing import Any

import torch
from torch import Tensor

from ..arguments import checks
from .calibrator import Calibrator


class FitBuffers(Calibrator):
    """A module whose buffers in ``fit_buffers`` are None until ``fit`` or ``load_state_dict`` brings them.

    Their sizes belong to the state: a module takes whatever sizes are loaded. What its constructor was given does
    not; construct it alike.
    """

    fit_buffers: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        for name in self.fit_buffers:
            self.register_buffer(name, None)

    @property
    def is_fitted(self) -> bool:
        return getattr(self, self.fit_buffers[0]) is not None

    def _need_fit(self) -> None:
        if not self.is_fitted:
            raise RuntimeError(f"{type(self).__name__} is not fitted: call fit or load_state_dict first")

    def _check_loaded(self, name: str, key: str, loaded: Tensor) -> None:
        """Raise a ValueError that names ``key`` where what is loaded into the buffer ``name`` cannot be right."""
        checks.finite(key, checks.floating(key, loaded, loaded.ndim))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.fit_buffers:
            loaded, mine = state_dict.get(prefix + name), getattr(self, name)
            if loaded is not None:
                self._check_loaded(name, prefix + name, loaded)
                if mine is None or mine.shape != loaded.shape:
                    setattr(self, name, torch.empty_like(loaded, device=None if mine is None else mine.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
