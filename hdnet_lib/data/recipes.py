"""Recipes that make a composite from a real photo: recolour its foreground.

Every recipe works on batches on any device: images (B, 3, H, W) in [0, 1], masks (B, 1, H, W) with 1
on the foreground, and returns the composite, whose background is the photo's, untouched.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hdnet_lib.rain import region_statistics

# Ruderman's l-alpha-beta, as used by Reinhard et al. 2001: RGB -> LMS, log10, decorrelate.
_RGB_TO_LMS = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_LMS_TO_LAB = ((3**-0.5, 3**-0.5, 3**-0.5), (6**-0.5, 6**-0.5, -2 * 6**-0.5), (2**-0.5, -(2**-0.5), 0.0))
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def _apply(matrix: Tensor, image: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", matrix, image)


def _paste(foreground: Tensor, photo: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask > 0.5, foreground.clamp(0, 1), photo)


def reinhard(photo: Tensor, mask: Tensor, reference: Tensor, reference_mask: Tensor) -> Tensor:
    """Give the foreground the colour mean and spread of another photo's region.

    In l-alpha-beta, per channel: ``x' = (x - mu_t) sd_r / sd_t + mu_r`` with t the foreground and r the
    reference region (Reinhard, Ashikhmin, Gooch and Shirley, "Color transfer between images", 2001).
    """
    to_lms = photo.new_tensor(_RGB_TO_LMS)
    to_lab = photo.new_tensor(_LMS_TO_LAB)

    def to_space(image: Tensor) -> Tensor:
        return _apply(to_lab, _apply(to_lms, image).clamp(min=1 / 255).log10())

    target = to_space(photo)
    target_mean, target_sd = region_statistics(target, mask, eps=1e-8)
    reference_mean, reference_sd = region_statistics(to_space(reference), reference_mask, eps=1e-8)
    moved = (target - target_mean) * (reference_sd / target_sd) + reference_mean
    # The ends of log space are cut: no photo needs them, and 10 to a large power overflows.
    rgb = _apply(to_lms.inverse(), 10 ** _apply(to_lab.inverse(), moved).clamp(-4, 1))
    return _paste(rgb, photo, mask)


class Photometric(NamedTuple):
    """Settings of :func:`photometric`: numbers, or tensors (B, 1, 1, 1) and, for ``channel_gain``, (B, 3, 1, 1)."""

    gamma: Tensor | float
    gain: Tensor | float
    channel_gain: Tensor | float
    contrast: Tensor | float
    saturation: Tensor | float


def draw_photometric(batch: int, like: Tensor, generator: torch.Generator | None = None) -> Photometric:
    """Draw settings for ``batch`` images: gamma exp(U(-.7, .7)), gain U(.55, 1.5), gain of each channel
    exp(N(0, .13)), contrast U(.65, 1.5), saturation U(.4, 1.7). Drawn on the CPU, moved to ``like``."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(batch, 1, 1, 1, generator=generator, dtype=torch.float64) * (high - low) + low

    settings = Photometric(
        gamma=uniform(-0.7, 0.7).exp(),
        gain=uniform(0.55, 1.5),
        channel_gain=(torch.randn(batch, 3, 1, 1, generator=generator, dtype=torch.float64) * 0.13).exp(),
        contrast=uniform(0.65, 1.5),
        saturation=uniform(0.4, 1.7),
    )
    return Photometric(*(value.to(like) for value in settings))


def photometric(photo: Tensor, mask: Tensor, settings: Photometric) -> Tensor:
    """Change the foreground as a camera or a photo editor would: gamma, gain, white balance, contrast
    about the foreground's mean, saturation about its grey; then clip."""
    x = photo.clamp(min=1e-6) ** settings.gamma * settings.gain * settings.channel_gain
    mean, _ = region_statistics(x, mask)
    x = (x - mean) * settings.contrast + mean
    grey = (x * x.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    x = (x - grey) * settings.saturation + grey
    return _paste(x, photo, mask)
