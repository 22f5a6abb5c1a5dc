"""HRNet with object context, the backbone of INR: maps of four resolutions side by side, which exchange what they hold.

Wang et al., TPAMI 2020, and Yuan et al., ECCV 2020 (object-contextual representations), as Sofiiuk et al., WACV 2021,
tell them the mask.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEM, EXPANSION = 64, 4
"""Channels of the first convolutions; widening of the first residual blocks."""
MODULES = {2: (1, 3, 2), 4: (1, 4, 3)}
"""Exchanges in the stages of two, three and four resolutions, by the number of residual blocks before each."""


def conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, active: bool = True) -> nn.Sequential:
    """A convolution without bias, batch norm, and ReLU where ``active``."""
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, nn.ReLU()) if active else nn.Sequential(*layers)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """To another map's size, bilinear, corners on corners."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


class Residual(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 to four times as many channels; the input is added."""

    def __init__(self, inputs: int, channels: int, bottleneck: bool = False) -> None:
        super().__init__()
        outputs = channels * EXPANSION if bottleneck else channels
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        last = len(kernels) - 1
        self.layers = nn.Sequential(
            *(
                conv_norm(channels if i else inputs, outputs if i == last else channels, kernel, active=i < last)
                for i, kernel in enumerate(kernels)
            )
        )
        self.shortcut = nn.Identity() if inputs == outputs else conv_norm(inputs, outputs, 1, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return F.relu(self.layers(x) + self.shortcut(x))


class Exchange(nn.Module):
    """Residual blocks at each resolution, then every map is the sum of all, brought to its size."""

    def __init__(self, widths: list[int], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(Residual(width, width) for _ in range(blocks))) for width in widths
        )
        self.fuse = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    @staticmethod
    def _path(widths: list[int], source: int, target: int) -> nn.Module:
        """From one resolution to another: as many halvings as it takes, or a 1x1 convolution before it is enlarged."""
        if source == target:
            return nn.Identity()
        if source > target:
            return conv_norm(widths[source], widths[target], 1, active=False)
        halvings = [conv_norm(widths[source], widths[source], stride=2) for _ in range(target - source - 1)]
        return nn.Sequential(*halvings, conv_norm(widths[source], widths[target], stride=2, active=False))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, width, H, W) of each resolution, the finest first -> the same."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for target, like in zip(cast(list[nn.ModuleList], self.fuse), maps, strict=True):
            parts = [path(x) for path, x in zip(target, maps, strict=True)]
            parts = [part if part.shape == like.shape else resize(part, like) for part in parts]
            fused.append(F.relu(torch.stack(parts).sum(dim=0)))
        return fused


class ObjectContext(nn.Module):
    """What each pixel has in common with foreground and background, the two objects here."""

    def __init__(self, features: int, keys: int) -> None:
        super().__init__()
        self.pixel = nn.Sequential(conv_norm(features, keys, 1), conv_norm(keys, keys, 1))
        self.object = nn.Sequential(conv_norm(features, keys, 1), conv_norm(keys, keys, 1))
        self.down, self.up = conv_norm(features, keys, 1), conv_norm(keys, features, 1)
        self.join = conv_norm(2 * features, features, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, features, H, W), mask (B, 1, H, W) -> (B, features, H, W)."""
        regions = torch.cat([mask, 1 - mask], dim=1).flatten(2)  # (B, 2, H x W)
        # An object's feature is a mean over all pixels, with the softmax of its region as weights.
        objects = (regions.softmax(dim=2) @ x.flatten(2).transpose(1, 2)).transpose(1, 2).unsqueeze(3)
        queries, keys, values = (
            part(y).flatten(2).transpose(1, 2)
            for part, y in ((self.pixel, x), (self.object, objects), (self.down, objects))
        )
        context = F.scaled_dot_product_attention(queries, keys, values)  # (B, H x W, keys)
        context = self.up(context.transpose(1, 2).unflatten(2, x.shape[2:]))
        return F.dropout(self.join(torch.cat([context, x], dim=1)), 0.05, self.training)


class HRNet(nn.Module):
    """HRNet with object context.

    Args:
        width: channels of the finest resolution; each further one has twice as many.
        blocks: residual blocks before each exchange: 4, or 2 in the small version.
        context: channels of the keys of the object context, half those of the result.
    """

    def __init__(self, width: int = 18, blocks: int = 4, context: int = 64) -> None:
        super().__init__()
        if blocks not in MODULES:
            raise ValueError(f"blocks must be one of {', '.join(map(str, MODULES))}, not {blocks}.")
        self.stem = nn.ModuleList([conv_norm(3, STEM, stride=2), conv_norm(STEM, STEM, stride=2)])
        self.mask_stem = nn.Conv2d(1, STEM, 3, 2, 1)
        self.mask_scale = nn.Parameter(torch.full((1,), 0.05))
        wide = EXPANSION * STEM
        self.first = nn.Sequential(*(Residual(wide if i else STEM, STEM, bottleneck=True) for i in range(blocks)))
        widths = [width * 2**level for level in range(4)]
        self.finest = conv_norm(wide, width)
        self.coarser = nn.ModuleList(conv_norm(widths[i] if i else wide, widths[i + 1], stride=2) for i in range(3))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Exchange(widths[: level + 2], blocks) for _ in range(count)))
            for level, count in enumerate(MODULES[blocks])
        )
        self.reduce = nn.Sequential(
            nn.Conv2d(sum(widths), 2 * context, 3, padding=1), nn.BatchNorm2d(2 * context), nn.ReLU()
        )
        self.context = ObjectContext(2 * context, context)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """image (B, 3, H, W) and mask (B, 1, H, W), sides multiples of 32 -> (B, 2 x context, H / 4, W / 4)."""
        x = self.stem[0](image) + self.mask_scale.abs() * self.mask_stem(mask)
        x = self.first(self.stem[1](x))
        maps = [self.finest(x)]
        for coarser, stage in zip(self.coarser, self.stages, strict=True):
            maps = stage([*maps, coarser(x)])
            x = maps[-1]
        x = self.reduce(torch.cat([x if x.shape == maps[0].shape else resize(x, maps[0]) for x in maps], dim=1))
        return self.context(x, resize(mask, x))
