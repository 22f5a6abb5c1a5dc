"""Photos and masks: read from anywhere, in known ranges of values, or refused in one sentence."""

import logging
import os
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from hdnet_lib.data.decode import Decoded, ImageError, ImageLike, decode, label_of
from hdnet_lib.data.metadata import Metadata, is_adobe_rgb
from hdnet_lib.data.profiles import adobe_rgb, usable
from hdnet_lib.data.save import as_uint8, save_image, srgb_pixels

__all__ = [
    "ImageError",
    "ImageLike",
    "Photo",
    "read_gray",
    "read_mask",
    "read_photo",
    "read_rgb",
    "to_pixels",
    "to_signed",
    "to_tensor",
    "to_unit",
]
NEARLY_GRAY = 8
"""Grey levels between the channels of a mask that are rounding: lossy formats keep colours coarsely."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photo:
    """A photo in its own colours and depth, with what belongs to it.

    NumPy takes it as an array (H, W, 3), or (H, W, 4) where it has transparency.
    """

    pixels: np.ndarray
    """(H, W, 3) uint8, or uint16 on the scale 0 to 65,535; upright."""
    alpha: np.ndarray | None = None
    """(H, W), of the same type; None where no pixel is transparent."""
    profile: bytes = b""
    """ICC profile of the colours; empty for sRGB."""
    metadata: Metadata = field(default_factory=Metadata)
    """EXIF, XMP, resolution, texts."""
    turned: bool = False
    """Whether the EXIF orientation of its file turned it by a quarter."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.pixels.shape[:2]
        return width, height

    @property
    def mode(self) -> str:
        """As Pillow calls its channels: RGB or RGBA."""
        return "RGB" if self.alpha is None else "RGBA"

    @property
    def image(self) -> Image.Image:
        """For Pillow: 8 bits a channel, in the photo's own colours, with its profile in ``info``."""
        image = Image.fromarray(as_uint8(np.asarray(self)))
        if self.profile:
            image.info["icc_profile"] = self.profile
        return image

    @property
    def srgb(self) -> np.ndarray:
        """The pixels (H, W, 3) in sRGB, at the photo's depth."""
        return srgb_pixels(self.pixels, self.profile)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        array = self.pixels if self.alpha is None else np.dstack([self.pixels, self.alpha])
        return array.astype(array.dtype if dtype is None else dtype, copy=bool(copy))

    def _repr_png_(self) -> bytes | None:
        return self.image._repr_png_()

    def save(self, path: str | os.PathLike) -> None:
        """Write the photo with its depth, transparency, profile, EXIF, XMP and resolution, as the format can hold them.

        ``docs/photos.md`` has a table of what each format keeps.

        Raises:
            ImageError: see :func:`~hdnet_lib.data.save.save_image`.
        """
        array = np.asarray(self)
        save_image(array if array.dtype == np.uint16 else self.image, path, self.profile, self.metadata)


def read_photo(source: ImageLike | Photo, name: str = "composite") -> Photo:
    """A photo in its own colours and depth, upright.

    Accepts paths, open files, PIL images and arrays: greyscale, palette, RGB and RGBA of
    8 or 16 bits a channel, with or without profile, EXIF orientation and transparency; arrays of uint8 (H, W),
    (H, W, 1), (H, W, 3) or (H, W, 4). A grey photo becomes RGB, since its foreground may get colours; one with a
    profile of grey becomes sRGB.

    Raises:
        ImageError: the source cannot be read, or has no faithful form in RGB (CMYK, float, several frames, a profile
            that colours cannot be brought back to).
    """
    return source if isinstance(source, Photo) else _as_photo(decode(source, name), label_of(source, name))


def _as_photo(decoded: Decoded, label: str) -> Photo:
    pixels, alpha, profile, metadata, turned = decoded
    kind = usable(profile) if profile else ""
    if profile and (not kind or (kind == "gray" and pixels.ndim == 3)):
        log.warning("%s: its colour profile cannot be used, so its colours are taken as sRGB.", label)
        kind, profile = "", b""
    elif kind == "one-way":
        raise ImageError(f"{label} has a colour profile that can only be read: convert it to sRGB first.")
    elif kind == "gray":
        pixels, profile = srgb_pixels(pixels, profile), b""
    elif not profile and is_adobe_rgb(metadata):
        profile = adobe_rgb()
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Photo(np.ascontiguousarray(pixels), alpha, profile, metadata, turned)


