"""Which composites are worth keeping: neither clipped, nor nearly the photo, nor absurd."""

from typing import NamedTuple

from torch import Tensor

from hdnet_lib.composites.color import rgb_to_lab
from hdnet_lib.utils.regions import region_statistics


class Plausibility(NamedTuple):
    """What a recolouring did to the foreground; each (B,)."""

    change: Tensor
    """Mean distance of the colours in L*a*b* (CIE 1976 delta E)."""
    tint: Tensor
    """Distance of the mean colours in the plane of a* and b*: how far the hue and its strength moved."""
    clipped: Tensor
    """Share of the foreground that lies at an end of the scale and did not before."""
    contrast: Tensor
    """Spread of the lightness, composite over photo."""
    structure: Tensor
    """Correlation of the lightness of composite and photo, -1 to 1."""


class Limits(NamedTuple):
    """Lowest and highest value of each field of :class:`Plausibility` that is plausible."""

    change: tuple[float, float]
    tint: tuple[float, float]
    clipped: tuple[float, float]
    contrast: tuple[float, float]
    structure: tuple[float, float]


LIMITS = Limits(
    change=(3.0, 46.0),
    tint=(0.0, 22.5),
    clipped=(0.0, 0.1),
    contrast=(0.4, 2.5),
    structure=(0.7, 1.0),
)
"""Change, tint, clipping and contrast of the same place taken by a
webcam at another time (the 30 triplets behind ``real_shifts.csv``) lie within; structure falls where things moved."""


def measure(composite: Tensor, photo: Tensor, mask: Tensor) -> Plausibility:
    """Measure composites (B, 3, H, W) in [0, 1] against their photos, inside the masks (B, 1, H, W)."""
    after, before = rgb_to_lab(composite), rgb_to_lab(photo)
    distance = (after - before).square().sum(dim=1, keepdim=True).sqrt()
    ends = [((image <= 0.5 / 255) | (image >= 254.5 / 255)).any(dim=1, keepdim=True) for image in (composite, photo)]
    (mean_after, sd_after), (mean_before, sd_before) = (region_statistics(lab, mask) for lab in (after, before))
    product = (after - mean_after)[:, :1] * (before - mean_before)[:, :1]
    sd_after, sd_before = sd_after[:, :1], sd_before[:, :1]
    values = (
        region_statistics(distance, mask)[0],
        (mean_after - mean_before)[:, 1:].square().sum(dim=1, keepdim=True).sqrt(),
        region_statistics((ends[0] & ~ends[1]).to(mask.dtype), mask)[0],
        sd_after / sd_before,
        (region_statistics(product, mask)[0] + 1e-5) / (sd_after * sd_before),  # 1 where both are flat
    )
    return Plausibility(*(value.flatten() for value in values))


def plausible(values: Plausibility, limits: Limits = LIMITS) -> Tensor:
    """Whether every value lies within its limits: bool (B,)."""
    inside = [(low <= value) & (value <= high) for value, (low, high) in zip(values, limits, strict=True)]
    result = inside[0]
    for other in inside[1:]:
        result = result & other
    return result
