"""How a network starts: as the authors' does, or near the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from hdnet_lib.model.global_dynamic import GlobalDynamic
from hdnet_lib.model.variants import SpatialAttention

if TYPE_CHECKING:  # it initializes itself
    from hdnet_lib.model.hdnet import HDNet


def initialize(module: nn.Module) -> None:
    """The released initialization: N(0, 0.02) for every convolution, biases zero."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def initialize_as_identity(model: HDNet) -> None:
    """Let a fresh network start near the identity: its output is ``tanh(1.15 x composite)``, as far as its width goes.

    Not the paper's: a network that starts from noise first has to learn to draw. Here the first convolution carries
    the three colours and their negatives (six channels; a narrower network carries fewer), the MGDs start with
    kernels near the identity, and the output layer reads nothing else.
    """
    first, last = model.get_parameter("encoder.0.conv.weight"), model.output.weight
    # The gate of spatial attention starts near a half.
    gate = 0.5 if any(isinstance(module, SpatialAttention) for module in model.dynamics.values()) else 1
    last.zero_()
    for channel in range(min(6, len(first))):
        color, sign = channel % 3, 1 if channel < 3 else -1
        first[channel] = 0
        first[channel, color, 1, 1] = sign
        last[channel, color, 1, 1] = sign * 1.15 / gate
    for module in model.dynamics.values():
        if isinstance(module, GlobalDynamic):
            kernels = module.get_parameter("expand.bias").view(-1, module.channels, module.channels)
            kernels.add_(torch.eye(module.channels))
