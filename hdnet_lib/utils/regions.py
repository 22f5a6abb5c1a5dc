"""Regions of feature maps and images: a mask at another size, statistics inside it, and work in bands of rows."""

from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import interpolate

BAND = 2**18
"""Numbers of a band of rows: so few stay in the cache of a core while one operation follows another."""
LARGE = 2**21
"""A map of fewer numbers is not cut into bands: at 256 pixels that would cost more than it saves."""


def resize_mask(mask: Tensor, like: Tensor) -> Tensor:
    """Bring a mask (B, 1, H, W) to the height and width of the feature ``like``, by nearest neighbour."""
    if mask.shape[-2:] == like.shape[-2:]:
        return mask.to(like.dtype)
    return interpolate(mask, size=like.shape[-2:], mode="nearest").to(like.dtype)


def region_statistics(feature: Tensor, region: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel inside a region.

    Args:
        feature: (B, C, H, W).
        region: (B, 1, H, W), 1 inside the region and 0 outside.
        eps: added to the area and to the variance, so that an empty region gives 0 and sqrt(eps).

    Returns:
        Mean and standard deviation, each (B, C, 1, 1).
    """
    area = region.sum(dim=(2, 3), keepdim=True) + eps
    mean = _sum_of_bands(lambda x, r: x * r, feature, region) / area
    variance = _sum_of_bands(lambda x, r: ((x - mean) * r).square(), feature, region) / area
    return mean, (variance + eps).sqrt()


def bands(feature: Tensor, region: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of both that belong together: a band at a time on a CPU without gradients, else all in one.

    On a large map each operation on its own would fetch it from memory and bring a result back.
    """
    traced = torch.compiler.is_compiling()  # sizes are symbols then
    if traced or torch.is_grad_enabled() or feature.device.type != "cpu" or feature.numel() < LARGE:
        return iter([(feature, region)])
    rows = max(1, feature.shape[2] * BAND // feature.numel())
    return zip(feature.split(rows, dim=2), region.split(rows, dim=2), strict=True)


def map_bands(function: Callable[[Tensor, Tensor], Tensor], feature: Tensor, region: Tensor) -> Tensor:
    """What ``function`` makes of feature (B, C, H, W) and region (B, 1, H, W), each position for itself, in bands."""
    results = (function(*band) for band in bands(feature, region))
    first = next(results)
    if first.shape[2] == feature.shape[2]:
        return first
    whole, top = first.new_empty(*first.shape[:2], *feature.shape[2:]), 0
    for result in chain([first], results):
        whole[:, :, top : top + result.shape[2]] = result
        top += result.shape[2]
    return whole


def _sum_of_bands(function: Callable[[Tensor, Tensor], Tensor], feature: Tensor, region: Tensor) -> Tensor:
    """Sums over all positions, (B, C, 1, 1)."""
    sums = [function(*band).sum(dim=(2, 3), keepdim=True) for band in bands(feature, region)]
    return torch.stack(sums).sum(dim=0) if len(sums) > 1 else sums[0]
