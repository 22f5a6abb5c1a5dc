"""How far composites are from their photos: the colour shift of the foreground, to compare data sets by."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hdnet_lib.composites.color import rgb_to_lab
from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.composites.recipes import Photometric, illuminant, photometric
from hdnet_lib.data.images import to_unit
from hdnet_lib.utils.regions import region_statistics

REAL_SHIFTS = Path(__file__).parent / "real_shifts.csv"
"""Shifts measured on 30 real triplets at 256 px: the foreground of a webcam picture of another time, pasted by
its mask (26 webcam pictures; the triplets themselves are not part of this project). A validation set for
recipes: :data:`~hdnet_lib.composites.photo_dataset.MIX` was chosen by it."""


class Shift(NamedTuple):
    """Composite less photo, inside the mask; each (B,)."""

    lightness: Tensor
    """Mean L*, -100 to 100."""
    a: Tensor
    """Mean a*: positive is redder, negative greener."""
    b: Tensor
    """Mean b*: positive is yellower, negative bluer."""
    chroma: Tensor
    """Mean distance from grey in the plane of a* and b*."""
    spread: Tensor
    """Standard deviation of L*, as the base-2 logarithm of composite over photo: 1 is twice the contrast."""
    psnr: Tensor
    """Of the whole composite against the photo, dB, peak 255, no rounding."""


def measure_shift(composite: Tensor, photo: Tensor, mask: Tensor) -> Shift:
    """Measure composites (B, 3, H, W) in [0, 1] against their photos, inside the masks (B, 1, H, W)."""
    means, chromas, spreads = [], [], []
    for image in (composite, photo):
        lab = rgb_to_lab(image)
        mean, spread = region_statistics(lab, mask)
        chroma = lab[:, 1:].square().sum(dim=1, keepdim=True).sqrt()
        means.append(mean.flatten(1))
        chromas.append(region_statistics(chroma, mask)[0].flatten())
        spreads.append(spread[:, 0].flatten())
    error = ((composite - photo) * mask).square().mean(dim=(1, 2, 3))
    lightness, a, b = (means[0] - means[1]).unbind(1)
    return Shift(
        lightness,
        a,
        b,
        chroma=chromas[0] - chromas[1],
        spread=(spreads[0] / spreads[1]).log2(),
        psnr=-10 * error.clamp(min=1e-10).log10(),
    )


def assumed_retouch(photo: Tensor, mask: Tensor, uniform: Tensor) -> Tensor:
    """What one would expect of a photo's retouches, as an assumption to compare with, not a measurement.

    From ``uniform`` (B, 6): gain 2 ** U(-.5, .5) in sRGB values (about one stop either way), gamma
    exp(U(-.25, .25)), contrast U(.75, 1.33), saturation U(.7, 1.4), light of 1e6 / U(100, 208) K, tint U(-.05, .05).
    """
    gain, gamma, contrast, saturation, mired, tint = uniform.to(photo).unbind(1)
    settings = (2 ** (gain - 0.5), (gamma * 0.5 - 0.25).exp(), 0.75 + 0.58 * contrast, 0.7 + 0.7 * saturation)
    gain, gamma, contrast, saturation = (value.view(-1, 1, 1, 1) for value in settings)
    relit = illuminant(photo, mask, 1e6 / (100 + 108 * mired), tint * 0.1 - 0.05)
    neutral = torch.ones_like(gain)
    return photometric(relit, mask, Photometric(gamma, gain, neutral, contrast, saturation))


def sample_shifts(dataset: PhotoDataset, count: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Shifts of ``count`` composites of a data set, and of :func:`assumed_retouch` of the same photos; one row each."""
    made, retouched = [], []
    rng = torch.Generator().manual_seed(seed)
    groups = (range(first, min(first + 16, count)) for first in range(0, count, 16))
    for composite, mask, real in dataset.batches(groups, seed):
        photo = to_unit(real)
        uniform = torch.rand(len(photo), 6, generator=rng, dtype=torch.float64)
        made.append(measure_shift(to_unit(composite), photo, mask))
        retouched.append(measure_shift(assumed_retouch(photo, mask, uniform), photo, mask))
    columns = (
        [torch.cat(values).cpu().numpy() for values in zip(*shifts, strict=True)] for shifts in (made, retouched)
    )
    return tuple(pd.DataFrame(dict(zip(Shift._fields, values, strict=True))) for values in columns)


def coverage(real: pd.DataFrame, made: pd.DataFrame) -> pd.Series:
    """Share of the real shifts inside the central 95 % of the made ones, for each measure."""
    low, high = made.quantile(0.025), made.quantile(0.975)
    fields = list(Shift._fields)
    return ((real[fields] >= low[fields]) & (real[fields] <= high[fields])).mean().astype(np.float64)
