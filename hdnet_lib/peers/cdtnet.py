"""CDTNet (Cong et al., CVPR 2022): iS2AM at low resolution, tables of colours at full size, and a refinement."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.model.hdnet import paste
from hdnet_lib.model.losses import foreground_mse
from hdnet_lib.peers.base import Peer
from hdnet_lib.peers.issam import IS2AM
from hdnet_lib.peers.maps import LOW, shrink
from hdnet_lib.peers.ranges import denormalize, from_unit, normalize, to_unit

TABLES = 4
"""Learned tables, which the deepest features mix."""


def look_up(image: Tensor, tables: Tensor) -> Tensor:
    """Change colours by tables, with trilinear interpolation.

    Args:
        image: (B, 3, H, W) in [0, 1].
        tables: (B, 3, D, D, D): new colour by blue, green and red, in this order of the axes.
    """
    # The code's lattice is a millionth wider, so that white falls into the last cell.
    grid = from_unit(image / 1.000001).permute(0, 2, 3, 1).unsqueeze(1)  # (B, 1, H, W, 3)
    return F.grid_sample(tables, grid, mode="bilinear", padding_mode="border", align_corners=True).squeeze(2)


class ColorTables(nn.Module):
    """The learned tables, mixed by what the deepest features of foreground and background say."""

    def __init__(self, channels: int, lattice: int) -> None:
        super().__init__()
        steps = torch.linspace(0, 1, lattice)
        identity = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")[::-1])
        self.tables = nn.ParameterList([identity, *torch.zeros(TABLES - 1, 3, *[lattice] * 3)])
        self.conv = nn.Conv2d(channels, 256, 1)
        self.weights = nn.Conv2d(2 * 256, TABLES, 1)
        nn.init.ones_(self.weights.get_parameter("bias"))

    def forward(self, unit: Tensor, feature: Tensor, mask: Tensor) -> Tensor:
        """unit (B, 3, H, W) in [0, 1], feature (B, C, h, w), mask (B, 1, ., .) -> (B, 3, H, W)."""
        x = self.conv(feature)
        mask = F.interpolate(mask, size=x.shape[-2:], mode="bilinear", align_corners=False)
        means = torch.cat([x * mask, x * (1 - mask)], dim=1).mean(dim=(2, 3), keepdim=True)
        weights = self.weights(means).flatten(1)  # (B, tables)
        # A sum and no matrix product, which autocast would round to bf16.
        mixed = (weights.float()[..., None, None, None, None] * torch.stack(list(self.tables))).sum(dim=1)
        return look_up(unit, mixed)


class CDTNet(Peer):
    """CDTNet.

    Args:
        width: channels of the low-resolution network, n.
        lattice: side of the look-up tables.
        low: side in pixels at which the low-resolution network sees the image.
    """

    def __init__(self, width: int = 32, lattice: int = 33, low: int = LOW) -> None:
        super().__init__()
        self.low = low
        self.pixels = IS2AM(width)
        self.colors = ColorTables(8 * width, lattice)
        self.refine = nn.Sequential(
            nn.Conv2d(7 + width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ELU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ELU(),
        )  # fmt: skip
        self.blend, self.rgb = nn.Conv2d(2 * width, 1, 1), nn.Conv2d(2 * width, 3, 1)

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        return from_unit(self.images(to_unit(composite), mask)[0])

    def images(self, unit: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The result, the image of the tables, and the one at low resolution, all in [0, 1]; unit (B, 3, H, W)."""
        normalized, low_mask = normalize(unit), shrink(mask, self.low)
        low, feature, maps = self.pixels.results(normalize(shrink(unit, self.low)), low_mask)
        changed = paste(self.colors(unit, maps[-1], mask), unit, mask)
        small = denormalize(low)
        low, feature = (
            F.interpolate(each, size=unit.shape[-2:], mode="bilinear", align_corners=False) for each in (low, feature)
        )
        x = self.refine(torch.cat([low, normalize(changed), mask, feature], dim=1))
        share = (3 * self.blend(x)).sigmoid()
        return denormalize(share * normalized + (1 - share) * self.rgb(x)), changed, small

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        result, changed, small = self.images(to_unit(composite), mask)
        large = foreground_mse(result, to_unit(real), mask) + foreground_mse(changed, to_unit(real), mask)
        return large + foreground_mse(small, shrink(to_unit(real), self.low), shrink(mask, self.low))
