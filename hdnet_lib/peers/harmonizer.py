"""Harmonizer (Ke et al., ECCV 2022): six classical filters, whose arguments a small network predicts."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.model.hdnet import paste
from hdnet_lib.peers.base import Peer
from hdnet_lib.peers.hsv import hsv_to_rgb, rgb_to_hsv
from hdnet_lib.peers.losses import filter_loss
from hdnet_lib.peers.maps import LOW, shrink
from hdnet_lib.peers.ranges import from_unit, to_unit

EPS = 1e-6

# --- The filters: image (B, 3, H, W) in [0, 1] and argument (B,) in [-1, 1]; 0 changes nothing.


def temperature(image: Tensor, x: Tensor) -> Tensor:
    """Warmer for x > 0, colder for x < 0; the means are those of the whole image."""
    means = image.mean(dim=(2, 3))
    grey = means.mean(dim=1, keepdim=True)
    sizes = x.abs()
    moved = torch.stack([sizes * (x < 0), sizes / 2, sizes * (x > 0)], dim=1) + means
    factors = moved.mean(dim=1, keepdim=True) / (moved + EPS) + 1 - grey / (means + EPS)
    return image * factors[:, :, None, None]


def brightness(image: Tensor, x: Tensor) -> Tensor:
    """Scale the value of HSV."""
    hue, saturation, value = rgb_to_hsv(image)
    factor = torch.where(x >= 0, 1 / (1 - x + EPS), 1 + x)
    return hsv_to_rgb(hue, saturation, value * factor[:, None, None])


def contrast(image: Tensor, x: Tensor) -> Tensor:
    """Stretch around the mean over all pixels and colours."""
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    # The rounding down is that of the code, where 255 x is a whole number of an 8-bit control.
    factor = torch.where(x > 0, 255 / (256 - (255 * x).floor()) - 1, x)[:, None, None, None]
    return image + (image - mean) * factor


def saturation(image: Tensor, x: Tensor) -> Tensor:
    """Stretch each pixel around its lightness."""
    x = x[:, None, None, None]
    light, now = lightness(image), hsl_saturation(image)
    factor = torch.where(x >= 0, 1 / (torch.where(x + now > 1, now, 1 - x) + EPS) - 1, x)
    return image + (image - light) * factor


def lightness(image: Tensor) -> Tensor:
    """L of HSL, (B, 1, H, W)."""
    return (image.amax(dim=1, keepdim=True) + image.amin(dim=1, keepdim=True)) / 2


def hsl_saturation(image: Tensor) -> Tensor:
    """S of HSL, (B, 1, H, W)."""
    high, low = image.amax(dim=1, keepdim=True), image.amin(dim=1, keepdim=True)
    both = high + low
    return (high - low) / (torch.where(both < 1, both, 2 - both) + EPS)


def highlight(image: Tensor, x: Tensor) -> Tensor:
    """A power of what is missing to white."""
    return 1 - (1 - image + 1e-9).pow(1 + x[:, None, None, None]).clamp(0, 1)


def shadow(image: Tensor, x: Tensor) -> Tensor:
    """A power of the colours."""
    return (image + 1e-9).pow(1 - x[:, None, None, None]).clamp(0, 1)


FILTERS = (temperature, brightness, contrast, saturation, highlight, shadow)


def apply_filters(image: Tensor, arguments: Tensor) -> list[Tensor]:
    """The images after each filter, each (B, 3, H, W) in [0, 1]; arguments (B, 6) in [-1, 1]."""
    images = []
    for change, argument in zip(FILTERS, arguments.unbind(dim=1), strict=True):
        image = change(image, argument).clamp(0, 1)
        images.append(image)
    return images


# --- The network: EfficientNet with two stems, and a cascade of linear layers


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding: of an odd number of pixels one more goes below and to the right."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        sides = []
        for length in (x.shape[3], x.shape[2]):
            kernel, stride = self.kernel_size[0], self.stride[0]
            padding = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            sides += [padding // 2, padding - padding // 2]
        return super().forward(F.pad(x, sides))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """That of EfficientNet."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class MBConv(nn.Module):
    """EfficientNet's block: expand, depthwise convolution, squeeze and excitation, project."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner, few = expansion * inputs, max(1, inputs // 4)
        if expansion > 1:
            self.expand, self.expand_norm = SameConv(inputs, inner, 1, bias=False), batch_norm(inner)
        self.depthwise = SameConv(inner, inner, kernel, stride, groups=inner, bias=False)
        self.depthwise_norm = batch_norm(inner)
        self.reduce, self.excite = nn.Conv2d(inner, few, 1), nn.Conv2d(few, inner, 1)
        self.project, self.project_norm = SameConv(inner, outputs, 1, bias=False), batch_norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor, drop: float) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ., .); ``drop``: chance that an image skips the block while training."""
        y = F.silu(self.expand_norm(self.expand(x))) if hasattr(self, "expand") else x
        y = F.silu(self.depthwise_norm(self.depthwise(y)))
        y = y * self.excite(F.silu(self.reduce(y.mean(dim=(2, 3), keepdim=True)))).sigmoid()
        y = self.project_norm(self.project(y))
        if not self.residual:
            return y
        if self.training and drop:
            kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= drop
            y = y * kept / (1 - drop)
        return x + y


