"""What belongs to a photo beside its pixels and its colour profile: EXIF, XMP, resolution, texts."""

import logging
import re
import struct
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image, PngImagePlugin, TiffImagePlugin

EXIF_PREFIX = b"Exif\0\0"
XMP_TAG = 700
EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
DESCRIPTIVE = (
    *(0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, EXIF_IFD, GPS_IFD),  # title to GPS
    *(0x4746, 0x4749, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F),  # rating; title, comment, ... of Windows
)
"""Tags of a TIFF file that describe the photo; the others say how this file stores it."""
LARGEST_SEGMENT = 65_000
"""Bytes of EXIF or XMP that fit into a JPEG."""

log = logging.getLogger(__name__)


class Metadata(NamedTuple):
    """What :func:`read_metadata` finds; empty by default."""

    exif: bytes = b""
    """As EXIF blocks are stored, a TIFF structure; orientation 1, without a thumbnail."""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()
    """Keyword and text, as in PNG; the comment of a JPEG has the keyword "Comment"."""


def read_metadata(image: Image.Image, label: str) -> Metadata:
    """Collect what an opened image holds.

    Args:
        image: as it was opened.
        label: what to call it in a warning. EXIF data that are damaged are left out, with a warning.
    """
    try:
        exif = _upright_exif(_exif_block(image))
    except Exception as error:  # of many types, as Pillow's parsers of metadata have none of their own
        log.warning("%s: its EXIF data are damaged, so they are left out (%s).", label, error)
        exif = b""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    written = parse_exif(exif)
    dpi = image.info.get("dpi") or (written.get(0x011A), written.get(0x011B))  # WebP has it in EXIF alone
    if not (isinstance(dpi, tuple) and len(dpi) == 2 and all(_is_number(value) for value in dpi)):
        dpi = None
    return Metadata(
        exif,
        re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", xmp),
        (float(dpi[0]), float(dpi[1])) if dpi else None,
        tuple(_texts(image)),
    )


def _is_number(value: Any) -> bool:
    try:
        return 0 < float(value) < 65_535
    except (TypeError, ValueError, ZeroDivisionError):
        return False


def _exif_block(image: Image.Image) -> bytes:
    if image.format == "TIFF":
        tags = _describing(image.getexif())
        block = b"II*\0\x08\0\0\0" + tags.tobytes(8) if len(tags) else b""
    elif "Raw profile type exif" in image.info:  # how ImageMagick writes it into PNG
        block = image.getexif().tobytes()
    else:
        block = image.info.get("exif") or b""
    return block.removeprefix(EXIF_PREFIX)


def _upright_exif(block: bytes) -> bytes:
    """The block with orientation 1 and without its thumbnail, which shows the photo as it was; all else stays.

    It is changed in place, since makers' notes may hold offsets into it, which writing it anew would break.
    """
    if not block:
        return b""
    changed = bytearray(block)
    order = {b"II": "<", b"MM": ">"}[block[:2]]
    (start,) = struct.unpack_from(f"{order}L", block, 4)
    entries = _entries(block, order, start)
    for tag, entry in entries:
        if tag == 0x0112:
            struct.pack_into(f"{order}HLHH", changed, entry + 2, 3, 1, 1, 0)
    end = start + 2 + 12 * len(entries)
    if end + 4 <= len(block):
        (second,) = struct.unpack_from(f"{order}L", block, end)
        struct.pack_into(f"{order}L", changed, end, 0)
        if 0 < second < len(block):
            values = {tag: struct.unpack_from(f"{order}L", block, entry + 8)[0]
                      for tag, entry in _entries(block, order, second)}  # fmt: skip
            first, length = values.get(0x0201, 0), values.get(0x0202, 0)
            if 0 < first <= first + length <= len(block):
                changed[first : first + length] = bytes(length)
    return bytes(changed)


def _entries(block: bytes, order: str, start: int) -> list[tuple[int, int]]:
    """Tag and offset of each entry of a directory."""
    (count,) = struct.unpack_from(f"{order}H", block, start)
    offsets = range(start + 2, start + 2 + 12 * count, 12)
    return [(struct.unpack_from(f"{order}H", block, offset)[0], offset) for offset in offsets]


def _texts(image: Image.Image) -> list[tuple[str, str]]:
    if isinstance(image, PngImagePlugin.PngImageFile):
        image.load()  # some may stand behind the pixels
        hidden = ("XML:com.adobe.xmp", "Raw profile type")
        return [(key, str(text)) for key, text in image.text.items() if not key.startswith(hidden)]
    comment = image.info.get("comment")
    if isinstance(comment, bytes):
        comment = comment.decode("utf-8", "surrogateescape")
    return [("Comment", comment)] if comment else []


