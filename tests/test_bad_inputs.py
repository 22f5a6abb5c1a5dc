"""Malformed inputs: one sentence that says what was wrong, and no output file."""

import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hdnet_lib import ImageError, harmonize
from hdnet_lib.cli import main

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
MASK = np.zeros((40, 60), np.uint8)
MASK[10:30, 20:40] = 255


def png(pixels, mode=None):
    return lambda path: Image.fromarray(pixels, mode).save(path, format="PNG")


def data(content):
    return lambda path: path.write_bytes(content)


def image(mode, file_format, size=(60, 40)):
    return lambda path: Image.new(mode, size).save(path, format=file_format)


def cut(fraction, file_format):
    def write(path):
        Image.fromarray(PHOTO).save(path, format=file_format)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * fraction)])

    return write


def flipped(path):
    """A PNG whose compressed pixels are damaged."""
    Image.fromarray(PHOTO).save(path, format="PNG")
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)


def hand_made_png(width, height, bits, rows):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    content = header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return data(b"\x89PNG\r\n\x1a\n" + content)


# Claims a gigantic size.
bomb = hand_made_png(60_000, 60_000, 8, b"")


def animated(path):
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "green", "blue")]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


def with_alpha(path):
    picture = Image.fromarray(MASK).convert("RGBA")
    picture.putalpha(Image.fromarray(MASK))
    picture.save(path, format="PNG")


def cut_frames(file_format, fraction):
    def write(path):
        frames = [Image.fromarray(np.roll(PHOTO, shift, axis=0)) for shift in (0, 3)]
        frames[0].save(path, format=file_format, save_all=True, append_images=frames[1:])
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])

    return write


def loop(path):
    path.symlink_to(path)


def nothing(path):
    pass


GOOD_PHOTO, GOOD_MASK = png(PHOTO), png(MASK)
FULL = np.full_like(MASK, 255)
SPOT = MASK.copy()
SPOT[:] = 100

CHECKERS = np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 255

