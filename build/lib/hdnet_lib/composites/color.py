"""Colour spaces, batched on any device: images (B, 3, H, W), sRGB in [0, 1] unless a name says otherwise."""

import torch
from torch import Tensor

# Linear sRGB -> CIE XYZ with the white point D65 (IEC 61966-2-1).
RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
D65 = (0.95047, 1.0, 1.08883)
# Red, green, blue -> luma and two colour differences (ITU-R BT.601, full range, differences about 0).
RGB_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def mix_channels(matrix: Tensor, image: Tensor) -> Tensor:
    """Multiply every colour by a matrix (3, 3), or by one for each image (B, 3, 3).

    Sums, not a matrix product: a GPU that is allowed TF32 would round to ten bits there.
    """
    red, green, blue = (column.unsqueeze(-1) for column in matrix.unsqueeze(-1).unbind(-2))
    return red * image[:, :1] + green * image[:, 1:2] + blue * image[:, 2:]


def srgb_to_linear(image: Tensor) -> Tensor:
    """Undo the transfer curve of sRGB."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(image: Tensor) -> Tensor:
    """Apply the transfer curve of sRGB; below 0 it goes on as a line."""
    return torch.where(image <= 0.0031308, image * 12.92, 1.055 * image.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def rgb_to_lab(image: Tensor) -> Tensor:
    """CIE L*a*b* with the white point D65: L in [0, 100], a and b about -100 to 100."""
    xyz = mix_channels(image.new_tensor(RGB_TO_XYZ), srgb_to_linear(image))
    xyz = xyz / image.new_tensor(D65).view(1, 3, 1, 1)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=1)
