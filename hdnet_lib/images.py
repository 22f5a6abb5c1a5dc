"""Reading photos and masks from anywhere, and refusing in one sentence what cannot be used."""

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

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
    image, name = _open(source, name)
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
    if not isinstance(source, np.ndarray | Image.Image):
        name = f"{name} {source}"
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


def _open(source: ImageLike, name: str) -> tuple[Image.Image, str]:
    """The loaded, upright image, and the name to use in messages."""
    if isinstance(source, np.ndarray):
        return _from_array(source, name), name
    if isinstance(source, Image.Image):
        image = source
    elif isinstance(source, str | os.PathLike):
        name = f"{name} {source}"
        path = Path(source)
        if not path.exists():
            raise ImageError(f"{name}: there is no such file.")
        if not path.is_file():
            raise ImageError(f"{name} is not a file.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a large photo is no attack: Pillow's hard limit stays
                image = Image.open(path)
        except UnidentifiedImageError:
            raise ImageError(f"{name} is not an image that Pillow can read.") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ImageError(f"{name} cannot be opened: {_sentence(error)}.") from None
    else:
        raise ImageError(f"{name} must be a path, a PIL image or a NumPy array, not {type(source).__name__}.")

    if getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{name} has {image.n_frames} frames: save the one you mean as a single image.")
    if any(";16" in str(tile[3]) for tile in getattr(image, "tile", [])):
        raise ImageError(f"{name} has 16 bits a channel: save it with 8 bits a channel first.")
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise ImageError(f"{name} is damaged or incomplete: {_sentence(error)}.") from None
    if 0 in upright.size:
        raise ImageError(f"{name} has no pixels.")
    return upright, name


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"{name} is an array of {array.dtype}: give uint8 on a scale of 0 to 255.")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise ImageError(f"{name} must be an array (H, W), (H, W, 3) or (H, W, 4), not {array.shape}.")
    return Image.fromarray(np.ascontiguousarray(array))


def _sentence(error: Exception) -> str:
    return str(error).split("\n")[0].strip().rstrip(".") or type(error).__name__


def to_tensor(pixels: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """uint8 (H, W, C), or bool (H, W), as a batch of one: (1, C, H, W) in [0, 1]."""
    array = pixels.reshape(*pixels.shape[:2], -1)
    tensor = torch.from_numpy(np.array(array)).permute(2, 0, 1).unsqueeze(0).to(dtype)
    return tensor if pixels.dtype == bool else tensor / 255


def to_pixels(image: torch.Tensor) -> np.ndarray:
    """A batch of one (1, 3, H, W) in [0, 1] as uint8 (H, W, 3), rounded."""
    return (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def save_image(image: Image.Image, path: str | os.PathLike) -> None:
    """Write an image under a temporary name, then rename it: ``path`` is never half-written.

    Raises:
        ImageError: the folder does not exist, the suffix names no format, or the format cannot hold the image.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ImageError(f"output {path}: the folder {path.parent} does not exist.")
    if path.is_dir():
        raise ImageError(f"output {path} is a folder: give a file name.")
    file_format = Image.registered_extensions().get(path.suffix.lower())
    if file_format not in Image.SAVE:
        raise ImageError(f"output {path}: use a file name that ends with an image format, such as .png.")
    options = {"quality": 95, "subsampling": 0} if file_format == "JPEG" else {}
    part = path.with_name(f".{path.name}.part")
    try:
        image.save(part, format=file_format, icc_profile=image.info.get("icc_profile"), **options)
        part.replace(path)
    except (OSError, ValueError, KeyError) as error:
        raise ImageError(f"output {path} cannot be written: {_sentence(error)}.") from None
    finally:
        part.unlink(missing_ok=True)
