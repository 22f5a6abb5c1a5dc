"""Harmonise one photo of any size."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hdnet_lib.images import ImageError, ImageLike, read_mask, read_photo, to_tensor
from hdnet_lib.model import MIN_SIZE, STRIDE, HDNet

LARGEST_WORKING_SIZE = 512
WORKING_SIZE = 512
"""Default of the longer side of what the network sees, in pixels. Better than 256 and 384 on the train list of the
mini data set, which the shipped weights have not seen."""


def harmonize(model: HDNet, composite: ImageLike, mask: ImageLike, working_size: int = WORKING_SIZE) -> Image.Image:
    """Make the foreground of a composite look as if it belonged.

    The network sees the photo with its longer side brought to ``working_size``. What it changes there, a
    difference of colours, is brought to full size and added to the full-size foreground, which so keeps
    its detail. Each pixel of the difference counts by its share of foreground.

    Args:
        model: from :func:`hdnet_lib.load_pretrained`, or one of your own.
        composite: a path, a PIL image or a uint8 array; see :func:`hdnet_lib.images.read_photo`.
        mask: white on the foreground; see :func:`hdnet_lib.images.read_mask`. Grey edges blend: the
            network takes the mask cut at one half, the result is mixed in by the soft mask.
        working_size: longer side of the network's input, 32 to 512 pixels.

    Returns:
        An image of the composite's size (after its EXIF orientation), RGB, or RGBA where the composite has
        transparency. Every pixel where the mask is black is the composite's own.

    Raises:
        ImageError: an input cannot be used; the sentence says which and why.
    """
    if not 32 <= working_size <= LARGEST_WORKING_SIZE:
        raise ImageError(f"working size must be between 32 and {LARGEST_WORKING_SIZE} pixels, not {working_size}.")
    photo = read_photo(composite)
    soft_mask = read_mask(mask)
    if soft_mask.shape != (photo.height, photo.width):
        height, width = soft_mask.shape
        raise ImageError(
            f"composite is {photo.width}x{photo.height} pixels and mask is {width}x{height}: "
            "they must have the same size."
        )
    if not (soft_mask >= 0.5).any():
        raise ImageError("mask is empty: no pixel is white, so there is no foreground to harmonise.")
    if (soft_mask >= 0.5).all():
        raise ImageError("mask covers everything: there is no background to harmonise with.")

    size = _working_size(photo.width, photo.height, working_size)
    small = to_tensor(np.array(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC))) * 2 - 1  # (1, 3, h, w)
    coverage = np.array(Image.fromarray(soft_mask).resize(size, Image.Resampling.BOX))
    coverage = torch.from_numpy(coverage).view(1, 1, *coverage.shape)  # (1, 1, h, w) in [0, 1]
    # Cut at one half; but an object that fills no cell by half keeps the cells that it fills most, and a
    # background that is left in no cell by half keeps the cells where most of it is.
    low, high = coverage.min().item(), coverage.max().item()
    cut = min(max(0.5, low + 0.1 * (high - low)), high - 0.1 * (high - low))
    network_mask = (coverage >= cut).float()
    if network_mask.all():
        raise ImageError(f"mask is too fine a pattern: at {size[0]}x{size[1]} pixels it leaves no background.")

    parameter = next(model.parameters(), small)  # an ONNX network has none
    with torch.inference_mode():
        output = model(small.to(parameter), network_mask.to(parameter)).float().cpu()
    if not output.isfinite().all():
        raise ImageError(f"the model's output is not a number somewhere: use float32 weights, not {parameter.dtype}.")
    change = (output - small) * 127.5  # grey levels
    return _add(photo, soft_mask, change, coverage)


def _working_size(width: int, height: int, longer: int) -> tuple[int, int]:
    """Width and height for the network: the longer side at ``longer``, both multiples of its stride."""
    scale = longer / max(width, height)
    return tuple(max(2 * MIN_SIZE, STRIDE * round(side * scale / STRIDE)) for side in (width, height))


def _add(photo: Image.Image, soft_mask: np.ndarray, change: Tensor, coverage: Tensor) -> Image.Image:
    """Add the change (1, 3, h, w), weighted by coverage (1, 1, h, w), to the photo inside the mask.

    Works in bands of rows, so that a large photo needs little memory beside itself.
    """
    pixels = np.array(photo)  # (H, W, 3 or 4)
    height, width = soft_mask.shape
    weighted = torch.cat([change * coverage, coverage], dim=1)  # (1, 4, h, w)
    weighted = F.interpolate(weighted, size=(weighted.shape[2], width), mode="bilinear", align_corners=False)
    rows = np.flatnonzero(soft_mask.any(axis=1))
    cells = weighted.shape[2]
    for top in range(rows[0], rows[-1] + 1, 256):
        bottom = min(top + 256, rows[-1] + 1)
        # Bilinear in the vertical, by hand, for these rows only.
        position = ((torch.arange(top, bottom) + 0.5) * cells / height - 0.5).clamp(0, cells - 1)
        above = position.floor().long()
        below = (above + 1).clamp(max=cells - 1)
        fraction = (position - above).view(1, 1, -1, 1)
        band = torch.lerp(weighted[:, :, above], weighted[:, :, below], fraction)[0]  # (4, rows, W)
        lifted = (band[:3] / band[3:].clamp(min=1e-4)).permute(1, 2, 0).numpy()

        part = pixels[top:bottom, :, :3]
        alpha = soft_mask[top:bottom, :, None]
        mixed = np.rint(part + alpha * lifted).clip(0, 255).astype(np.uint8)
        pixels[top:bottom, :, :3] = np.where(alpha > 0, mixed, part)
    result = Image.fromarray(pixels)
    profile = photo.info.get("icc_profile")
    if profile and profile[16:20] == b"RGB ":  # not that of a greyscale photo, which is RGB by now
        result.info["icc_profile"] = profile
    return result
