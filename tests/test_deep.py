"""Sixteen bits a channel, however they are stored: read in full, and written back in full."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from hdnet_lib import harmonize
from hdnet_lib.data.images import ImageError, read_gray, read_photo, read_rgb

HEIGHT, WIDTH = 40, 60
Y, X = np.mgrid[:HEIGHT, :WIDTH]
COLORED = np.stack([X * 1000, Y * 1500, X * 500 + Y * 700], axis=-1).astype(np.uint16)
GRAY = COLORED[..., 2].copy()
ALPHA = (X * 900 + 5000).astype(np.uint16)
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[10:30, 20:40] = 255


def tiff(array, **options):
    def write(path):
        shaped = array.transpose(2, 0, 1) if options.get("planarconfig") == "separate" else array
        tifffile.imwrite(path, shaped, metadata=None, **options)

    return write


def png(array):
    return lambda path: path.write_bytes(imagecodecs.png_encode(array))


def interlaced(path):
    """A PNG in the seven passes of Adam7."""
    rows = b""
    for top, left, down, right in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
                                   (1, 0, 2, 1)):  # fmt: skip
        for row in COLORED[top::down, left::right]:
            rows += b"\0" + row.astype(">u2").tobytes()

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 1))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def ppm(array, magic):
    return lambda path: path.write_bytes(b"%s %d %d 65535\n" % (magic, WIDTH, HEIGHT) + array.astype(">u2").tobytes())


RGBA, GRAY_ALPHA = np.dstack([COLORED, ALPHA]), np.dstack([GRAY, ALPHA])
READ = {
    "PNG": (png(COLORED), COLORED, None),
    "PNG, interlaced": (interlaced, COLORED, None),
    "PNG, RGBA": (png(RGBA), COLORED, ALPHA),
    "PNG, opaque": (png(np.dstack([COLORED, np.full_like(ALPHA, 65535)])), COLORED, None),
    "PNG, grey": (png(GRAY), GRAY, None),
    "PNG, grey with alpha": (png(GRAY_ALPHA), GRAY, ALPHA),
    "TIFF": (tiff(COLORED, photometric="rgb"), COLORED, None),
    "TIFF, big-endian": (tiff(COLORED, photometric="rgb", byteorder=">"), COLORED, None),
    "TIFF, planar": (tiff(COLORED, photometric="rgb", planarconfig="separate"), COLORED, None),
    "TIFF, planar, big-endian, LZW": (
        tiff(COLORED, photometric="rgb", planarconfig="separate", byteorder=">", compression="lzw"), COLORED, None),
    "TIFF, LZW with predictor": (tiff(COLORED, photometric="rgb", compression="lzw", predictor=2), COLORED, None),
    "TIFF, deflate": (tiff(COLORED, photometric="rgb", compression="zlib"), COLORED, None),
    "TIFF, deflate, big-endian": (
        tiff(COLORED, photometric="rgb", compression="zlib", byteorder=">"), COLORED, None),
    "TIFF, ZSTD": (tiff(COLORED, photometric="rgb", compression="zstd"), COLORED, None),
    "TIFF, packbits": (tiff(COLORED, photometric="rgb", compression="packbits"), COLORED, None),
    "TIFF, tiles": (tiff(COLORED, photometric="rgb", tile=(16, 16)), COLORED, None),
    "TIFF, strips": (tiff(COLORED, photometric="rgb", rowsperstrip=7), COLORED, None),
    "TIFF, BigTIFF": (tiff(COLORED, photometric="rgb", bigtiff=True), COLORED, None),
    "TIFF, RGBA": (tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"]), COLORED, ALPHA),
    "TIFF, RGBA, planar": (
        tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"], planarconfig="separate"), COLORED, ALPHA),
    "TIFF, a channel of unknown meaning": (tiff(RGBA, photometric="rgb", extrasamples=[0]), COLORED, None),
    "TIFF, grey": (tiff(GRAY, photometric="minisblack"), GRAY, None),
    "TIFF, grey, big-endian, deflate": (
        tiff(GRAY, photometric="minisblack", byteorder=">", compression="zlib"), GRAY, None),
    "TIFF, grey, white is 0": (tiff(65535 - GRAY, photometric="miniswhite"), GRAY, None),
    "PGM": (ppm(GRAY, b"P5"), GRAY, None),
}  # fmt: skip


@pytest.mark.parametrize(("write", "pixels", "alpha"), READ.values(), ids=READ)
def test_every_way_to_store_16_bits_is_read(tmp_path, write, pixels, alpha):
    write(tmp_path / "photo.any")
    photo = read_photo(tmp_path / "photo.any")
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    assert photo.pixels.dtype == np.uint16
    assert np.array_equal(photo.pixels, expected)
    assert (photo.alpha is None) == (alpha is None)
    assert alpha is None or np.array_equal(photo.alpha, alpha)


def test_premultiplied_colours_are_divided_by_alpha(tmp_path):
    multiplied = np.rint(COLORED * (ALPHA[..., None] / 65535)).astype(np.uint16)
    options = {"photometric": "rgb", "extrasamples": ["assocalpha"]}
    tiff(np.dstack([multiplied, ALPHA]), **options)(tmp_path / "photo.tif")
    photo = read_photo(tmp_path / "photo.tif")
    assert np.array_equal(photo.alpha, ALPHA)
    assert np.abs(photo.pixels.astype(int) - COLORED).max() <= 8  # alpha is 5,000 at the least


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    """As Pillow turns the same picture in 8 bits."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = (COLORED // 257).astype(np.uint8)
    Image.fromarray(small).save(tmp_path / "small.tif", exif=exif)
    tiff(COLORED, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])(tmp_path / "photo.tif")
    one, other = (read_photo(tmp_path / name) for name in ("small.tif", "photo.tif"))
    assert np.array_equal(other.pixels // 257, one.pixels)
    assert one.turned == other.turned == (orientation > 4)


REFUSED = {
    "PPM": (ppm(COLORED, b"P6"), "16 bits"),
    "TIFF of floats": (tiff(GRAY.astype(np.float32), photometric="minisblack"), "32 bits"),
    "TIFF of floats in RGB": (tiff(COLORED.astype(np.float32), photometric="rgb"), "not read here"),
    "TIFF of 32 bits": (tiff(COLORED.astype(np.uint32), photometric="rgb"), "32 bits|not read here"),
    "TIFF, grey with alpha": (
        tiff(GRAY_ALPHA, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]),
        "not read here",
    ),
    "TIFF in CMYK": (tiff(RGBA, photometric="separated"), "CMYK"),
    "JPEG 2000": (lambda path: path.write_bytes(imagecodecs.jpeg2k_encode(COLORED, level=0)), "16 bits"),
}


