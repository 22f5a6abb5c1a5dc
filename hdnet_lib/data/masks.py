"""Masks for photos that have none, regions and smooth blobs; and masks that miss their object's border a little."""

import zlib
from collections.abc import Container
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.draw import polygon2mask
from skimage.segmentation import flood, slic
from torch import Tensor

from hdnet_lib.utils.files import fold

WORKING_SIDE = 96
"""Regions are sought at this size: coarse enough to be fast, fine enough for a loose outline."""


def make_mask(photo: np.ndarray, seed: int) -> np.ndarray:
    """A foreground for a photo without one.

    By the seed: a region grown from a point over similar colours, a few neighbouring superpixels, or a
    smooth polygon. A region that covers less than 0.5 or more than 60 % of the photo is replaced by a polygon.

    Args:
        photo: (H, W, 3) uint8.
        seed: of everything random in it.

    Returns:
        (H, W) uint8, 0 to 255 with soft edges.
    """
    rng = np.random.default_rng(seed)
    small = np.asarray(Image.fromarray(photo).resize((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX))
    region = (_grown, _superpixels, _polygon)[rng.integers(3)](small, rng)
    if not 0.005 <= region.mean() <= 0.6:
        region = _polygon(small, rng)
    height, width = photo.shape[:2]
    mask = Image.fromarray((region * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(mask)


def photo_of_mask(mask: Path, photos: Container[str]) -> str | None:
    """The name among ``photos`` (:func:`~hdnet_lib.utils.files.fold` of their stems) that a mask's name is, or that it
    is with an underscore and more; the longest, None if there is none."""
    name = fold(mask.stem)
    while name not in photos and "_" in name:
        name = name.rpartition("_")[0]
    return name if name in photos else None


def grow_mask(mask: Tensor, pixels: int) -> Tensor:
    """Masks (B, 1, H, W), 0 or 1, grown by so many pixels to all eight sides, or shrunk where it is negative."""
    side = 2 * abs(pixels) + 1
    if pixels < 0:
        return 1 - F.max_pool2d(1 - mask, side, 1, abs(pixels))
    return F.max_pool2d(mask, side, 1, pixels)


def feather(mask: Tensor, pixels: int) -> Tensor:
    """Opacity in [0, 1] of foregrounds (B, 1, H, W) that fade out over so many pixels inside their border."""
    side = 2 * pixels + 1
    return mask * (2 * F.avg_pool2d(mask, side, 1, pixels, count_include_pad=False) - 1).clamp(min=0)


def mask_descriptor(mask: np.ndarray) -> np.ndarray:
    """Rough kind of an object, to find others like it: three numbers that are close for masks (H, W) bool which
    are alike in size (logarithm of the ratio) and place (centre, twice, to weigh more)."""
    rows, columns = np.nonzero(mask)
    return np.array([np.log(mask.mean()), 2 * rows.mean() / mask.shape[0], 2 * columns.mean() / mask.shape[1]])


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the border of a mask (H, W) bool, in pixels: positive inside, negative outside."""
    signed = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    return signed - np.sign(signed) / 2


PERTURBATIONS = ("eroded", "dilated", "shifted", "rough")


def perturb_mask(mask: np.ndarray, kind: str, amount: int, seed: int = 0) -> np.ndarray:
    """A mask as a careless hand would draw it.

    Args:
        mask: (H, W) bool.
        kind: "eroded" or "dilated" (by a disc), "shifted" (in a random direction) or "rough" (its border moves in and
            out at random by up to the amount). The edge of the image is no border.
        amount: pixels; 0 changes nothing.
        seed: of the direction and the roughness, which differ from mask to mask, too.

    Returns:
        (H, W) bool; empty where nothing is left.
    """
    if kind not in PERTURBATIONS:
        raise ValueError(f"a mask can be {', '.join(PERTURBATIONS)}, not {kind!r}.")
    if mask.all() or not mask.any():
        return mask
    signed = signed_distance(mask)
    rng = np.random.default_rng([seed, zlib.crc32(np.packbits(mask).tobytes())])
    if kind == "eroded":
        return signed > amount
    if kind == "dilated":
        return signed > -amount
    if kind == "shifted":
        angle = rng.uniform(0, 2 * np.pi)
        return ndimage.shift(mask, (round(amount * np.sin(angle)), round(amount * np.cos(angle))), order=0)
    noise = ndimage.gaussian_filter(rng.normal(size=mask.shape), 4)
    return signed > noise / np.abs(noise).max() * amount


def _grown(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flood from a point over colours that differ by less than a random tolerance in L*a*b*."""
    lab = rgb2lab(photo)
    start = tuple(rng.integers(WORKING_SIDE // 8, WORKING_SIDE * 7 // 8, 2))
    distance = np.linalg.norm(lab - lab[start], axis=-1)
    return flood(distance, start, tolerance=rng.uniform(8, 30))


def _superpixels(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some neighbouring superpixels (SLIC), the most alike first."""
    labels = slic(photo, n_segments=40, compactness=12, start_label=0)
    count = labels.max() + 1
    size = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    lab = rgb2lab(photo)
    color = np.stack([np.bincount(labels.ravel(), lab[..., c].ravel(), count) / size for c in range(3)], axis=1)
    touching = np.zeros((count, count), bool)
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        touching[one, other] = touching[other, one] = True
    chosen = [labels[tuple(rng.integers(WORKING_SIDE // 8, WORKING_SIDE * 7 // 8, 2))]]
    for _ in range(rng.integers(1, 10)):
        near = np.setdiff1d(np.flatnonzero(touching[chosen].any(axis=0)), chosen)
        if not near.size:
            break
        distance = np.linalg.norm(color[near] - color[chosen].mean(axis=0), axis=1)
        chosen.append(near[distance.argmin()])
    return np.isin(labels, chosen)


def _polygon(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A closed smooth outline: a circle whose radius wobbles by four random harmonics."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angle)
    for harmonic in range(1, 5):
        radius += rng.normal(0, 0.25 / harmonic) * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.3, None) * np.exp(rng.uniform(np.log(0.06), np.log(0.38))) * WORKING_SIDE
    stretch = rng.uniform(0.7, 1.4)
    center = rng.uniform(0.25, 0.75, 2) * WORKING_SIDE
    points = np.stack([np.sin(angle) * radius * stretch, np.cos(angle) * radius / stretch], axis=1) + center
    return polygon2mask(photo.shape[:2], points)
