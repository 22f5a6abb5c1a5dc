"""DucoNet (Tan et al., ACM MM 2023): iS2AM, steered by codes of the three channels of CIE L*a*b*."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.composites.color import rgb_to_lab
from hdnet_lib.peers.issam import IS2AM, Encoder
from hdnet_lib.peers.ranges import denormalize, from_unit, normalize, to_unit


def lab_image(unit: Tensor) -> Tensor:
    """L*a*b* in [0, 1], rounded to 8 bits as OpenCV does: (B, 3, H, W) in [0, 1] -> (B, 3, H, W)."""
    lab = rgb_to_lab(unit)
    scaled = torch.cat([lab[:, :1] * 2.55, lab[:, 1:] + 128], dim=1)
    return scaled.round().clamp(0, 255) / 255


class ChannelEncoder(nn.Module):
    """The code of one channel of L*a*b* and the mask."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.encoder = Encoder(2, width)
        self.code = nn.Sequential(nn.Linear(8 * width, 256), nn.ReLU(), nn.Linear(256, code))

    def forward(self, channel: Tensor, mask: Tensor) -> Tensor:
        """Each (B, 1, H, W) -> (B, code)."""
        return self.code(self.encoder(torch.cat([channel, mask], dim=1))[-1].mean(dim=(2, 3)))


class StyleBlock(nn.Module):
    """StyleGAN2's modulated and demodulated 3x3 convolution, without noise."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.style, self.style_bias = nn.Parameter(torch.randn(channels, code)), nn.Parameter(torch.ones(channels))
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """x (B, C, H, W), code (B, code) -> (B, C, H, W)."""
        style = F.linear(code, self.style / self.style.shape[1] ** 0.5, self.style_bias)
        weight = self.weight / self.weight[0].numel() ** 0.5 * style[:, None, :, None, None]  # (B, C, C, 3, 3)
        weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        batch, channels = x.shape[:2]
        result = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), padding=1, groups=batch)
        return F.leaky_relu(result.view(batch, channels, *x.shape[2:]) + self.bias.view(1, -1, 1, 1), 0.2)


class Style(nn.ModuleList):
    """Two blocks, one after the other."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__(StyleBlock(channels, code) for _ in range(2))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """As :class:`StyleBlock`."""
        for block in self:
            x = block(x, code)
        return x


class Control(nn.Module):
    """Change the foreground of a map by each of the three codes, and mix the three results."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.styles = nn.ModuleList(Style(channels, code) for _ in range(3))
        self.mix = nn.Sequential(nn.Conv2d(3 * channels, 32, 1), nn.ReLU(), nn.Conv2d(32, 3, 1))

    def forward(self, x: Tensor, codes: list[Tensor], mask: Tensor) -> Tensor:
        """x (B, C, H, W), codes three of (B, code), mask (B, 1, ., .) -> (B, C, H, W)."""
        changed = [style(x, code) for style, code in zip(self.styles, codes, strict=True)]
        weights = self.mix(torch.cat(changed, dim=1)).softmax(dim=1)  # (B, 3, H, W)
        mixed = (torch.stack(changed, dim=1) * weights.unsqueeze(2)).sum(dim=1)
        mask = F.interpolate(mask, size=x.shape[-2:], mode="bilinear", align_corners=True)
        return x * (1 - mask) + mixed * mask


class DucoNet(IS2AM):
    """DucoNet.

    Args:
        width: channels of the trunk, n.
        code: numbers of each channel's code.
    """

    a_min = 100

    def __init__(self, width: int = 32, code: int = 256) -> None:
        super().__init__(width)
        self.encoders = nn.ModuleList(ChannelEncoder(width, code) for _ in range(3))
        self.controls = nn.ModuleList(Control(width * multiple, code) for multiple in (4, 2, 1))

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        unit = to_unit(composite)
        return self.render(unit, mask, lab_image(unit))

    def render(self, unit: Tensor, mask: Tensor, lab: Tensor) -> Tensor:
        """unit and its L*a*b* image, each (B, 3, H, W) in [0, 1] -> (B, 3, H, W) in [-1, 1]."""
        codes = [encoder(channel, mask) for encoder, channel in zip(self.encoders, lab.split(1, dim=1), strict=True)]
        normalized = normalize(unit)
        feature, share, _ = self.features(normalized, mask, lambda level, x: self.controls[level](x, codes, mask))
        return from_unit(denormalize(share * normalized + (1 - share) * self.rgb(feature)))
