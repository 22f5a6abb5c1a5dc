"""Harmonise photos of any size."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.data.images import ImageError, ImageLike, Photo, read_mask, read_photo, to_signed, to_tensor
from hdnet_lib.data.profiles import from_srgb, to_srgb, usable
from hdnet_lib.data.snapping import snap_mask
from hdnet_lib.model.hdnet import MIN_SIZE, STRIDE
from hdnet_lib.peers.base import Peer

LARGEST_WORKING_SIZE = 512
WORKING_SIZE = 384
"""Default of the longer side of what the network sees, in pixels; ``data_scripts/compare_upsampling.py`` compares."""
LEAST_OPACITY = 0.01
"""Where a region is less opaque, on average over what becomes one pixel of the network's, nobody sees its colour."""
RIDGE = 1e-2
"""Pulls the colour map of a foreground of few colours, which leave it open, to a mere shift."""


def harmonize(
    model: nn.Module,
    composite: ImageLike | Photo,
    mask: ImageLike,
    working_size: int = WORKING_SIZE,
    mask_threshold: int | None = None,
    snap: bool = True,
) -> Photo:
    """Make the foreground of a composite look as if it belonged.

    >>> from hdnet_lib import load_pretrained
    >>> photo = np.full((90, 120, 3), 128, np.uint8)
    >>> photo[30:60, 40:80] = (200, 90, 60)
    >>> harmonize(load_pretrained("hdnet-lite"), photo, photo[..., 0] == 200).size
    (120, 90)

    1. The mask's outline is moved to the border of the paste (:func:`~hdnet_lib.data.snapping.snap_mask`).
    2. The network sees the photo with its longer side brought down to ``working_size``. Foreground and background are
       made smaller apart, so that no pixel mixes them: the network judges by the colours at the border, too.
    3. An affine map of colours, 3x3 and a shift, is fitted to what the network does to the foreground.
    4. The map is applied to the foreground at full size, which so keeps all its detail. What it cannot follow is light
       that changes across the object.

    On photos of 1,280 to 2,048 pixels this is closer to the real photo than running the network at full size, than
    adding its change of colours at full size, and than local maps; notebook 10 has the numbers.

    What nobody sees does not count: transparent pixels weigh by their alpha, as background and as foreground.

    Args:
        model: from :func:`load_pretrained`, or one of your own, on any device.
        composite: a path, an open file, a PIL image or a uint8 array; see :func:`hdnet_lib.data.images.read_photo`.
        mask: white on the foreground; see :func:`hdnet_lib.data.images.read_mask`. Grey edges blend: the
            network takes the mask cut at one half, the result is mixed in by the soft mask.
        working_size: longest side of the network's input, 32 to 512 pixels.
        mask_threshold: 1 to 255; mask pixels of at least that value are foreground, others background.
        snap: step 1; without it, and of a photo with transparent pixels, the mask is taken as it is.

    Returns:
        The photo (after its EXIF orientation) with its own depth, colours, transparency and metadata; ``save`` writes
        them. Every pixel where the mask, after step 1, is black, or the photo fully transparent, is the composite's
        own.

    Raises:
        ImageError: an input cannot be used; the sentence says which and why.
    """
    job = prepare(composite, mask, working_size, mask_threshold, snap)
    return finish(job, predict(model, job))


class Job(NamedTuple):
    """A photo and its mask, and what the network gets to see of them."""

    photo: Photo
    soft_mask: np.ndarray
    """(H, W) float32 in [0, 1], snapped; 0 where the photo is fully transparent."""
    small: Tensor
    """(1, 3, h, w) in [-1, 1], sRGB."""
    network_mask: Tensor
    """(1, 1, h, w), 0 or 1."""
    judged: Tensor
    """(1, 1, h, w), 0 or 1: the foreground that is visible, to which the map of colours is fitted."""


