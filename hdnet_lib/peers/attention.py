"""Spatial-separated attention of S2AM and iS2AM: one gate for the background, two for the foreground."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def gaussian_kernel(size: int, deviation: float) -> Tensor:
    """A Gaussian of sum 1 on size x size pixels, (1, 1, size, size)."""
    distances = torch.arange(size) - (size - 1) / 2
    line = torch.exp(-(distances**2) / (2 * deviation**2))
    return torch.outer(line, line).div(line.sum() ** 2).view(1, 1, size, size)


class ChannelGate(nn.Module):
    """Weigh each channel by a sigmoid of the mean and the largest value of all channels."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        pooled = torch.cat([feature.mean(dim=(2, 3)), feature.amax(dim=(2, 3))], dim=1)
        return feature * self.layers(pooled).sigmoid()[:, :, None, None]


class SeparatedAttention(nn.Module):
    """``m (L(gate_f(x)) + gate_mix(x)) + (1 - m) gate_b(x)`` with the blurred mask m and two convolutions L.

    Args:
        channels: C of the feature map.
        hidden: channels inside a gate.
        middle: channels between the two convolutions of L.
        activation: after each convolution of L.
    """

    kernel: Tensor

    def __init__(
        self, channels: int, hidden: int, middle: int, activation: type[nn.Module], blur: tuple[int, float]
    ) -> None:
        super().__init__()
        self.background, self.foreground, self.mix = (ChannelGate(channels, hidden) for _ in range(3))
        self.learned = nn.Sequential(
            nn.Conv2d(channels, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            activation(),
            nn.Conv2d(middle, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            activation(),
        )
        self.register_buffer("kernel", gaussian_kernel(*blur), persistent=False)

    def regions(self, feature: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The blurred masks of foreground and background at the feature's size, each (B, 1, H, W)."""
        raise NotImplementedError

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """feature (B, C, H, W), mask (B, 1, H', W') -> (B, C, H, W)."""
        foreground, background = self.regions(feature, mask)
        inside = self.learned(self.foreground(feature)) + self.mix(feature)
        return foreground * inside + background * self.background(feature)


class S2AMAttention(SeparatedAttention):
    """That of S2AM: the mask is read at one pixel in so many, and the background has a blur of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels // 16, 2 * channels, nn.ELU, (5, 2**0.5))

    def regions(self, feature: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class: the mean of the upper left 2 x 2 pixels of each cell, rounded, then blurred."""
        inside = F.avg_pool2d(mask, 2, stride=mask.shape[-1] // feature.shape[-1]).round()
        both = torch.cat([inside, 1 - inside])
        blurred = F.conv2d(F.pad(both, (2, 2, 2, 2), mode="reflect"), self.kernel.to(mask.dtype))
        foreground, background = blurred.chunk(2)
        return foreground, background


class IS2AMAttention(SeparatedAttention):
    """That of iS2AM: the mask is resized bilinearly and blurred, and the background is the rest."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, max(channels // 16, 8), channels // 2, nn.ReLU, (7, 1.0))

    def regions(self, feature: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class."""
        mask = F.interpolate(mask, size=feature.shape[-2:], mode="bilinear", align_corners=True)
        blurred = F.conv2d(mask, self.kernel.to(mask.dtype), padding=3)
        return blurred, 1 - blurred
