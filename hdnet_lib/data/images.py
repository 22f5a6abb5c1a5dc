"""Reading photos and masks from anywhere, and refusing in one sentence what cannot be used."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from hdnet_lib.utils.files import atomic_write, first_line

ImageLike = str | os.PathLike | Image.Image | np.ndarray


class ImageError(ValueError):
    """An input that cannot be used; the message says which, why, and what to do."""


def read_photo(source: ImageLike, name: str = "composite") -> Image.Image:
    """A photo, upright, in RGB or, where it has transparency, RGBA.

    Accepts 8-bit greyscale, palette, RGB and RGBA images, with or without EXIF orientation, and uint8
    arrays (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    Raises:
        ImageError: the source cannot be read or has no faithful 8-bit RGB form (16 bits, float, CMYK,
            several frames).
    """
    image = open_image(source, name)
    name = _label(source, name)
    if image.mode in ("CMYK", "LAB", "HSV", "YCbCr"):
        raise ImageError(
            f"{name} is a {image.mode} image: convert it to RGB first, so that you choose how its colours map."
        )
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        raise ImageError(f"{name} has the pixel format {image.mode}: save it with 8 bits a channel first.")
    transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def read_mask(source: ImageLike, name: str = "mask") -> np.ndarray:
    """A mask as float32 (H, W) in [0, 1]; grey values between black and white stay, as soft edges.

    Accepts what :func:`read_photo` accepts as long as its colours are grey, and arrays of bool, of uint8
    (0 to 255) or of float (0 to 1).

    Raises:
        ImageError: the source cannot be read, is coloured, is transparent, or its scale is unclear.
    """
    if isinstance(source, np.ndarray) and source.dtype.kind in "bf":
        mask = source.squeeze(-1) if source.ndim == 3 and source.shape[-1] == 1 else source
        if mask.ndim != 2 or mask.size == 0:
            raise ImageError(f"{name} must be an array (H, W), not {source.shape}.")
        if not (np.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1):
            raise ImageError(f"{name} is a float array with values outside 0 to 1: scale it first.")
        return mask.astype(np.float32)

    image = read_photo(source, name)
    name = _label(source, name)
    if image.mode == "RGBA":
        if image.getchannel("A").getextrema() != (255, 255):
            raise ImageError(f"{name} is partly transparent: save it as plain black and white.")
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if (pixels != pixels[..., :1]).any():
        raise ImageError(f"{name} is coloured: a mask is white on the foreground and black elsewhere.")
    mask = pixels[..., 0]
    if mask.max() == 1:
        raise ImageError(f"{name} holds only the values 0 and 1 on a scale of 0 to 255: multiply it by 255.")
    return mask.astype(np.float32) / 255


def open_image(source: ImageLike, name: str) -> Image.Image:
    """Open and load an image in its own pixel format, upright by its EXIF orientation.

    Raises:
        ImageError: the source is no readable image, or has several frames or 16 bits a channel. (Pillow cuts
            16-bit colour to 8 bits by itself; a PIL image that is loaded already cannot be checked.)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if not isinstance(source, str | os.PathLike | Image.Image):
        raise ImageError(f"{name} must be a path, a PIL image or a NumPy array, not {type(source).__name__}.")
    # Damaged files make Pillow's decoders raise errors of many types, so all are caught here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of corrupt metadata, and of large photos below Pillow's hard limit
        if isinstance(source, Image.Image):
            image = source
        else:
            name = _label(source, name)
            try:
                image = Image.open(source)
            except FileNotFoundError:
                raise ImageError(f"{name}: there is no such file.") from None
            except IsADirectoryError:
                raise ImageError(f"{name} is not a file.") from None
            except UnidentifiedImageError:
                raise ImageError(f"{name} is not an image that Pillow can read.") from None
            except Exception as error:
                raise ImageError(f"{name} cannot be opened: {first_line(error)}.") from None
        try:
            frames = getattr(image, "n_frames", 1)
            deep = _is_deep(image)
            image.load()
            upright = ImageOps.exif_transpose(image)
        except Exception as error:
            raise ImageError(f"{name} is damaged or incomplete: {first_line(error)}.") from None
    if frames > 1:
        raise ImageError(f"{name} has {frames} frames: save the one you mean as a single image.")
    if deep:
        raise ImageError(f"{name} has 16 bits a channel: save it with 8 bits a channel first.")
    if 0 in upright.size:
        raise ImageError(f"{name} has no pixels.")
    return upright


def _is_deep(image: Image.Image) -> bool:
    """Whether a file that is not loaded yet holds 16-bit channels, which Pillow would cut to 8 bits."""
    for codec, _, _, arguments in getattr(image, "tile", []):
        if codec.startswith("ppm") and isinstance(arguments, tuple) and arguments[-1] > 255:
            return True
        if ";16" in str(arguments) and "BGR;16" not in str(arguments):
            return True
    return False


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"{name} is an array of {array.dtype}: give uint8 on a scale of 0 to 255.")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise ImageError(f"{name} must be an array (H, W), (H, W, 3) or (H, W, 4), not {array.shape}.")
    return Image.fromarray(np.ascontiguousarray(array))


def _label(source: ImageLike, name: str) -> str:
    """What to call an image in a message: its role and, where it has one, its path."""
    return f"{name} {source}" if isinstance(source, str | os.PathLike) else name


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


FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
}
"""What :func:`save_image` writes, by suffix. All but JPEG keep every pixel."""
_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}


def check_output(path: str | os.PathLike, inputs: Sequence[str | os.PathLike] = ()) -> None:
    """Refuse an output path that cannot be written, or that is one of the inputs.

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
    except (OSError, RuntimeError) as error:
        raise ImageError(f"output {path} cannot be written: {first_line(error)}.") from None


def save_image(image: Image.Image, path: str | os.PathLike, **options: int) -> None:
    """Write an image under a temporary name, then rename it: ``path`` is never half-written.

    ``options`` go to Pillow's writer of the format, such as ``compress_level=1`` for PNG.

    Raises:
        ImageError: see :func:`check_output`; or the format cannot hold the image, or the disk is full.
    """
    check_output(path)
    path = Path(path)
    file_format = FORMATS[path.suffix.lower()]
    profile = image.info.get("icc_profile")
    try:
        with atomic_write(path) as part:
            image.save(part, format=file_format, icc_profile=profile, **_OPTIONS.get(file_format, {}), **options)
    except (OSError, ValueError, KeyError) as error:
        raise ImageError(f"output {path} cannot be written: {first_line(error)}.") from None
