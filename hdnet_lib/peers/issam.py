"""iS2AM and the networks on its trunk: PCT-Net, DCCF, CDTNet and DucoNet build on this U-Net."""

import itertools
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.peers.attention import IS2AMAttention
from hdnet_lib.peers.base import Peer
from hdnet_lib.peers.losses import normalized_mse
from hdnet_lib.peers.ranges import denormalize, from_unit, normalize, to_unit

MULTIPLES = (1, 2, 4, 8)
"""Channels of the four levels in units of the width."""
NORMALIZED = (2, 3)
"""Levels of the encoder with batch norm."""


class ConvBlock(nn.Module):
    """3x3 convolution with bias, batch norm or none, ReLU."""

    def __init__(self, inputs: int, outputs: int, normalized: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs) if normalized else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return F.relu(self.norm(self.conv(x)))


def encoder_level(inputs: int, outputs: int, normalized: bool) -> nn.Sequential:
    """Two blocks."""
    return nn.Sequential(ConvBlock(inputs, outputs, normalized), ConvBlock(outputs, outputs, normalized))


class Encoder(nn.ModuleList):
    """Four levels of two blocks, with max pooling between them."""

    def __init__(self, inputs: int, width: int) -> None:
        channels = [inputs, *(width * multiple for multiple in MULTIPLES)]
        super().__init__(
            encoder_level(above, below, level in NORMALIZED)
            for level, (above, below) in enumerate(itertools.pairwise(channels))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (B, inputs, H, W) -> the maps of the four levels, from full size to an eighth."""
        maps: list[Tensor] = []
        for level in self:
            x = level(F.max_pool2d(x, 2) if maps else x)
            maps.append(x)
        return maps


class DecoderLevel(nn.Module):
    """Upsample, join the skip connection, attend where it is asked, two blocks."""

    def __init__(self, inputs: int, attend: bool) -> None:
        super().__init__()
        outputs = inputs // 2
        self.up = ConvBlock(inputs, outputs, normalized=False)
        self.attention = IS2AMAttention(inputs) if attend else None
        self.convs = encoder_level(inputs, outputs, normalized=True)

    def forward(self, skip: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """skip (B, C / 2, 2H, 2W), x (B, C, H, W), mask (B, 1, ., .) -> (B, C / 2, 2H, 2W)."""
        x = self.up(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
        x = torch.cat([skip, x], dim=1)
        if self.attention is not None:
            x = self.attention(x, mask)
        return self.convs(x)


class Trunk(Peer):
    """The U-Net of iS2AM up to its last map, and the map that blends its result with the composite.

    Args:
        width: channels of the first level, n.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = Encoder(4, width)
        self.decoder = nn.ModuleList(DecoderLevel(width * multiple, multiple == 2) for multiple in (8, 4, 2))
        self.blend = nn.Conv2d(width, 1, 1)

    def features(
        self, normalized: Tensor, mask: Tensor, after: Callable[[int, Tensor], Tensor] = lambda level, x: x
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Run the U-Net.

        Args:
            normalized: composite (B, 3, H, W) in ImageNet's normalised colours; sides are multiples of 8.
            mask: (B, 1, H, W).
            after: what becomes of the map of each decoder level, 0 to 2.

        Returns:
            The last map (B, n, H, W); the share (B, 1, H, W) in (0, 1) by which a result is blended with the composite,
            of the one or of the other; the encoder's maps.
        """
        maps = self.encoder(torch.cat([normalized, mask], dim=1))
        x = maps[-1]
        for index, (level, skip) in enumerate(zip(self.decoder, reversed(maps[:-1]), strict=True)):
            x = after(index, level(skip, x, mask))
        return x, (3 * self.blend(x)).sigmoid(), maps


class IS2AM(Trunk):
    """iS2AM, in its code iSSAM (Sofiiuk et al., WACV 2021), without a backbone."""

    multiple = 8
    a_min: ClassVar[float] = 1000
    """Of its own loss, in pixels."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)
        self.rgb = nn.Conv2d(width, 3, 1)

    def results(self, normalized: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """As :meth:`features`, but first the result in normalised colours, and then the last map, and the encoder's."""
        feature, share, maps = self.features(normalized, mask)
        return share * normalized + (1 - share) * self.rgb(feature), feature, maps

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        return from_unit(denormalize(self.results(normalize(to_unit(composite)), mask)[0]))

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        return normalized_mse(self.predict(composite, mask), real, mask, self.a_min)
