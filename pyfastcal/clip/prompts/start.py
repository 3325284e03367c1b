"""Where parameters start, drawn from a generator of one's own: torch's layers take the global one."""

import torch
from torch import Tensor, nn

STD = 0.02  # of prompts, in all the published code


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    """N(0, 0.02), float32."""
    return STD * torch.randn(*shape, generator=generator)


@torch.no_grad()
def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's own start: weights and biases uniform within 1 / sqrt(inputs)."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    for parameter in layer.parameters():
        parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer
