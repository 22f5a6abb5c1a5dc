"""Hue, saturation and value, in PyTorch, with gradients."""

import torch
from torch import Tensor


def rgb_to_hsv(image: Tensor, eps: float = 1e-8) -> tuple[Tensor, Tensor, Tensor]:
    """(B, 3, H, W) in [0, 1] -> hue in [0, 1), saturation and value in [0, 1], each (B, H, W)."""
    red, green, blue = image.unbind(dim=1)
    value, largest = image.max(dim=1)
    spread = value - image.amin(dim=1)
    saturation = spread / (value + eps)
    safe = torch.where(spread == 0, torch.ones_like(spread), spread)
    sectors = torch.stack([green - blue, blue - red + 2 * safe, red - green + 4 * safe], dim=1)
    hue = sectors.gather(1, largest.unsqueeze(1)).squeeze(1) / safe / 6
    return hue % 1, saturation, value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Each (B, H, W) -> (B, 3, H, W): the inverse of :func:`rgb_to_hsv`; hues outside [0, 1) go round."""
    sector = (hue.unsqueeze(1) * 6 + torch.tensor([5, 3, 1], device=hue.device).view(1, 3, 1, 1)) % 6
    ramp = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return value.unsqueeze(1) * (1 - saturation.unsqueeze(1) * ramp)
