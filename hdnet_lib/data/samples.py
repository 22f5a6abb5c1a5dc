"""A composite with its mask and what it should look like: as 8-bit arrays, and as a batch of tensors."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnet_lib.data.images import to_pixels, to_signed, to_tensor, to_unit


class Sample(NamedTuple):
    """One composite, in 8 bits, as files hold it."""

    composite: np.ndarray
    """(H, W, 3) uint8."""
    mask: np.ndarray
    """(H, W) bool, True on the foreground."""
    real: np.ndarray
    """(H, W, 3) uint8: the photo before its foreground was changed."""
    name: str = ""
    """Unique in a data set."""
    subset: str = ""
    photo: str = ""
    """Name of the real photo; several composites share one."""
    original: tuple[int, int] = (0, 0)
    """Width and height of the composite's file, before it was squeezed to a square."""

    @property
    def ratio(self) -> float:
        """Foreground ratio: the share of the image that the mask covers."""
        return float(self.mask.mean())


class Batch(NamedTuple):
    """Composites as a network gets them, all on one device."""

    composite: Tensor
    """(B, 3, H, W) in [-1, 1]."""
    mask: Tensor
    """(B, 1, H, W), 0 or 1."""
    real: Tensor
    """(B, 3, H, W) in [-1, 1]."""


def to_batch(*samples: Sample) -> Batch:
    """Samples of one size as a batch, on the CPU.

    >>> pixels = np.zeros((32, 48, 3), np.uint8)
    >>> to_batch(Sample(pixels, pixels[..., 0] > 0, pixels)).composite.shape
    torch.Size([1, 3, 32, 48])
    """
    composites, masks, reals = (
        torch.cat([to_tensor(image) for image in images])
        for images in zip(*((sample.composite, sample.mask, sample.real) for sample in samples), strict=True)
    )
    return Batch(to_signed(composites), masks, to_signed(reals))


RATIO_BINS = ((0.0, 0.05), (0.05, 0.15), (0.15, 1.0))
"""Bins of Table 2, each open at its lower end and closed at its upper one."""


def ratio_bin(ratio: float) -> str:
    """Name of the bin of Table 2: "0-5 %", "5-15 %" or "15-100 %".

    Raises:
        ValueError: the ratio is not in (0, 1].
    """
    for low, high in RATIO_BINS:
        if low < ratio <= high:
            return f"{low * 100:.0f}-{high * 100:.0f} %"
    raise ValueError(f"a foreground ratio lies in (0, 1], not at {ratio}.")


def to_samples(batch: Batch) -> list[Sample]:
    """A batch as samples, rounded to 8 bits."""
    return [
        Sample(to_pixels(to_unit(composite)), mask[0, 0].numpy() > 0.5, to_pixels(to_unit(real)))
        for composite, mask, real in zip(*(images.cpu().split(1) for images in batch), strict=True)
    ]