@pytest.mark.parametrize(("write", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_in_full_is_refused(tmp_path, write, sentence):
    write(tmp_path / "photo.any")
    with pytest.raises(ImageError, match=sentence):
        read_photo(tmp_path / "photo.any")


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("name", [name for name in READ if name != "PGM"])
def test_cut_files_are_refused(tmp_path, name, cut):
    READ[name][0](tmp_path / "photo.any")
    content = (tmp_path / "photo.any").read_bytes()
    (tmp_path / "photo.any").write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(ImageError):
        read_photo(tmp_path / "photo.any")


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("source", ["PNG, RGBA", "TIFF"])
def test_the_result_has_16_bits_and_its_background_is_untouched(nano, tmp_path, source, kind):
    READ[source][0](tmp_path / "photo.any")
    harmonize(nano, tmp_path / "photo.any", MASK).save(tmp_path / f"result.{kind}")
    before, after = (read_photo(tmp_path / name) for name in ("photo.any", f"result.{kind}"))
    assert after.pixels.dtype == np.uint16
    assert np.array_equal(after.pixels[MASK == 0], before.pixels[MASK == 0])
    assert not np.array_equal(after.pixels[MASK > 0], before.pixels[MASK > 0])
    assert (before.alpha is None and after.alpha is None) or np.array_equal(before.alpha, after.alpha)


def test_gradients_stay_smooth(nano, tmp_path):
    """A slope of less than a grey level of 8 bits has as many steps after as before."""
    slope = np.repeat((30000 + 8 * X)[..., None], 3, axis=2).astype(np.uint16)
    slope[MASK > 0] += np.uint16(9000)
    png(slope)(tmp_path / "photo.png")
    result = harmonize(nano, tmp_path / "photo.png", MASK).pixels
    row, before = result[20, 20:40, 0].astype(int), slope[20, 20:40, 0].astype(int)
    assert (row != before).all()
    assert len(np.unique(row)) == 20
    assert np.diff(row).max() < 64  # a quarter of a level of 8 bits


def test_formats_of_8_bits_get_the_rounded_values(nano, tmp_path):
    png(COLORED)(tmp_path / "photo.png")
    harmonize(nano, tmp_path / "photo.png", MASK).save(tmp_path / "result.webp")
    expected = np.rint(COLORED / 257).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "result.webp"))[MASK == 0], expected[MASK == 0])


def test_masks_and_data_sets_take_16_bits_as_8(tmp_path):
    png(MASK.astype(np.uint16) * 257)(tmp_path / "mask.png")
    png(COLORED)(tmp_path / "photo.png")
    assert np.array_equal(read_gray(tmp_path / "mask.png"), MASK)
    assert np.array_equal(read_rgb(tmp_path / "photo.png", "photo"), np.rint(COLORED / 257).astype(np.uint8))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("load", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_grey_images_of_pillow_are_as_their_files(tmp_path, orientation, load, inverted):
    options = {"extratags": [(274, "H", 1, orientation, True)]}
    tiff(GRAY, photometric="miniswhite" if inverted else "minisblack", **options)(tmp_path / "photo.tif")
    image = Image.open(io.BytesIO((tmp_path / "photo.tif").read_bytes()))  # by its path Pillow scrambles it
    if load:
        image.load()
    assert np.array_equal(read_photo(image).pixels, read_photo(tmp_path / "photo.tif").pixels)


def test_a_transparent_grey_of_16_bits(tmp_path):
    png(GRAY)(tmp_path / "plain.png")
    content = (tmp_path / "plain.png").read_bytes()
    body = b"tRNS" + int(GRAY[5, 5]).to_bytes(2, "big")
    chunk = (2).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    (tmp_path / "photo.png").write_bytes(content[:33] + chunk + content[33:])
    lazy, loaded = Image.open(tmp_path / "photo.png"), Image.open(tmp_path / "photo.png")
    loaded.load()
    for source in (tmp_path / "photo.png", lazy, loaded):
        photo = read_photo(source)
        assert np.array_equal(photo.alpha == 0, GRAY[5, 5] == GRAY)
        assert np.array_equal(photo.pixels[..., 0], GRAY)
