"""Fine cells of [0, 1]: what a stream keeps of values whose ranks it needs.

Equal-mass bins begin at values of given ranks, which no state of fixed size can know exactly. A histogram over many
fixed cells knows in which cell each of them lies, and so everything but how that one cell is split.

Cells are monotone in the value and finer towards 0 and 1, where the confidences of CLIP pile up. With ``y`` the
distance to the nearer end, a cell is what the leading bits of the float64 ``y + 2^-offset`` agree in: below
``2^-offset`` cells of equal width, above it ``2^precision`` per doubling. ``1 - x`` and the sum are rounded once each,
which is monotone: a smaller value is never in a later cell.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

_MANTISSA = 52  # bits of a float64
_SLACK = 2.0**-32  # more than the rounding of a sum, and of a confidence to fixed point


@dataclass(frozen=True)
class FineCells:
    """Cells of [0, 1]; those of 0 and 1 are the first and the last."""

    offset: int
    precision: int

    @functools.cached_property
    def half(self) -> int:
        """Cells of values below 1/2; as many lie above it, and one holds 1/2 alone."""
        return self._code(torch.tensor(0.5, dtype=torch.float64)).item()

    @property
    def size(self) -> int:
        return 2 * self.half + 1

    def __call__(self, values: Tensor) -> Tensor:
        """Cell (N,) int64 of each float64 value (N,) in [0, 1]."""
        upper = torch.rsub(values, 1)
        code = self._code(torch.minimum(values, upper))
        return torch.where(values < 0.5, code, torch.rsub(code, self.size - 1))

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Numbers (size,) that no value of a cell is below, and none is above."""
        code = torch.arange(self.half + 2) + self._first
        distance = (code << (_MANTISSA - self.precision)).view(torch.float64) - 2.0**-self.offset
        near, far = (distance[:-1] - _SLACK).clamp(0, 0.5), (distance[1:] + _SLACK).clamp(0, 0.5)
        return torch.cat([near[:-1], 1 - far.flip(0)]), torch.cat([far[:-1], 1 - near.flip(0)])

    @property
    def _first(self) -> int:
        return (1023 - self.offset) << self.precision

    def _code(self, y: Tensor) -> Tensor:
        return ((y + 2.0**-self.offset).view(torch.int64) >> (_MANTISSA - self.precision)) - self._first


CONFIDENCE = FineCells(offset=8, precision=9)
PROXIMITY = FineCells(offset=0, precision=11)  # equal widths: unit vectors have proximities of exp(-2) to 1
