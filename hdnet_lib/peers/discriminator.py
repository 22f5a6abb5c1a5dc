"""The discriminator of DoveNet and RainNet: does an image look real, and its foreground as its background does?"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from hdnet_lib.model.initialization import initialize
from hdnet_lib.peers.partial import PartialConv


def _normalized(convolution: nn.Conv2d) -> nn.Module:
    initialize(convolution)
    return spectral_norm(convolution)


class RegionStack(nn.Module):
    """Seven partial convolutions, 256 pixels to one; instance norm after all but the first and the last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [3, *(width * multiple for multiple in (1, 2, 4, 8, 8, 8, 8))]
        self.convolutions = nn.ModuleList(
            _normalized(PartialConv(above, below, stride=1 if level == 6 else 2))
            for level, (above, below) in enumerate(itertools.pairwise(channels))
        )

    def forward(self, image: Tensor, region: Tensor) -> Tensor:
        """image (B, 3, H, W) in [-1, 1], region (B, 1, H, W), sides of 256 or more -> (B, 8 * width, h, w)."""
        last = len(self.convolutions) - 1
        for level, convolution in enumerate(self.convolutions):
            image, region = convolution(image, region)
            if 0 < level < last:
                image = F.instance_norm(image)
            if level < last:
                image = F.leaky_relu(image, 0.2)
        return image


class RegionDiscriminator(nn.Module):
    """Two judgements of an image, each large where it takes it for real.

    Args:
        width: channels of the first convolution.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.whole, self.regions = RegionStack(width), RegionStack(width)
        self.judge_whole, last = nn.Conv2d(8 * width, 1, 1), nn.Conv2d(8 * width, 1, 1)
        initialize(self.judge_whole)
        initialize(last)
        first, second = (_normalized(nn.Conv2d(8 * width, 8 * width, 1)) for _ in range(2))
        self.judge_regions = nn.Sequential(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2), last)

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) in [-1, 1], mask (B, 1, H, W), sides of 256 or more -> of the whole image, and of how
        like the foreground is to the background, each (B, 1, h, w)."""
        whole = self.whole(image, torch.ones_like(mask))
        foreground, background = self.regions(torch.cat([image, image]), torch.cat([mask, 1 - mask])).chunk(2)
        return self.judge_whole(whole), self.judge_regions(foreground * background)


def hinge_loss(discriminator: nn.Module, fake: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """What the discriminator lowers: judgements of real images below 1, and of the others above -1."""
    (real_whole, real_regions), (fake_whole, fake_regions) = discriminator(real, mask), discriminator(fake, mask)
    whole = F.relu(1 - real_whole).mean() + F.relu(1 + fake_whole).mean()
    return whole + F.relu(1 - real_regions).mean() + F.relu(1 + fake_regions).mean()


def realism_loss(discriminator: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """What the generator lowers: both judgements of its image, with a minus."""
    whole, regions = discriminator(image, mask)
    return -whole.mean() - regions.mean()


def gradient_penalty(discriminator: nn.Module, fake: Tensor, real: Tensor, mask: Tensor, share: Tensor) -> Tensor:
    """WGAN-GP's, of the mean of both judgements: of an image that is real by ``share`` (B, 1, 1, 1), else fake."""
    mixed = torch.lerp(fake, real, share).requires_grad_()
    whole, regions = discriminator(mixed, mask)
    (gradient,) = torch.autograd.grad(((whole + regions) / 2).sum(), mixed, create_graph=True)
    return 10 * ((gradient.flatten(1) + 1e-16).norm(dim=1) - 1).square().mean()
