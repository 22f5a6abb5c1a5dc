"""Regions of feature maps and images: a mask at another size, and statistics inside it."""

from torch import Tensor
from torch.nn.functional import interpolate


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
    mean = (feature * region).sum(dim=(2, 3), keepdim=True) / area
    variance = ((feature - mean) * region).square().sum(dim=(2, 3), keepdim=True) / area
    return mean, (variance + eps).sqrt()
