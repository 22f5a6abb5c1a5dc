"""Opening image files of any kind: the primary picture, upright, at its full depth, or a sentence that says why not."""

import io
import logging
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from hdnet_lib.data.metadata import Metadata, read_metadata
from hdnet_lib.utils.files import first_line

with suppress(ImportError):  # the extra "heif"
    import pillow_heif

    pillow_heif.register_heif_opener()

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said in one sentence, here

ImageLike = str | os.PathLike | BinaryIO | Image.Image | np.ndarray

Image.init()
PICTURES = ("PNG", "JPEG", "MPO", "TIFF", "WEBP", "AVIF", "HEIF", "BMP", "DIB", "GIF", "JPEG2000", "PPM", "TGA", "PCX",
            "SGI", "PSD", "QOI", "ICO")  # fmt: skip
READABLE = [name for name in PICTURES if name in Image.OPEN]
"""Formats of Pillow that hold pictures; others are left alone, as EPS, for which Pillow starts another program."""
HOLDS_PRIMARY = ("MPO", "PSD", "HEIF")
"""Formats whose first picture is the photo; the others are previews, layers, or parts of it."""
GRAY, COLORED = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What brings a picture upright, by its EXIF orientation; 1 is upright."""


class ImageError(ValueError):
    """An input that cannot be used; the message says which, why, and what to do."""


class Decoded(NamedTuple):
    """A picture as its file holds it."""

    pixels: np.ndarray
    """(H, W) where it is grey, (H, W, 3) in RGB; uint8, or uint16 on the scale 0 to 65,535."""
    alpha: np.ndarray | None
    """(H, W), of the same type; None where every pixel is opaque."""
    profile: bytes
    """Its ICC profile; empty where there is none."""
    metadata: Metadata
    turned: bool
    """Whether its EXIF orientation turned it by a quarter."""


def suffixes() -> set[str]:
    """Endings, in small letters, of the files that can be read here."""
    registered = Image.registered_extensions()
    return {suffix for suffix, file_format in registered.items() if file_format in READABLE}


def list_images(folder: Path) -> list[Path]:
    """The images of a folder by their endings, in order; hidden files are none."""
    known = suffixes()
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in known and not path.name.startswith("."))


def label_of(source: ImageLike, name: str) -> str:
    """What to call an image in a message: its role and, where it has one, its path."""
    return f"{name} {source}" if isinstance(source, str | os.PathLike) else name


def decode(source: ImageLike, name: str, with_metadata: bool = True) -> Decoded:
    """Open and load an image.

    Args:
        source: a path, an open binary file, a PIL image, or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        name: its role, for messages.
        with_metadata: collect them, too, with a warning where they are damaged.

    Raises:
        ImageError: it cannot be read, or holds no one picture with 8 or 16 bits a channel in grey or RGB.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if not (isinstance(source, str | os.PathLike | Image.Image) or hasattr(source, "read")):
        raise ImageError(f"{name} must be a path, a PIL image or a NumPy array, not {type(source).__name__}.")
    label = label_of(source, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of corrupt metadata, and of large photos below Pillow's hard limit
        try:
            if isinstance(source, Image.Image) and not _is_pending(source):
                return _decode(source, None, label, with_metadata)
            # A file rather than its path: Pillow would map a TIFF into memory, and turn it wrongly.
            with _opened(source) as file:
                return _decode(_open(file), file, label, with_metadata)
        except FileNotFoundError:
            raise ImageError(f"{label}: there is no such file.") from None
        except ImageError as error:
            raise ImageError(f"{label} {error}") from None
        except Exception as error:  # damaged files make the decoders raise errors of many types
            by_system = isinstance(error, OSError) and error.errno
            what = "cannot be opened" if by_system else "is damaged, incomplete or of a kind that is not read here"
            raise ImageError(f"{label} {what}: {first_line(error)}.") from None


def _is_pending(image: Image.Image) -> bool:
    """Whether an opened image is not loaded yet, so that its file says more than Pillow would."""
    file = getattr(image, "fp", None)
    return bool(getattr(image, "tile", None)) and file is not None and not file.closed and file.seekable()


@contextmanager
def _opened(source: str | os.PathLike | BinaryIO | Image.Image) -> Iterator[BinaryIO]:
    """A file to read and to seek in; one that was open stays open, where it was."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise ImageError("is not a file.")
        with path.open("rb") as own:
            yield own
        return
    file = cast(BinaryIO, source.fp if isinstance(source, ImageFile.ImageFile) else source)
    if not (hasattr(file, "seekable") and file.seekable()):
        yield io.BytesIO(file.read())
        return
    position = file.tell()
    file.seek(0)
    yield file
    file.seek(position)


def _decode(image: Image.Image, file: BinaryIO | None, label: str, with_metadata: bool) -> Decoded:
    """:func:`decode` of an opened image and, where there is one, its file; its sentences lack their subject."""
    page = _primary_page(image)
    if file and page is not None:  # anew, since Pillow mixes the profiles and resolutions of pages
        image = _open(file)
        if page:
            image.info.clear()
            image.seek(page)
    depth = _depth(image)
    if depth not in (8, 16):
        raise ImageError(f"has {depth} bits a channel: save it with 8 bits, or 16.")
    if image.mode in ("CMYK", "LAB", "HSV", "YCbCr"):
        raise ImageError(f"is a {image.mode} image: convert it to RGB first, so that you choose how its colours map.")
    is_tiff = image.format == "TIFF"
    _scale_transparent_gray(image)
    if not is_tiff:  # before its EXIF data, for which Pillow loads PNG and may leave it half loaded
        image.load()
    orientation = _orientation(image)
    metadata = read_metadata(image, label) if with_metadata else Metadata()
    if is_tiff and depth == 8:  # after them, since it turns the picture; it does not know every TIFF of 16 bits
        image.load()
    pixels, alpha = _deep(image, file, page or 0) if depth == 16 else _shallow(image)
    if orientation in TURNS and not (is_tiff and depth == 8):
        pixels, alpha = TURNS[orientation](pixels), None if alpha is None else TURNS[orientation](alpha)
    if 0 in pixels.shape:
        raise ImageError("has no pixels.")
    if alpha is not None and alpha.min() == np.iinfo(alpha.dtype).max:
        alpha = None
    profile = image.info.get("icc_profile")
    return Decoded(pixels, alpha, profile if isinstance(profile, bytes) else b"", metadata, orientation >= 5)


def _orientation(image: Image.Image) -> int:
    """By its EXIF data: 1 to 8; 1 where there are none, or where they cannot be read, of which read_metadata warns."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:
        return 1
    return orientation if orientation in TURNS else 1


def _open(file: BinaryIO) -> Image.Image:
    try:
        file.seek(0)
        return Image.open(file, formats=READABLE)
    except UnidentifiedImageError:
        file.seek(0)
        head = file.read(12)
        if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS and "HEIF" not in READABLE:
            raise ImageError("is a HEIC photo: install pillow-heif to read it, or save it as JPEG.") from None
        if head[:3] in (b"II*", b"MM\0", b"II+"):
            raise ImageError(
                "is damaged, or a TIFF whose pixels are stored in a way that is not read here: save it in RGB with 8 "
                "bits, or 16."
            ) from None
        raise ImageError("is not an image that Pillow can read.") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageError(
            f"is larger than {limit:.0f} megapixels, which Pillow takes for an attack: if it is none, raise the limit "
            "by --max-megapixels of the command, in Python by PIL.Image.MAX_IMAGE_PIXELS, half the limit."
        ) from None


def _scale_transparent_gray(image: Image.Image) -> None:
    """Bring the transparent grey of a PNG of 2 or 4 bits to the scale of its pixels, which Pillow forgets."""
    tile, gray = getattr(image, "tile", None), image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and tile and isinstance(gray, int):
        image.info["transparency"] = gray * {"L;2": 85, "L;4": 17}.get(tile[0][3], 1)


def _primary_page(image: Image.Image) -> int | None:
    """The number of the page of a TIFF that its file is about; None for other files, and where there is one page.

    Raises:
        ImageError: there are several pictures, or only previews.
    """
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception:
        if getattr(image, "tile", None):
            raise
        frames = 1  # loaded, and its file is closed
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        pages = []
        for number in range(frames):
            if frames > 1:
                image.seek(number)
            # NewSubfileType: bit 0 marks a smaller copy, bit 2 a transparency mask; 255 is the older tag.
            if not (image.tag_v2.get(254, 0) & 5 or image.tag_v2.get(255, 1) == 2):
                pages.append(number)
        if not pages:
            raise ImageError("holds previews only, as raw files of cameras do: develop it first.")
        if len(pages) > 1:
            raise ImageError(f"has {len(pages)} frames: save the one you mean as a single image.")
        return pages[0] if frames > 1 else None
    if frames > 1 and image.format not in HOLDS_PRIMARY:
        raise ImageError(f"has {frames} frames: save the one you mean as a single image.")
    return None


def _depth(image: Image.Image) -> int:
    """Bits a channel of a file, of which Pillow would show 8 without a word; 8 for fewer."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        return 32
    deep = 16 if image.mode.startswith("I") else 8
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(8, *image.tag_v2.get(258, (1,)))
    if isinstance(image, ImageFile.ImageFile) and image.format == "JPEG2000" and _is_pending(image):
        return max(deep, *_jpeg2000_depths(image.fp))
    for codec, _, _, arguments in getattr(image, "tile", []):
        if codec.startswith("ppm") and isinstance(arguments, tuple) and arguments[-1] > 255:
            return 16
        if ";16" in str(arguments) and "BGR;16" not in str(arguments):
            return 16
        if codec == "SGI16" or (codec == "sgi_rle" and arguments[-1] == 2):
            return 16
    return deep


def _jpeg2000_depths(file: Any) -> Iterator[int]:
    """Bits of each component, from the marker SIZ of the first code stream."""
    position = file.tell()
    file.seek(0)
    head = file.read()
    file.seek(position)
    start = head.index(b"\xff\x4f\xff\x51")
    (components,) = struct.unpack_from(">H", head, start + 40)
    for number in range(components):
        yield (head[start + 42 + 3 * number] & 0x7F) + 1


def _shallow(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha of a loaded image of 8 bits."""
    if image.mode not in GRAY + COLORED:
        raise ImageError(f"has the pixel format {image.mode}: save it as RGB with 8 bits a channel.")
    transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    gray = image.mode in GRAY
    if not transparent:
        return np.array(image.convert("L" if gray else "RGB")), None
    channels = np.array(image.convert("RGBA"))
    return channels[..., 0] if gray else channels[..., :3], channels[..., 3]


def _deep(image: Image.Image, file: BinaryIO | None, page: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha of a picture of 16 bits a channel, which Pillow holds in grey alone."""
    if image.mode.startswith("I") and not (file and image.format in ("PNG", "TIFF")):
        gray = np.asarray(image).astype(np.uint16)
        inverted = getattr(image, "tag_v2", {}).get(262) == 0
        key = image.info.get("transparency")
        return 65535 - gray if inverted else gray, (gray != key) * np.uint16(65535) if isinstance(key, int) else None
    if not file or image.format not in ("PNG", "TIFF"):
        raise ImageError(
            "has 16 bits a channel, which are read from PNG and TIFF alone: save it as one of them, or with 8 bits."
        )
    file.seek(0)
    if image.format == "PNG":
        channels, premultiplied, inverted = imagecodecs.png_decode(file.read()), False, False
    else:
        tags = cast(TiffImagePlugin.TiffImageFile, image).tag_v2
        if tags.get(262) not in (0, 1, 2) or any(kind != 1 for kind in np.atleast_1d(tags.get(339, 1))):
            raise ImageError("has 16 bits a channel, but neither grey nor RGB: save it as one of them.")
        with tifffile.TiffFile(file) as tiff:
            stored = tiff.pages[page]
            lengths = zip(stored.dataoffsets, stored.databytecounts, strict=True)
            if any(length == 0 or offset + length > tiff.filehandle.size for offset, length in lengths):
                raise ImageError("is damaged or incomplete: its file ends before its pixels do.")
            channels = stored.asarray()
        if tags.get(284, 1) == 2 and channels.ndim == 3:  # planar
            channels = channels.transpose(1, 2, 0)
        extra = np.atleast_1d(tags.get(338, ()))
        if len(extra) and extra[0] == 0:
            channels = channels[..., : -len(extra)]  # what it means is not said
        premultiplied, inverted = len(extra) > 0 and extra[0] == 1, tags.get(262) == 0
    channels = channels.reshape(*channels.shape[:2], -1)
    if channels.dtype != np.uint16 or channels.shape[-1] > 4:
        raise ImageError(f"has {channels.shape[-1]} channels of {channels.dtype}: save it as RGB with 8 or 16 bits.")
    colors = channels.shape[-1] - (channels.shape[-1] in (2, 4))
    pixels, alpha = channels[..., :colors], channels[..., colors] if channels.shape[-1] > colors else None
    if premultiplied and alpha is not None:
        share = np.maximum(alpha[..., None].astype(np.float64), 1) / 65535
        pixels = np.rint(pixels / share).clip(0, 65535).astype(np.uint16)
    if inverted:
        pixels = 65535 - pixels
    return pixels[..., 0] if colors == 1 else pixels, alpha


def _from_array(array: np.ndarray, name: str) -> Decoded:
    if array.dtype != np.uint8:
        raise ImageError(f"{name} is an array of {array.dtype}: give uint8 on a scale of 0 to 255.")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise ImageError(f"{name} must be an array (H, W), (H, W, 3) or (H, W, 4), not {array.shape}.")
    array = array.copy()  # the caller may go on with it
    alpha = array[..., 3] if array.ndim == 3 and array.shape[-1] == 4 and array[..., 3].min() < 255 else None
    pixels = array[..., :3] if array.ndim == 3 else array
    return Decoded(pixels, alpha, b"", Metadata(), False)