def prepare(
    composite: ImageLike | Photo,
    mask: ImageLike,
    working_size: int = WORKING_SIZE,
    mask_threshold: int | None = None,
    snap: bool = True,
) -> Job:
    """Read, check and make smaller: all of :func:`harmonize` that comes before the network."""
    if not 32 <= working_size <= LARGEST_WORKING_SIZE:
        raise ImageError(f"working size must be between 32 and {LARGEST_WORKING_SIZE} pixels, not {working_size}.")
    photo = read_photo(composite)
    soft_mask = read_mask(mask, threshold=mask_threshold)
    _check_sizes(photo, soft_mask)
    if not (soft_mask >= 0.5).any():
        raise ImageError("mask is empty: no pixel is white, so there is no foreground to harmonise.")
    if (soft_mask >= 0.5).all():
        raise ImageError("mask covers everything: there is no background to harmonise with.")
    pixels = photo.srgb
    if snap and photo.alpha is None:  # colours that nobody sees are no evidence
        soft_mask = snap_mask(pixels, soft_mask)

    size = _working_size(*photo.size, working_size)
    coverage: Any = _shrink(soft_mask, size)  # share of each cell that is foreground
    network_mask = _cut(coverage)
    share: Any = np.where(network_mask, coverage, 1 - coverage)  # above 0 by the choice of the cut
    hidden = np.zeros_like(network_mask)
    opacity: Any = None
    if photo.alpha is not None:
        opacity = photo.alpha / np.float32(np.iinfo(photo.alpha.dtype).max)
        of_region, share = share, _separately(opacity, soft_mask, size, network_mask)
        hidden = share < LEAST_OPACITY * of_region
        for region, name in ((network_mask, "foreground"), (~network_mask, "background")):
            if hidden[region].all():
                raise ImageError(f"composite has no visible {name}: it is transparent on all of it.")
        soft_mask = soft_mask * (photo.alpha > 0)
    channels = []
    scale = np.float32(255 / np.iinfo(pixels.dtype).max)
    for channel in range(3):
        values = pixels[..., channel] * scale
        values = values if opacity is None else values * opacity
        channels.append(_separately(values, soft_mask, size, network_mask) / np.maximum(share, 1e-9))
    colors = np.stack(channels)
    for region in (network_mask, ~network_mask) if hidden.any() else ():
        # What nobody sees takes the colour of the nearest that is seen of its own region.
        nearest = distance_transform_edt(hidden | ~region, return_distances=False, return_indices=True)
        colors = np.where(hidden & region, colors[:, *nearest], colors)
    small = to_signed(torch.from_numpy(colors.clip(0, 255))[None] / 255)
    return Job(photo, soft_mask, small, to_tensor(network_mask), to_tensor(network_mask & ~hidden))


def _check_sizes(photo: Photo, mask: np.ndarray) -> None:
    width, height = photo.size
    if mask.shape == (height, width):
        return
    hint = ""
    if photo.turned and mask.shape == (width, height):
        hint = " (the EXIF orientation of the photo turns it, and the mask is not turned: rotate the mask as the photo)"
    raise ImageError(
        f"composite is {width}x{height} pixels and mask is {mask.shape[1]}x{mask.shape[0]}: "
        f"they must have the same size{hint}."
    )


def _cut(coverage: Any) -> Any:
    """Where a region counts as foreground, (..., h, w) bool, by the share of each cell that it covers.

    Cut at one half; but an object that fills no cell by half keeps the cells that it fills most, and a background that
    is left in no cell by half keeps the cells where most of it is.
    """
    low, high = coverage.min(), coverage.max()
    inside = coverage >= min(max(0.5, low + 0.1 * (high - low)), high - 0.1 * (high - low))
    if inside.all():
        height, width = coverage.shape[-2:]
        raise ImageError(f"mask is too fine a pattern: at {width}x{height} pixels it leaves no background.")
    return inside


def _separately(values: np.ndarray, soft_mask: np.ndarray, size: tuple[int, int], inside: np.ndarray) -> np.ndarray:
    """Made smaller without mixing the regions: of the foreground where ``inside``, elsewhere of the background."""
    foreground = _shrink(values * soft_mask, size)
    return np.where(inside, foreground, _shrink(values, size) - foreground)