BLOCKS = (
    (32, 16, 3, 1, 1, 1), (16, 24, 3, 2, 6, 2), (24, 40, 5, 2, 6, 2), (40, 80, 3, 2, 6, 3), (80, 112, 5, 1, 6, 3),
    (112, 192, 5, 2, 6, 4), (192, 320, 3, 1, 6, 1),
)  # fmt: skip
"""Of EfficientNet-B0: input and output channels, kernel, stride, expansion, how often."""


class Harmonizer(Peer):
    """Harmonizer.

    Args:
        width: of EfficientNet, 1 for B0.
        hidden: numbers that the cascade hands on from filter to filter.
        low: side in pixels at which the network sees the image.
    """

    def __init__(self, width: float = 1.0, hidden: int = 160, low: int = LOW) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            rounded = max(8, int(channels * width + 4) // 8 * 8)
            return rounded + 8 if rounded < 0.9 * channels * width else rounded

        self.low = low
        half, head = scaled(32) // 2, scaled(1280)
        self.stems = nn.ModuleList(SameConv(4, half, 3, 2, bias=False) for _ in range(2))
        self.stem_norms = nn.ModuleList(batch_norm(half) for _ in range(2))
        self.blocks = nn.ModuleList(
            MBConv(scaled(inputs if not again else outputs), scaled(outputs), kernel, 1 if again else stride, expansion)
            for inputs, outputs, kernel, stride, expansion, count in BLOCKS
            for again in range(count)
        )
        self.head, self.head_norm = SameConv(scaled(320), head, 1, bias=False), batch_norm(head)
        self.common, self.first = nn.Linear(head, 160), nn.Linear(head, hidden)
        self.cascade = nn.ModuleList(
            nn.Sequential(nn.Linear(160 + hidden, hidden), nn.Linear(hidden, 1)) for _ in FILTERS
        )

    def arguments(self, low: Tensor, low_mask: Tensor) -> Tensor:
        """low (B, 3, H, W) in [0, 1], low_mask (B, 1, H, W) -> the filters' arguments (B, 6), not cut yet."""
        regions = (low_mask, 1 - low_mask)
        stems = zip(self.stems, self.stem_norms, regions, strict=True)
        x = torch.cat([F.silu(norm(stem(torch.cat([low, region], dim=1)))) for stem, norm, region in stems], dim=1)
        for index, block in enumerate(self.blocks):
            x = block(x, drop=0.2 * index / len(self.blocks))
        x = F.silu(self.head_norm(self.head(x))).mean(dim=(2, 3))
        common, state, arguments = self.common(x), self.first(x), []
        for link in cast(Iterable[nn.Sequential], self.cascade):
            state = link[0](torch.cat([common, state], dim=1))
            arguments.append(link[1](state))
        return torch.cat(arguments, dim=1)

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`; pasted by the mask, as its code does."""
        unit = to_unit(composite)
        arguments = self.arguments(shrink(unit, self.low), shrink(mask, self.low)).clamp(-1, 1)
        return from_unit(paste(apply_filters(unit, arguments)[-1], unit, mask))

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`; for composites that were not made by its filters."""
        return 10 * filter_loss(to_unit(self.predict(composite, mask)), to_unit(real), mask)
