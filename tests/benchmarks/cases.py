"""What the benchmarks' tests measure."""

import torch

from benchmarks import harness


def case(idiom, **more) -> harness.Case:
    x = torch.arange(4.0)
    return harness.Case(lambda: x * 2, idiom, (x,), lambda a, b: torch.testing.assert_close(a, b), **more)
