"""Writing images: never half of one, in the photo's own colours and depth, with what belongs to it."""

import io
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from hdnet_lib.data.decode import ImageError
from hdnet_lib.data.metadata import Metadata, save_options, tiff_tags
from hdnet_lib.data.profiles import to_srgb, usable
from hdnet_lib.utils.files import atomic_write, check_writable, first_line

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
}
"""What :func:`save_image` writes, by suffix. All but JPEG are without loss, for what they can hold."""
DEEP = ("PNG", "TIFF")
"""Formats that hold 16 bits a channel."""
TRANSPARENT = ("PNG", "TIFF", "WEBP")
"""Formats that hold transparency."""
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},  # exact: the colours of transparent pixels stay, too
}


def check_output(path: str | os.PathLike, inputs: Sequence[str | os.PathLike] = (), probe: bool = True) -> None:
    """Refuse an output path that cannot be written, or that is one of the inputs; to be called before the work.

    Args:
        path: file to write later.
        inputs: files that it must not be.
        probe: try whether its folder can be written.

    Raises:
        ImageError: the sentence says why.
    """
    path = Path(path)
    try:
        if path.suffix.lower() not in FORMATS:
            raise ImageError(f"output {path}: use a file name that ends with {', '.join(FORMATS)}.")
        if not path.parent.is_dir():
            raise ImageError(f"output {path}: the folder {path.parent} does not exist.")
        if path.is_dir():
            raise ImageError(f"output {path} is a folder: give a file name.")
        if path.exists() and any(Path(other).exists() and path.samefile(other) for other in inputs):
            raise ImageError(f"output {path} is one of the inputs: choose another name.")
        if probe:
            check_writable(path)
    except (OSError, RuntimeError) as error:
        raise ImageError(f"output {path} cannot be written: {first_line(error)}.") from None


def check_transparency(path: str | os.PathLike, transparent: bool) -> None:
    """Refuse a format that would lose an image's transparency.

    Raises:
        ImageError: the sentence says which formats keep it.
    """
    if transparent and FORMATS[Path(path).suffix.lower()] not in TRANSPARENT:
        raise ImageError(f"output {path}: the photo has transparent pixels, which .png, .tif and .webp keep.")


def save_image(
    image: Image.Image | np.ndarray,
    path: str | os.PathLike,
    profile: bytes = b"",
    metadata: Metadata | None = None,
    **options: int,
) -> None:
    """Write an image under a temporary name, then rename it: ``path`` is never half-written.

    Args:
        image: of Pillow, or uint16 (H, W, 3 or 4), which formats without 16 bits get rounded to 8.
        path: its ending tells the format, see :data:`FORMATS`.
        profile: its ICC profile; BMP holds none, so colours are written there as sRGB.
        metadata: what belongs to the photo; each format keeps what it can.
        options: for Pillow's writer of the format, such as ``compress_level=1`` for PNG.

    Raises:
        ImageError: see :func:`check_output`; or the format cannot hold the image, or the disk is full.
    """
    check_output(path, probe=False)
    path, metadata = Path(path), metadata or Metadata()
    file_format = FORMATS[path.suffix.lower()]
    if isinstance(image, np.ndarray) and file_format not in DEEP:
        image = Image.fromarray(as_uint8(image))
    check_transparency(path, (image.shape[-1] == 4) if isinstance(image, np.ndarray) else image.mode == "RGBA")
    if profile and file_format == "BMP" and isinstance(image, Image.Image):
        image, profile = Image.fromarray(srgb_pixels(np.asarray(image.convert("RGB")), profile)), b""
    try:
        with atomic_write(path) as part:
            if isinstance(image, np.ndarray):
                write = _write_deep_png if file_format == "PNG" else _write_deep_tiff
                write(image, part, profile, metadata)
            else:
                own = save_options(metadata, file_format, f"output {path}") | _OPTIONS.get(file_format, {}) | options
                image.save(part, format=file_format, icc_profile=profile or None, **own)
    except Exception as error:  # of many types, as those of Pillow's writers
        raise ImageError(f"output {path} cannot be written: {first_line(error)}.") from None


def as_uint8(pixels: np.ndarray) -> np.ndarray:
    """16 bits to 8, rounded; 8 bits as they are."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def srgb_pixels(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Pixels (H, W, 3), or (H, W) in grey, of a profile as pixels (H, W, 3) of sRGB, of the same type."""
    if usable(profile) in ("", "srgb"):
        return pixels
    largest = np.iinfo(pixels.dtype).max
    result = np.empty((*pixels.shape[:2], 3), pixels.dtype)
    for top in range(0, len(pixels), 256):  # in bands of rows, to save memory
        band = np.s_[top : top + 256]
        result[band] = np.rint(to_srgb(pixels[band] / np.float32(largest), profile) * largest)
    return result


def _write_deep_png(pixels: np.ndarray, path: Path, profile: bytes, metadata: Metadata) -> None:
    """Pillow writes the chunks beside the pixels, into a tiny file from which they are taken."""
    tiny = io.BytesIO()
    Image.new("RGB", (1, 1)).save(tiny, "PNG", icc_profile=profile or None, **save_options(metadata, "PNG", str(path)))
    content, position, chunks = tiny.getvalue(), 8, []
    while position < len(content):
        length, kind = struct.unpack_from(">L4s", content, position)
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            chunks.append(content[position : position + length + 12])
        position += length + 12
    encoded = imagecodecs.png_encode(np.ascontiguousarray(pixels))
    after_header = 8 + 25
    path.write_bytes(b"".join([encoded[:after_header], *chunks, encoded[after_header:]]))


def _write_deep_tiff(pixels: np.ndarray, path: Path, profile: bytes, metadata: Metadata) -> None:
    """One strip without compression; Pillow's own writer of directories does the rest."""
    height, width, channels = pixels.shape
    tags = tiff_tags(metadata, f"output {path}")
    tags[256], tags[257], tags[258], tags[259], tags[262] = width, height, (16,) * channels, 1, 2
    tags[273], tags[277], tags[278], tags[279], tags[284] = 0, channels, height, pixels.nbytes, 1
    if channels == 4:
        tags[338] = 2  # alpha that is not multiplied in
    if metadata.dpi:
        tags[282], tags[283], tags[296] = *metadata.dpi, 2
    if profile:
        tags.tagtype[34675] = 7  # undefined
        tags[34675] = profile
    with path.open("wb") as file:
        tags.save(file)
        file.write(np.ascontiguousarray(pixels, "<u2").tobytes())