def is_adobe_rgb(metadata: Metadata) -> bool:
    """Whether EXIF marks the colours as Adobe RGB, as cameras do that embed no profile."""
    exif = parse_exif(metadata.exif)
    try:
        space = exif.get_ifd(EXIF_IFD).get(0xA001)
        return space == 2 or (space == 65535 and str(exif.get_ifd(INTEROP_IFD).get(1, "")).startswith("R03"))
    except Exception:  # damaged in a place that does not keep the block from being copied
        return False


def parse_exif(block: bytes) -> Image.Exif:
    """An EXIF block for Pillow; empty where it is damaged."""
    exif = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exif.load(EXIF_PREFIX + block if block else b"")
        except Exception:  # see read_metadata
            return Image.Exif()
    return exif


def save_options(metadata: Metadata, file_format: str, label: str) -> dict[str, Any]:
    """Arguments of ``Image.save`` that keep what a format can hold; what does not fit into a JPEG is warned of."""
    exif, xmp, dpi, texts = metadata
    options: dict[str, Any] = {}
    if file_format == "JPEG":
        for name, block in (("EXIF", exif), ("XMP", xmp)):
            if len(block) > LARGEST_SEGMENT:
                log.warning("%s: its %s data are too long for a JPEG, so they are left out.", label, name)
        exif, xmp = (block if len(block) <= LARGEST_SEGMENT else b"" for block in (exif, xmp))
        if comment := dict(texts).get("Comment"):
            options["comment"] = comment.encode("utf-8", "surrogateescape")[:LARGEST_SEGMENT]
    if dpi and file_format != "WEBP":
        options["dpi"] = tuple(round(value) for value in dpi) if file_format in ("JPEG", "BMP") else dpi
    if file_format in ("JPEG", "WEBP"):
        options |= {"exif": EXIF_PREFIX + exif} if exif else {}
        options |= {"xmp": xmp} if xmp else {}
    if file_format == "PNG":
        options |= {"exif": EXIF_PREFIX + exif} if exif else {}
        options["pnginfo"] = chunks = PngImagePlugin.PngInfo()
        for key, text in texts:
            chunks.add_text(key, text.encode("utf-8", "replace").decode())
        if xmp:
            chunks.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    if file_format == "TIFF":
        options["tiffinfo"] = tiff_tags(metadata, label)
    return options


def tiff_tags(metadata: Metadata, label: str) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The directory of a TIFF file as far as it describes the photo; what cannot be written is warned of."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    exif = parse_exif(metadata.exif)
    for tag in DESCRIPTIVE:
        try:
            one = _describing(exif, (tag,))
            one.tobytes()
        except Exception as error:
            log.warning("%s: its EXIF tag 0x%04X is damaged, so it is left out (%s).", label, tag, error)
            continue
        for name, value in one.items():
            tags.tagtype[name] = one.tagtype[name]
            tags[name] = value
    if 0x0112 in exif:
        tags[0x0112] = 1
    if metadata.xmp:
        tags.tagtype[XMP_TAG] = 1  # BYTE
        tags[XMP_TAG] = metadata.xmp
    return tags


class _Stored(str):
    """A text of EXIF, which Pillow reads as Latin-1, to be written with the bytes that it was read from."""

    def encode(self, *_: str) -> bytes:
        return super().encode("latin-1", "replace")


def _as_stored(value: Any) -> Any:
    if isinstance(value, dict):
        return {tag: _as_stored(inner) for tag, inner in value.items()}
    return _Stored(value) if isinstance(value, str) else value


def _describing(exif: Image.Exif, tags: Sequence[int] = DESCRIPTIVE) -> TiffImagePlugin.ImageFileDirectory_v2:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of truncated values
        for tag in (tag for tag in tags if tag in exif):
            if tag in (EXIF_IFD, GPS_IFD):
                inner = dict(exif.get_ifd(tag))
                if INTEROP_IFD in inner:
                    inner[INTEROP_IFD] = dict(exif.get_ifd(INTEROP_IFD))
                directory.tagtype[tag] = 4  # LONG: Pillow writes a dictionary under it as a directory of its own
                directory[tag] = _as_stored(inner)
            else:
                directory[tag] = _as_stored(exif[tag])
    return directory
