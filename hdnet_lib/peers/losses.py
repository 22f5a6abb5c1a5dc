"""Losses of the other systems' authors; the discriminator of two has a file of its own.

Left out: S2CRNet's discriminator, which has a weight of a hundredth; PCT-Net's comparison of VGG features, which needs
a pretrained network; Harmonizer's losses of single filters, which need composites made by its filters; that DCCF's
weights change in epoch 40; and S2AM's factor of 10^10, which Adam does not see. Each network's
:meth:`~hdnet_lib.peers.base.Peer.own_loss` puts its own together; "image" is (B, 3, H, W) unless said.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hdnet_lib.model.losses import foreground_mse
from hdnet_lib.peers.ranges import normalize, to_unit

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in Intrinsic's grey image."""


def _convolve(x: Tensor, kernels: Tensor) -> Tensor:
    """Without padding, and in float32 also under autocast, where differences would be lost."""
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x.float(), kernels)


def _blur(x: Tensor, size: int) -> Tensor:
    """By a Gaussian of sigma 1.5: (B, 1, H, W) -> (B, 1, H - size + 1, W - size + 1)."""
    window = (-(torch.arange(size, device=x.device) - size // 2).square() / (2 * 1.5**2)).exp()
    return _convolve(x, torch.outer(window, window)[None, None] / window.sum() ** 2)


def normalized_mse(image: Tensor, real: Tensor, mask: Tensor, a_min: float) -> Tensor:
    """Eq. 1 in ImageNet's normalised colours, over the unpasted image: iDIH, iS2AM and those who follow them.

    Images in [-1, 1].
    """
    return foreground_mse(normalize(to_unit(image)), normalize(to_unit(real)), mask, a_min)


def relative_l1(image: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """S2CRNet's: absolute error of the foreground, summed over colours, by its area; images in [0, 1]."""
    error = ((image - real).abs() * mask).sum(dim=(1, 2, 3))
    return (error / mask.sum(dim=(1, 2, 3)).clamp(min=1)).mean()


def filter_loss(image: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """Harmonizer's for one filter: a smooth absolute error and ten times the squared one, by the foreground's area.

    Images in [0, 1].
    """
    squared = (image - real).square()
    error = (((squared + 1e-6).sqrt() + 10 * squared) * mask).sum(dim=(1, 2, 3))
    return (error / mask.sum(dim=(1, 2, 3)).clamp(min=1)).mean()


def edge_size(maps: Tensor) -> Tensor:
    """PCT-Net's smoothness of its parameters (B, C, H, W): mean size of Sobel's gradient."""
    down = torch.tensor([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]], device=maps.device) / 8
    kernels = torch.stack([down, down.T]).unsqueeze(1)  # (2, 1, 3, 3)
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate").flatten(0, 1).unsqueeze(1)
    return (_convolve(padded, kernels).square().sum(dim=1) + 1e-6).sqrt().mean()


def triplets(codes: Sequence[Tensor]) -> Tensor:
    """BargainNet's: of four codes (B, code) the composite's foreground is the odd one.

    The others are of the real foreground, the harmonised one, and the background, which comes last. (The authors' code
    hands over (B, code, 1, 1), of which PyTorch takes the distance number by number.)
    """
    real, harmonized, composite, background = codes
    first = F.triplet_margin_loss(real, harmonized, composite, margin=0.1)
    return first + F.triplet_margin_loss(harmonized, background, composite, margin=0.1)


# --- Intrinsic


def edge_difference(image: Tensor, real: Tensor) -> Tensor:
    """Intrinsic's: how far the steps between neighbours differ, summed over the colours, along both axes."""

    def steps(x: Tensor, axis: int) -> Tensor:
        x = x.sum(dim=1)
        before = F.pad(x, (1, 0, 0, 0) if axis == 2 else (0, 0, 1, 0)).narrow(axis, 0, x.shape[axis])
        return (x - before).abs()

    return sum((F.l1_loss(steps(image, axis), steps(real, axis)) for axis in (1, 2)), image.new_zeros(()))


def bend(image: Tensor) -> Tensor:
    """Intrinsic's smoothness of illumination: mean sizes of the second differences along, across and both ways."""
    down, right = image.diff(dim=2), image.diff(dim=3)
    return down.diff(dim=2).abs().mean() + right.diff(dim=3).abs().mean() + 2 * down.diff(dim=3).abs().mean()


def structure_difference(feature: Tensor, image: Tensor) -> Tensor:
    """Intrinsic's: (1 - the part of SSIM for contrast and structure) / 2.

    Args:
        feature: (B, 1, h, w) in [-1, 1].
        image: in [0, 1], of any size.
    """
    grey = (image * image.new_tensor(GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    grey = F.interpolate(grey, size=feature.shape[-2:], mode="nearest")

    def mean(x: Tensor) -> Tensor:
        return _blur(F.pad(x, (5, 5, 5, 5)), 11)

    covariance = mean(feature * grey) - mean(feature) * mean(grey)
    variances = [mean(x.square()) - mean(x).square() for x in (feature, grey)]
    similarity = (2 * covariance + 9e-4) / (variances[0] + variances[1] + 9e-4)
    return (1 - similarity.mean()) / 2


# --- DCCF


def luminance_map(unit: Tensor) -> Tensor:
    """DCCF's target of luminance: the blurred value of HSV, (B, 1, H, W)."""
    return _blur(F.pad(unit.amax(dim=1, keepdim=True), (2, 2, 2, 2), mode="reflect"), 5)


def saturation_map(unit: Tensor) -> Tensor:
    """DCCF's target of saturation: the largest colour less the smallest, (B, 1, H, W)."""
    return unit.amax(dim=1, keepdim=True) - unit.amin(dim=1, keepdim=True)


def hue_map(unit: Tensor) -> Tensor:
    """DCCF's target of hue: the colours at a lightness of 0.8."""
    lightness = (unit.amax(dim=1, keepdim=True) + unit.amin(dim=1, keepdim=True)) / 2
    return (unit - lightness + 0.8).clamp(0, 1)


def variation(maps: Tensor, mask: Tensor) -> Tensor:
    """DCCF's squared steps of its maps (B, C, H, W) on the foreground, by its area and C."""
    inside = maps * mask
    steps = inside.diff(dim=2).square().sum(dim=(1, 2, 3)) + inside.diff(dim=3).square().sum(dim=(1, 2, 3))
    return (steps / (maps.shape[1] * mask.sum(dim=(1, 2, 3)).clamp(min=100))).mean()


# --- INR


def table_image_mse(image: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """INR's for the image that its look-up table gives: squared error where the mask is above 0.39, by its area."""
    error = ((image - real).square() * (mask > 100 / 255)).sum(dim=(1, 2, 3))
    return (error / mask.sum(dim=(1, 2, 3)).clamp(min=100)).mean()


def table_excess(table: Tensor) -> Tensor:
    """INR's: mean squared excess of the table's numbers over 1, and below 0, of those that leave the range."""
    excesses = [table[table > 1] - 1, table[table < 0]]
    return sum((each.square().mean() for each in excesses if len(each)), table.new_zeros(()))