def read_rgb(source: ImageLike, name: str, stored: bool = False) -> Image.Image:
    """A photo as training and evaluation see it: 8 bits, RGB, opaque, in sRGB.

    Args:
        source: see :func:`read_photo`.
        name: its role, for messages.
        stored: the numbers as they are stored, whatever the profile says: so every published score was computed.

    Raises:
        ImageError: see :func:`read_photo`; or pixels are transparent.
    """
    decoded = decode(source, name, with_metadata=not stored)
    if decoded.alpha is not None:
        raise ImageError(f"{label_of(source, name)} has transparent pixels: put it on a background first.")
    photo = _as_photo(decoded._replace(profile=b"") if stored else decoded, label_of(source, name))
    return Image.fromarray(as_uint8(photo.srgb))


def read_gray(source: ImageLike, name: str = "mask") -> Image.Image:
    """A mask as grey values of 8 bits.

    Raises:
        ImageError: the source cannot be read, is coloured or transparent.
    """
    decoded, label = decode(source, name, with_metadata=False), label_of(source, name)
    if decoded.alpha is not None:
        raise ImageError(f"{label} is partly transparent: save it as plain black and white.")
    if decoded.pixels.dtype == np.uint16 and 0 < decoded.pixels.max() <= 255:
        raise ImageError(f"{label} has 16 bits, and no value above 255 of 65,535: save it with 8 bits.")
    pixels = as_uint8(decoded.pixels)
    if pixels.ndim == 3:
        if (pixels.max(axis=2) - pixels.min(axis=2)).max() > NEARLY_GRAY:
            raise ImageError(f"{label} is coloured: a mask is white on the foreground and black elsewhere.")
        pixels = pixels[..., 1]  # green, the main part of grey
    return Image.fromarray(np.ascontiguousarray(pixels))


def read_mask(source: ImageLike, name: str = "mask", threshold: int | None = None) -> np.ndarray:
    """A mask as float32 (H, W) in [0, 1]; grey values between black and white stay, as soft edges.

    Accepts what :func:`read_photo` accepts as long as its colours are grey but for rounding, and arrays of bool, of
    uint8 (0 to 255) or of float (0 to 1).

    Args:
        source: the mask.
        name: its role, for messages.
        threshold: 1 to 255; pixels of at least that value are foreground, others background. Default: soft edges.

    Raises:
        ImageError: the source cannot be read, is coloured, is transparent, or its scale is unclear.
    """
    if threshold is not None and not 1 <= threshold <= 255:
        raise ImageError(f"the threshold of masks is a grey value from 1 to 255, not {threshold}.")
    if isinstance(source, np.ndarray) and source.dtype.kind in "bf":
        mask = source.squeeze(-1) if source.ndim == 3 and source.shape[-1] == 1 else source
        if mask.ndim != 2 or mask.size == 0:
            raise ImageError(f"{name} must be an array (H, W), not {source.shape}.")
        if not (np.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1):
            raise ImageError(f"{name} is a float array with values outside 0 to 1: scale it first.")
        return mask.astype(np.float32) if threshold is None else (mask * 255 >= threshold).astype(np.float32)

    mask = np.asarray(read_gray(source, name))
    if threshold is not None:
        return (mask >= threshold).astype(np.float32)
    brightest, label = int(mask.max()), label_of(source, name)
    if 0 < brightest < 128:
        values = "only the values 0 and 1" if brightest == 1 else f"no value above {brightest}"
        raise ImageError(
            f"{label} is faint: it holds {values} on a scale of 0 to 255, where a foreground has 128 or more; stretch "
            f"it to 255, or take all from {(brightest + 1) // 2} up as foreground with --mask-threshold "
            f"{(brightest + 1) // 2} (in Python mask_threshold)."
        )
    return mask.astype(np.float32) / 255


# --- Value ranges. Files, PIL images and arrays are "pixels", whole numbers in [0, 255]; recipes and metrics of colour
# compute on "unit" tensors in [0, 1]; networks see "signed" tensors in [-1, 1].


def to_tensor(pixels: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Pixels to unit: uint8 (H, W, C), or bool (H, W), as a batch of one: (1, C, H, W) in [0, 1]."""
    array = pixels.reshape(*pixels.shape[:2], -1)
    tensor = torch.from_numpy(np.array(array)).permute(2, 0, 1).unsqueeze(0).to(dtype)
    return tensor if pixels.dtype == bool else tensor / 255


def to_pixels(unit: torch.Tensor) -> np.ndarray:
    """Unit to pixels: a batch of one (1, 3, H, W) in [0, 1] as uint8 (H, W, 3), rounded."""
    return (unit[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def to_signed(unit: torch.Tensor) -> torch.Tensor:
    """Unit to signed: [0, 1] to [-1, 1], any shape."""
    return unit * 2 - 1


def to_unit(signed: torch.Tensor) -> torch.Tensor:
    """Signed to unit: [-1, 1] to [0, 1], any shape."""
    return signed / 2 + 0.5