def predict(model: nn.Module, job: Job) -> Tensor:
    """The network's raw output (1, 3, h, w).

    To a network that does not take this size the photo is shown squeezed to a square that it takes, foreground and
    background apart as before, and its change is brought back.
    """
    height, width = job.small.shape[2:]
    network: Any = getattr(model, "model", model)  # in bf16 it is wrapped
    small, mask = job.small, job.network_mask
    squeezed = isinstance(network, Peer) and not (network.takes(height) and network.takes(width))
    if squeezed:
        size, region = (network.square, network.square), mask[0, 0].numpy()
        coverage: Any = _shrink(region, size)
        inside = _cut(coverage)
        share = np.where(inside, coverage, 1 - coverage)
        channels = [_separately(values, region, size, inside) / share for values in small[0].numpy()]
        small, mask = torch.from_numpy(np.stack(channels))[None], to_tensor(inside)
    parameter = next(model.parameters(), small)  # an ONNX network has none
    with torch.inference_mode():
        output = model(small.to(parameter), mask.to(parameter)).float().cpu()
    if not output.isfinite().all():
        raise ImageError("the model's output is not a number somewhere: use float32 weights and precision.")
    if squeezed:
        return job.small + F.interpolate(output - small, (height, width), mode="bilinear", antialias=True)
    return output


def finish(job: Job, output: Tensor) -> Photo:
    """Fit the colour map to the network's output and apply it to the photo, in bands of rows to save memory."""
    change = fit_color_map(job.small, output - job.small, job.judged)
    gain, shift = change[:3], (change[3] - change[:3].sum(axis=0)) * 127.5  # of colours from 0 to 255
    photo = job.photo
    profile = photo.profile if usable(photo.profile) == "rgb" else b""
    pixels = photo.pixels.copy()
    scale = np.float32(np.iinfo(pixels.dtype).max / 255)
    rows, columns = (np.flatnonzero(job.soft_mask.any(axis=axis)) for axis in (1, 0))
    for top in range(rows[0], rows[-1] + 1, 256):
        band = np.s_[top : min(top + 256, rows[-1] + 1), columns[0] : columns[-1] + 1]
        colors = pixels[band] / scale  # float32
        if profile:  # the map is one of sRGB
            seen = to_srgb(colors / 255, profile)
            mapped = seen + seen @ gain + shift / 255
            moved = 255 * (from_srgb(mapped.clip(0, 1), profile) - from_srgb(seen, profile))
        else:
            moved = colors @ gain + shift
        colors += job.soft_mask[band][..., None] * moved  # by nothing where the mask is black
        pixels[band] = np.rint(colors * scale).clip(0, np.iinfo(pixels.dtype).max)
    return replace(photo, pixels=pixels)


def fit_color_map(colors: Tensor, change: Tensor, region: Tensor) -> np.ndarray:
    """The affine map from colours to their change that fits best inside a region, by least squares with a ridge.

    Args:
        colors, change: (1, 3, h, w).
        region: (1, 1, h, w), 0 or 1.

    Returns:
        The map, (4, 3) float32; the change is ``colors @ map[:3] + map[3]``.
    """
    inside = region[0, 0] > 0
    x, y = (image[0][:, inside].T.double() for image in (colors, change))  # (M, 3)
    x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    ridge = torch.diag(torch.tensor([RIDGE, RIDGE, RIDGE, 0], dtype=x.dtype)) * len(x)
    return torch.linalg.solve(x.T @ x + ridge, x.T @ y).float().numpy()


def _shrink(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Means over the cells of a smaller size (width, height)."""
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX))


def _working_size(width: int, height: int, longer: int) -> tuple[int, int]:
    """Width and height for the network: the longer side near ``longer``, both multiples of its stride."""
    scale = min(1, longer / max(width, height))
    width, height = (max(2 * MIN_SIZE, STRIDE * round(side * scale / STRIDE)) for side in (width, height))
    return width, height
