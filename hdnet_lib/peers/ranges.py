"""Ranges of colours: a composite comes in [-1, 1], and each system has its own."""

import torch
from torch import Tensor

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's colours in [0, 1]."""


def to_unit(image: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1]."""
    return (image + 1) / 2


def from_unit(image: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1]."""
    return 2 * image - 1


def normalize(unit: Tensor) -> Tensor:
    """[0, 1] (B, 3, H, W) -> mean 0 and deviation 1 over ImageNet."""
    mean, deviation = _statistics(unit)
    return (unit - mean) / deviation


def denormalize(normalized: Tensor) -> Tensor:
    """The inverse of :func:`normalize`."""
    mean, deviation = _statistics(normalized)
    return normalized * deviation + mean


def _statistics(like: Tensor) -> list[Tensor]:
    return [torch.tensor(values, dtype=like.dtype, device=like.device).view(1, 3, 1, 1) for values in (MEAN, DEVIATION)]
