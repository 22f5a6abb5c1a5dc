"""S2CRNet (Liang et al., ECCV 2022): curves of colours from the mean features of foreground and background."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.model.hdnet import paste
from hdnet_lib.peers.base import Peer
from hdnet_lib.peers.losses import relative_l1
from hdnet_lib.peers.maps import LOW, shrink
from hdnet_lib.peers.ranges import from_unit, to_unit

PIECES = 64
"""Straight pieces of each colour's curve."""


class Fire(nn.Module):
    """SqueezeNet's block: few channels, then 1x1 and 3x3 convolutions side by side."""

    def __init__(self, inputs: int, few: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, few, 1)
        self.expand1x1 = nn.Conv2d(few, expanded, 1)
        self.expand3x3 = nn.Conv2d(few, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 2 x expanded, H, W)."""
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], dim=1)


def squeezenet() -> nn.Sequential:
    """The features of SqueezeNet 1.1 without its last block: 512 channels."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128),
        Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256),
    )  # fmt: skip


def vgg(width: int) -> nn.Sequential:
    """The features of VGG-16 up to its last activation: 8 x width channels."""
    layers: list[nn.Module] = []
    channels = 3
    for stage, (multiple, count) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))):
        if stage:
            layers.append(nn.MaxPool2d(2))
        for _ in range(count):
            layers += [nn.Conv2d(channels, multiple * width, 3, padding=1), nn.ReLU()]
            channels = multiple * width
    return nn.Sequential(*layers)


def apply_curves(image: Tensor, slopes: Tensor) -> Tensor:
    """Change each colour by a curve of straight pieces.

    Args:
        image: (B, 3, H, W); values outside [0, 1] are cut.
        slopes: (B, 3, :data:`PIECES`), of the pieces in order; the curve is scaled to end at 1.
    """
    # 64 clamped ramps, one for each piece, come to this: the pieces below, and the part of its own.
    position = image.clamp(0, 1) * PIECES
    piece = position.floor().clamp(max=PIECES - 1)
    below = F.pad(slopes.cumsum(dim=2), (1, 0))
    index = piece.long().flatten(2)
    start, slope = below.gather(2, index).view_as(image), slopes.gather(2, index).view_as(image)
    return (start + slope * (position - piece)) / (slopes.sum(dim=2)[..., None, None] + 1e-30)


class CurveHead(nn.Module):
    """The slopes of three curves from the mean features of foreground and background."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.foreground = nn.Linear(features, 3 * PIECES)
        self.background = nn.Linear(features, 3 * PIECES)
        # The code lets the sum of the slopes pass zero; a straight line is a start from which it hardly does.
        nn.init.ones_(self.foreground.bias)

    def forward(self, foreground: Tensor, background: Tensor) -> Tensor:
        """Each (B, features) -> (B, 3, :data:`PIECES`)."""
        return (self.foreground(foreground) + self.background(background)).unflatten(1, (3, PIECES))


class S2CRNet(Peer):
    """S2CRNet without semantic labels, which need files that are not published.

    Args:
        trunk: (B, 3, H, W) -> (B, features, ., .).
        features: channels of its map.
        low: side in pixels at which the trunk sees the image.
    """

    def __init__(self, trunk: nn.Module, features: int, low: int) -> None:
        super().__init__()
        self.low = low
        self.trunk = trunk
        self.heads = nn.ModuleList(CurveHead(features) for _ in range(2))

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`; pasted by the mask, as its code does."""
        unit = to_unit(composite)
        return self.render(unit, mask, *self.regions(unit, mask))

    def regions(self, unit: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The two small images that the trunk sees: of the foreground, and of the background."""
        background = shrink(unit, self.low) * (1 - shrink(mask, self.low))
        return foreground_crop(unit, mask, self.low), background

    def render(self, unit: Tensor, mask: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
        """unit (B, 3, H, W) in [0, 1], and what :meth:`regions` gives -> (B, 3, H, W) in [-1, 1]."""
        return from_unit(paste(self.stages(unit, foreground, background)[-1], unit, mask))

    def stages(self, unit: Tensor, foreground: Tensor, background: Tensor) -> list[Tensor]:
        """As :meth:`render`, but the images after each head, (B, 3, H, W) in [0, 1], not pasted."""
        means = self.trunk(torch.cat([foreground, background])).mean(dim=(2, 3)).chunk(2)
        images = [unit]
        for head in self.heads:
            images.append(apply_curves(images[-1], head(*means).float()))  # bf16 would be seen as steps
        return images[1:]

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        unit = to_unit(composite)
        images = self.stages(unit, *self.regions(unit, mask))
        return torch.stack([relative_l1(image, to_unit(real), mask) for image in images]).sum()


class S2CRNetSN(S2CRNet):
    """With SqueezeNet."""

    def __init__(self, low: int = LOW) -> None:
        super().__init__(squeezenet(), 512, low)


class S2CRNetVGG(S2CRNet):
    """With VGG-16, whose first stage has ``width`` channels."""

    def __init__(self, width: int = 64, low: int = LOW) -> None:
        super().__init__(vgg(width), 8 * width, low)


def foreground_crop(unit: Tensor, mask: Tensor, side: int) -> Tensor:
    """The bounding box of each mask, stretched to side x side pixels, black outside the mask: (B, 3, side, side).

    (Cut from the image at its own size; the public code has it at 256 pixels alone.)
    """
    crops = []
    for image, inside in zip(unit, mask, strict=True):
        rows, columns = (inside[0].amax(dim=axis).nonzero().flatten() for axis in (1, 0))
        if len(rows):
            box = (..., slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
            image, inside = image[box], inside[box]
        crops.append(shrink(image[None], side) * shrink(inside[None], side))
    return torch.cat(crops)
