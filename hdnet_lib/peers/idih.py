"""iDIH, and DIH without its parsing branch (both Sofiiuk et al., WACV 2021): an auto-encoder down to one position."""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.peers.base import Peer, check_even
from hdnet_lib.peers.losses import normalized_mse
from hdnet_lib.peers.ranges import denormalize, from_unit, normalize, to_unit

MULTIPLES = (1, 1, 2, 2, 4, 4, 8)
"""Channels of the seven encoder blocks in units of the width; the sides are 128, 64, 32, 16, 8, 4 and 1."""


class Block(nn.Module):
    """A convolution, plain or transposed, with bias; batch norm or none; ELU."""

    def __init__(self, conv: nn.Module, channels: int, normalized: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(channels) if normalized else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, ., .)."""
        return F.elu(self.norm(self.conv(x)))


def down_and_up(x: Tensor, encoder: Iterable[nn.Module], decoder: Iterable[nn.Module]) -> Tensor:
    """Run the blocks of both; each map of the encoder but the last is added to the decoder's of its size."""
    maps = []
    for block in encoder:
        x = block(x)
        maps.append(x)
    maps.pop()
    for block in decoder:
        x = block(x)
        if maps:
            x = x + maps.pop()
    return x


class IDIH(Peer):
    """Encoder and decoder of seven blocks each; the encoder's maps are added to the decoder's; a learned blend.

    Args:
        width: channels of the first block, n.
    """

    smallest = largest = 256
    improved = True
    """Whether the first two blocks are without batch norm, and the result is blended with the composite."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        check_even(width)
        channels = [4, *(width * multiple for multiple in MULTIPLES)]
        last = len(MULTIPLES) - 1
        self.encoder = nn.ModuleList(
            Block(nn.Conv2d(above, below, 4, 2, int(level < last)), below, level > 1 or not self.improved)
            for level, (above, below) in enumerate(itertools.pairwise(channels))
        )
        outputs = [*reversed(channels[1:-1]), width // 2]
        self.decoder = nn.ModuleList(
            Block(nn.ConvTranspose2d(above, below, 4, 2, int(level > 0)), below)
            for level, (above, below) in enumerate(zip([channels[-1], *outputs], outputs, strict=False))
        )
        self.blend = nn.Conv2d(width // 2, 1, 1) if self.improved else None
        self.rgb = nn.Conv2d(width // 2, 3, 1)

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        normalized = normalize(to_unit(composite))
        x = down_and_up(torch.cat([normalized, mask], dim=1), self.encoder, self.decoder)
        result = self.rgb(x)
        if self.blend is not None:
            share = (3 * self.blend(x)).sigmoid()
            result = share * normalized + (1 - share) * result
        return from_unit(denormalize(result))

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        return normalized_mse(self.predict(composite, mask), real, mask, 100)


class DIH(IDIH):
    """DIH as re-implemented by the authors of iDIH (the original has a parsing branch, whose labels are not here)."""

    improved = False