# name: (what the composite file is, what the mask file is, a part of the sentence)
FILES = {
    "composite missing": (nothing, GOOD_MASK, "no such file"),
    "composite a folder": (lambda path: path.mkdir(), GOOD_MASK, "not a file"),
    "composite empty": (data(b""), GOOD_MASK, "not an image"),
    "composite text": (data(b"hello, I am a photo"), GOOD_MASK, "not an image"),
    "composite html": (data(b"<html><img src='x.jpg'></html>"), GOOD_MASK, "not an image"),
    "composite random bytes": (data(bytes(range(256)) * 9), GOOD_MASK, "not an image"),
    "composite PNG magic only": (data(b"\x89PNG\r\n\x1a\n"), GOOD_MASK, "not an image|cannot be opened"),
    "composite JPEG magic only": (data(b"\xff\xd8\xff\xe0"), GOOD_MASK, "not an image|cannot be opened"),
    "composite pickle": (data(b"\x80\x04\x95\x00."), GOOD_MASK, "not an image"),
    "composite PNG cut early": (cut(0.02, "PNG"), GOOD_MASK, "damaged|not an image|cannot be opened"),
    "composite PNG cut in half": (cut(0.5, "PNG"), GOOD_MASK, "damaged"),
    "composite PNG cut late": (cut(0.9, "PNG"), GOOD_MASK, "damaged"),
    "composite JPEG cut": (cut(0.6, "JPEG"), GOOD_MASK, "damaged"),
    "composite WebP cut": (cut(0.5, "WEBP"), GOOD_MASK, "damaged|cannot be opened|not an image"),
    "composite TIFF cut": (cut(0.5, "TIFF"), GOOD_MASK, "damaged|cannot be opened|not an image"),
    "composite BMP cut": (cut(0.5, "BMP"), GOOD_MASK, "damaged"),
    "composite GIF cut": (cut(0.3, "GIF"), GOOD_MASK, "damaged|cannot be opened|not an image"),
    "composite damaged pixels": (flipped, GOOD_MASK, "damaged"),
    "composite decompression bomb": (bomb, GOOD_MASK, "179 megapixels"),
    "composite 32-bit": (image("I", "TIFF"), GOOD_MASK, "8 bits"),
    "composite float": (image("F", "TIFF"), GOOD_MASK, "8 bits"),
    "composite CMYK JPEG": (image("CMYK", "JPEG"), GOOD_MASK, "CMYK"),
    "composite CMYK TIFF": (image("CMYK", "TIFF"), GOOD_MASK, "CMYK"),
    "composite Lab": (image("LAB", "TIFF"), GOOD_MASK, "LAB"),
    "composite animated": (animated, GOOD_MASK, "3 frames"),
    "composite two GIF frames, cut": (cut_frames("GIF", 0.7), GOOD_MASK, "frames|damaged|cannot be opened"),
    "composite two TIFF pages, cut": (cut_frames("TIFF", 0.7), GOOD_MASK, "frames|damaged|cannot be opened"),
    "composite 16-bit PPM": (data(b"P6 60 40 65535\n" + bytes(60 * 40 * 6)), GOOD_MASK, "16 bits"),
    "composite a link to itself": (loop, GOOD_MASK, "cannot be opened"),
    "composite wider": (image("RGB", "PNG", (61, 40)), GOOD_MASK, "same size"),
    "composite on its side": (image("RGB", "PNG", (40, 60)), GOOD_MASK, "same size"),
    "mask missing": (GOOD_PHOTO, nothing, "no such file"),
    "mask a folder": (GOOD_PHOTO, lambda path: path.mkdir(), "not a file"),
    "mask empty file": (GOOD_PHOTO, data(b""), "not an image"),
    "mask text": (GOOD_PHOTO, data(b"0 0 1 1"), "not an image"),
    "mask JSON": (GOOD_PHOTO, data(b'{"polygon": [[1, 2]]}'), "not an image"),
    "mask cut": (GOOD_PHOTO, cut(0.5, "PNG"), "damaged"),
    "mask a colour photo": (GOOD_PHOTO, GOOD_PHOTO, "coloured"),
    "mask red on black": (GOOD_PHOTO, png(np.stack([MASK, MASK * 0, MASK * 0], axis=-1)), "coloured"),
    "mask in the alpha channel": (GOOD_PHOTO, with_alpha, "transparent"),
    "mask all black": (GOOD_PHOTO, png(MASK * 0), "empty"),
    "mask faint": (GOOD_PHOTO, png(SPOT), "no value above 100.*--mask-threshold 50"),
    "mask all white": (GOOD_PHOTO, png(FULL), "no background"),
    "mask all grey above half": (GOOD_PHOTO, png(FULL - 50), "no background"),
    "mask of 0 and 1": (GOOD_PHOTO, png(MASK // 255), "0 and 1"),
    "mask float": (GOOD_PHOTO, image("F", "TIFF"), "8 bits"),
    "mask CMYK": (GOOD_PHOTO, image("CMYK", "TIFF"), "CMYK"),
    "mask animated": (GOOD_PHOTO, animated, "3 frames"),
    "mask narrower": (GOOD_PHOTO, png(MASK[:, :-1]), "same size"),
    "mask half size": (GOOD_PHOTO, png(MASK[::2, ::2]), "same size"),
    "mask on its side": (GOOD_PHOTO, png(MASK.T.copy()), "same size"),
    "mask too fine": (image("RGB", "PNG", (64, 64)), png(CHECKERS), "too fine"),
}


@pytest.mark.parametrize(("composite", "mask", "sentence"), FILES.values(), ids=FILES)
def test_files(nano, tmp_path, capsys, composite, mask, sentence):
    photo, region, out = tmp_path / "photo.png", tmp_path / "region.png", tmp_path / "out.png"
    composite(photo)
    mask(region)
    size = 32
    with pytest.raises(ImageError, match=sentence) as caught:
        harmonize(nano, photo, region, working_size=size)
    one_sentence(str(caught.value))

    before = sorted(tmp_path.iterdir())
    assert main(["harmonize", str(photo), str(region), "-o", str(out), "--working-size", str(size)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    one_sentence(printed.err.removeprefix("hdnet: ").rstrip("\n"))
    assert sorted(tmp_path.iterdir()) == before


def contents(folder):
    return {path: path.is_dir() or path.read_bytes() for path in folder.iterdir()}


def one_sentence(text):
    assert "\n" not in text
    assert "Traceback" not in text
    assert text.endswith(".")
    assert not re.search(r"[.!?] [A-Z]", text), "one sentence, not two"
    assert len(text.replace("x" * 300, "x")) < 400


OBJECTS = {
    "composite None": (None, MASK, "path, a PIL image or a NumPy array"),
    "composite bytes": (b"x", MASK, "path, a PIL image or a NumPy array"),
    "composite list": (PHOTO.tolist(), MASK, "path, a PIL image or a NumPy array"),
    "composite float array": (PHOTO / 255, MASK, "float64"),
    "composite int array": (PHOTO.astype(int), MASK, "int64"),
    "composite 16-bit array": (PHOTO.astype(np.uint16), MASK, "uint16"),
    "composite two channels": (PHOTO[..., :2], MASK, "array"),
    "composite channels first": (PHOTO.transpose(2, 0, 1), MASK, "array"),
    "composite batch": (PHOTO[None], MASK, "array"),
    "composite no pixels": (PHOTO[:0], MASK[:0], "array"),
    "composite vector": (PHOTO[0, 0], MASK, "array"),
    "mask None": (PHOTO, None, "path, a PIL image or a NumPy array"),
    "mask negative": (PHOTO, MASK / 255 - 0.5, "outside 0 to 1"),
    "mask beyond one": (PHOTO, MASK.astype(np.float32), "outside 0 to 1"),
    "mask NaN": (PHOTO, np.full(MASK.shape, np.nan), "outside 0 to 1"),
    "mask int": (PHOTO, MASK.astype(int), "int64"),
    "mask three dimensions": (PHOTO, MASK[None] > 0, "array"),
    "mask colour array": (PHOTO, PHOTO, "coloured"),
    "mask no pixels": (PHOTO, MASK[:0] > 0, "array"),
    "mask other size": (PHOTO, MASK[1:] > 0, "same size"),
    "mask nowhere": (PHOTO, MASK > 255, "empty"),
    "mask everywhere": (PHOTO, MASK >= 0, "no background"),
}


@pytest.mark.parametrize(("composite", "mask", "sentence"), OBJECTS.values(), ids=OBJECTS)
def test_objects(nano, composite, mask, sentence):
    with pytest.raises(ImageError, match=sentence) as caught:
        harmonize(nano, composite, mask)
    one_sentence(str(caught.value))


@pytest.mark.parametrize("size", [0, -5, 31, 513, 4000])
def test_working_size(nano, size):
    with pytest.raises(ImageError, match="working size"):
        harmonize(nano, PHOTO, MASK, working_size=size)


@pytest.mark.parametrize(
    ("output", "options", "sentence"),
    [
        ("none/out.png", [], "does not exist"),
        ("folder.png", [], "is a folder"),
        ("out", [], "ends with .png"),
        ("out.xyz", [], "ends with .png"),
        ("out.gif", [], "ends with .png"),
        ("out.ico", [], "ends with .png"),
        ("x" * 300 + ".png", [], "cannot be written"),
        ("out.png", ["--model", "hdnet-huge"], "no weights"),
        ("out.png", ["--model", "none.safetensors"], "cannot be read"),
        ("out.png", ["--model", "photo.png.safetensors"], "cannot be read"),
        ("out.png", ["--working-size", "9999"], "working size"),
        ("photo.png", [], "is one of the inputs"),
        ("./region.png", [], "is one of the inputs"),
    ],
)
def test_outputs_and_options(tmp_path, capsys, output, options, sentence):
    photo, region = tmp_path / "photo.png", tmp_path / "region.png"
    GOOD_PHOTO(photo)
    GOOD_MASK(region)
    (tmp_path / "folder.png").mkdir()
    before = contents(tmp_path)
    assert main(["harmonize", str(photo), str(region), "-o", str(tmp_path / output), *options]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    one_sentence(printed.removeprefix("hdnet: ").rstrip("\n"))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["out.jpg", "out.bmp"])
def test_transparent_photo_as_jpeg(tmp_path, capsys, name):
    photo, region = tmp_path / "photo.png", tmp_path / "region.png"
    Image.fromarray(np.dstack([PHOTO, MASK // 2 + 100])).save(photo)
    GOOD_MASK(region)
    assert main(["harmonize", str(photo), str(region), "-o", str(tmp_path / name)]) == 2
    one_sentence(error := capsys.readouterr().err.removeprefix("hdnet: ").rstrip("\n"))
    assert "transparent pixels, which .png, .tif and .webp keep" in error
    assert not (tmp_path / name).exists()
