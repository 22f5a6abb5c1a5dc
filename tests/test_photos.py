"""Photos as people bring them: the right picture is read, its colours are used, and what belongs to it stays."""

import io
import os
import re
import struct
import zlib
from functools import cache

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, PngImagePlugin

from hdnet_lib import harmonize, load_pretrained
from hdnet_lib.cli import main
from hdnet_lib.data import profiles
from hdnet_lib.data.images import ImageError, read_mask, read_photo, read_rgb
from hdnet_lib.inference.harmonize import prepare

HEIGHT, WIDTH = 120, 160
Y, X = np.mgrid[:HEIGHT, :WIDTH]
INSIDE = ((X - 80) / 30) ** 2 + ((Y - 60) / 40) ** 2 < 1
PIXELS = np.stack([80 + X / 2, 100 + Y / 2, 150 + X * 0], axis=-1)
PIXELS[INSIDE] *= (1.3, 0.9, 0.6)
PIXELS = PIXELS.clip(0, 255).astype(np.uint8)
PHOTO, MASK = Image.fromarray(PIXELS), Image.fromarray(INSIDE.astype(np.uint8) * 255)
SMALL = PHOTO.resize((40, 30))


@pytest.fixture(scope="module")
def lite():
    return load_pretrained("hdnet-lite-loose")


# --- the primary picture


def as_mpo(path):
    PHOTO.save(path, format="MPO", save_all=True, append_images=[SMALL], quality=95)


def with_preview(first):
    def write(path):
        pages = [(PIXELS, 0), (np.asarray(SMALL), 1)]
        with tifffile.TiffWriter(path) as file:
            for page, kind in pages[:: -1 if first else 1]:
                file.write(page, photometric="rgb", subfiletype=kind, metadata=None)

    return write


def layered(path):
    """A PSD file with its merged picture and no layers."""
    header = b"8BPS\0\1" + bytes(6) + b"\0\3" + HEIGHT.to_bytes(4, "big") + WIDTH.to_bytes(4, "big") + b"\0\x08\0\3"
    path.write_bytes(header + bytes(12) + b"\0\0" + PIXELS.transpose(2, 0, 1).tobytes())


PRIMARY = {
    "MPO": (as_mpo, 2),
    "TIFF with a preview": (with_preview(False), 0),
    "TIFF with a preview first": (with_preview(True), 0),
    "PSD": (layered, 0),
    "JFIF": (lambda path: PHOTO.save(path, "JPEG", quality=95), 2),
    "AVIF": (lambda path: PHOTO.save(path, "AVIF", quality=95), 2),
    "JPEG 2000": (lambda path: PHOTO.save(path, "JPEG2000"), 0),
    "GIF": (lambda path: PHOTO.save(path, "GIF"), 8),
    "TGA": (lambda path: PHOTO.save(path, "TGA"), 0),
    "PPM": (lambda path: PHOTO.save(path, "PPM"), 0),
}


@pytest.mark.parametrize(("write", "difference"), PRIMARY.values(), ids=PRIMARY)
def test_the_primary_picture_is_read(tmp_path, write, difference):
    write(tmp_path / "photo.any")
    photo = read_photo(tmp_path / "photo.any")
    assert photo.size == PHOTO.size
    assert np.abs(photo.pixels.astype(int) - PIXELS).mean() <= difference


def frames(file_format):
    return lambda path: PHOTO.save(path, file_format, save_all=True, append_images=[PHOTO.rotate(9)])


SEVERAL = {name: frames(name) for name in ("GIF", "PNG", "WEBP", "AVIF", "TIFF")}


@pytest.mark.parametrize("write", SEVERAL.values(), ids=SEVERAL)
def test_animations_and_scans_are_refused(tmp_path, write):
    write(tmp_path / "photo.any")
    with pytest.raises(ImageError, match="has 2 frames"):
        read_photo(tmp_path / "photo.any")


def test_a_file_of_previews_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "raw.dng") as file:
        file.write(np.asarray(SMALL), photometric="rgb", subfiletype=1, metadata=None)
    with pytest.raises(ImageError, match="previews only"):
        read_photo(tmp_path / "raw.dng")


def test_heic(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(PHOTO).save(tmp_path / "photo.heic", quality=95)
    assert np.abs(read_photo(tmp_path / "photo.heic").pixels.astype(int) - PIXELS).mean() <= 2
    monkeypatch.setattr("hdnet_lib.data.decode.READABLE", ["PNG", "JPEG"])  # as without pillow-heif
    with pytest.raises(ImageError, match="HEIC photo: install pillow-heif"):
        read_photo(tmp_path / "photo.heic")


def test_large_photos_by_the_option(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_000)
    PHOTO.save(tmp_path / "p.png")
    MASK.save(tmp_path / "m.png")
    command = ["harmonize", str(tmp_path / "p.png"), str(tmp_path / "m.png"), "-o", str(tmp_path / "r.png")]
    assert main(command) == 2
    assert "--max-megapixels" in capsys.readouterr().err
    assert main([*command, "--max-megapixels", "1"]) == 0


# --- transparency


@pytest.mark.parametrize("where", ["background", "foreground"])
def test_colours_that_nobody_sees_do_not_count(lite, where):
    """A hole in one region, with three colours behind it: the visible part comes out the same."""
    hole = INSIDE & (X < 80) if where == "foreground" else ~INSIDE & (X > 100)
    results = []
    for hidden in (0, 128, 255):
        rgba = np.dstack([PIXELS, np.where(hole, 0, 255).astype(np.uint8)])
        rgba[hole, :3] = hidden
        result = np.asarray(harmonize(lite, rgba, INSIDE))
        assert np.array_equal(result[hole], rgba[hole])
        results.append(result[~hole])
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_half_transparent_colours_count_by_half(lite):
    """Two colours, one over the other at half, weigh as their mean; with alpha, by their alpha."""
    rgba = np.dstack([PIXELS, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    stripes = ~INSIDE & (X % 2 == 0)
    rgba[stripes, :3], rgba[stripes, 3] = 255, 85
    seen = prepare(rgba, INSIDE, 80).small
    corner = (seen[0, :, 2, 2].numpy() + 1) * 127.5
    expected = (PIXELS[4:6, 5].mean(axis=0) * 3 + 255) / 4
    assert np.abs(corner - expected).max() < 1


@pytest.mark.parametrize(("alpha", "region"), [(INSIDE, "background"), (~INSIDE, "foreground")])
def test_nothing_visible_is_refused(lite, alpha, region):
    with pytest.raises(ImageError, match=f"no visible {region}"):
        harmonize(lite, np.dstack([PIXELS, alpha.astype(np.uint8) * 255]), INSIDE)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_and_hidden_colours_survive_bit_for_bit(lite, tmp_path, suffix):
    alpha = ((X * 3 + Y) % 256).astype(np.uint8)
    harmonize(lite, np.dstack([PIXELS, alpha]), INSIDE).save(tmp_path / f"r{suffix}")
    written = np.asarray(Image.open(tmp_path / f"r{suffix}"))
    assert np.array_equal(written[..., 3], alpha)
    assert np.array_equal(written[~INSIDE, :3], PIXELS[~INSIDE])


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_opaque_rgba_is_rgb(lite, tmp_path, suffix):
    PHOTO.convert("RGBA").save(tmp_path / "p.png")
    harmonize(lite, tmp_path / "p.png", INSIDE).save(tmp_path / f"r{suffix}")
    assert Image.open(tmp_path / f"r{suffix}").mode == "RGB"


# --- colour


@cache
def rgb_profile(name):
    """An ICC profile by its name."""
    if name in ("srgb", "adobergb"):
        return bytes(imagecodecs.cms_profile(name))
    options = {
        # x, y and Y of the white point and the three primaries
        "Display P3": {"whitepoint": [0.3127, 0.3290, 1.0], "gamma": 2.2,
                       "primaries": [0.680, 0.320, 1.0, 0.265, 0.690, 1.0, 0.150, 0.060, 1.0]},
        "ProPhoto": {"whitepoint": [0.3457, 0.3585, 1.0], "gamma": 1.8,
                     "primaries": [0.7347, 0.2653, 1.0, 0.1596, 0.8404, 1.0, 0.0366, 0.0001, 1.0]},
    }[name]  # fmt: skip
    return bytes(imagecodecs.cms_profile("rgb", **options))


SPACES = ["adobergb", "Display P3", "ProPhoto"]


def in_space(pixels, name, deep):
    unit = profiles.from_srgb(pixels / np.float32(255), rgb_profile(name))
    return np.rint(unit * (65535 if deep else 255)).astype(np.uint16 if deep else np.uint8)


def write_png(path, pixels, profile):
    plain = imagecodecs.png_encode(pixels) if pixels.dtype == np.uint16 else None
    if plain is None:
        Image.fromarray(pixels).save(path, icc_profile=profile)
        return
    tiny = io.BytesIO()
    Image.new("RGB", (1, 1)).save(tiny, "PNG", icc_profile=profile)
    chunk = re.search(rb"(....iCCP.*?)....(?:IDAT|PLTE)", tiny.getvalue(), re.DOTALL)[1]
    path.write_bytes(plain[:33] + chunk + plain[33:])


@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("space", SPACES)
def test_the_same_picture_in_another_space_gives_the_same_result(lite, tmp_path, space, deep):
    write_png(tmp_path / "p.png", in_space(PIXELS, space, deep), rgb_profile(space))
    harmonize(lite, tmp_path / "p.png", INSIDE).save(tmp_path / "r.png")
    result = read_photo(tmp_path / "r.png")
    assert result.profile == rgb_profile(space)  # in the photo's own space, and at its depth
    assert result.pixels.dtype == (np.uint16 if deep else np.uint8)
    expected = np.asarray(harmonize(lite, PIXELS, INSIDE)).astype(float)
    seen = result.srgb / (257 if deep else 1)
    assert np.abs(expected - PIXELS)[INSIDE].mean() > 5
    assert np.abs(seen - expected)[INSIDE].mean() < 0.75
    before = read_photo(tmp_path / "p.png").pixels
    assert np.array_equal(result.pixels[~INSIDE], before[~INSIDE])


def test_colours_beyond_srgb_stay_beyond(lite):
    """The map moves them; it does not cut them to sRGB."""
    wide = np.zeros((HEIGHT, WIDTH, 3), np.uint8) + np.uint8([120, 130, 140])
    wide[INSIDE] = (10, 250, 10)
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, "PNG", icc_profile=rgb_profile("ProPhoto"))
    result = harmonize(lite, buffer, INSIDE)
    cut = profiles.from_srgb(result.srgb / np.float32(255), result.profile) * 255
    assert np.abs(result.pixels[INSIDE] - cut[INSIDE]).max() > 10


@pytest.mark.parametrize("mark", [{0xA001: 65535, 0xA005: {1: "R03"}}, {0xA001: 2}])
def test_adobe_rgb_by_exif_counts(lite, tmp_path, mark):
    exif = Image.Exif()
    exif[0x0110] = "CAM"
    exif.get_ifd(ExifTags.IFD.Exif).update(mark)
    pixels = in_space(PIXELS, "adobergb", False)
    Image.fromarray(pixels).save(tmp_path / "p.png", exif=exif)
    result = harmonize(lite, tmp_path / "p.png", INSIDE)
    expected = np.asarray(harmonize(lite, PIXELS, INSIDE)).astype(float)
    assert np.abs(result.srgb - expected)[INSIDE].mean() < 0.75
    assert np.abs(np.asarray(result) - expected)[INSIDE].mean() > 2


def test_a_grey_photo_with_a_profile_becomes_srgb(tmp_path):
    gray = PHOTO.convert("L")
    profile = bytes(imagecodecs.cms_profile("gray", gamma=1.0, whitepoint=[0.3457, 0.3585, 1.0]))
    gray.save(tmp_path / "p.png", icc_profile=profile)
    photo = read_photo(tmp_path / "p.png")
    linear = np.asarray(gray) / 255
    expected = 255 * np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert photo.profile == b""
    assert np.abs(photo.pixels - expected[..., None]).max() <= 1.5


def test_a_broken_profile_is_said(tmp_path, caplog):
    PHOTO.save(tmp_path / "p.png", icc_profile=b"no profile at all" * 20)
    assert read_photo(tmp_path / "p.png").profile == b""
    assert "p.png: its colour profile cannot be used" in caplog.text


def test_training_sees_srgb_and_evaluation_what_is_stored(tmp_path):
    write_png(tmp_path / "p.png", pixels := in_space(PIXELS, "Display P3", False), rgb_profile("Display P3"))
    assert np.abs(np.asarray(read_rgb(tmp_path / "p.png", "photo")).astype(int) - PIXELS).mean() < 1
    assert np.array_equal(read_rgb(tmp_path / "p.png", "photo", stored=True), pixels)


# --- what belongs to the photo

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="A"/></x:xmpmeta>'


def full_exif():
    exif = Image.Exif()
    exif[0x0110], exif[0x8298], exif[0x0112] = "CAM", "(c) A. Person", 6
    exif.get_ifd(ExifTags.IFD.Exif).update({0x9003: "2024:05:06 07:08:09", 0x927C: b"maker's note", 0xA434: "50 mm"})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 8.0, 30.0)})
    return exif


def write_with_everything(path):
    options = {"exif": full_exif(), "dpi": (300, 300), "icc_profile": rgb_profile("Display P3")}
    if path.suffix == ".png":
        options["pnginfo"] = info = PngImagePlugin.PngInfo()
        info.add_text("Comment", "a note")
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif path.suffix == ".tif":
        options["exif"] = exif = Image.Exif()
        exif.load(full_exif().tobytes())
        exif[700] = XMP
    else:
        options["xmp"] = XMP
    if path.suffix == ".jpg":
        options |= {"comment": b"a note", "quality": 95}
    PHOTO.transpose(Image.Transpose.ROTATE_90).save(path, **options)


@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".webp"])
def test_metadata_stay(lite, tmp_path, source, target):
    write_with_everything(tmp_path / f"p{source}")
    MASK.save(tmp_path / "m.png")
    output = tmp_path / f"r{target}"
    assert main(["harmonize", str(tmp_path / f"p{source}"), str(tmp_path / "m.png"), "-o", str(output)]) == 0
    written = Image.open(output)
    assert written.size == PHOTO.size
    exif = written.getexif()
    camera, place = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    assert (exif[0x0110], exif[0x8298], exif.get(0x0112, 1)) == ("CAM", "(c) A. Person", 1)
    assert (camera[0x9003], camera[0x927C], camera[0xA434]) == ("2024:05:06 07:08:09", b"maker's note", "50 mm")
    assert (place[1], tuple(map(float, place[2]))) == ("N", (48.0, 8.0, 30.0))
    assert written.info["icc_profile"] == rgb_profile("Display P3")
    xmp = written.info.get("xmp") or written.info.get("XML:com.adobe.xmp").encode()
    assert b'dc:title="A"' in xmp and b'tiff:Orientation="1"' in xmp
    if target != ".webp":
        dpi = tuple(map(float, written.info.get("dpi", ())))
        assert source == ".webp" or dpi == pytest.approx((300, 300), abs=0.01)
    if source in (".jpg", ".png") and target in (".jpg", ".png"):
        assert written.info.get("comment", b"").decode() == "a note" or written.info.get("Comment") == "a note"


def test_16_bits_keep_metadata_too(lite, tmp_path):
    write_with_everything(tmp_path / "small.jpg")
    photo = read_photo(tmp_path / "small.jpg")
    deep = type(photo)(photo.pixels.astype(np.uint16) * 257, None, photo.profile, photo.metadata)
    for suffix in (".png", ".tif"):
        deep.save(tmp_path / f"deep{suffix}")
        again = read_photo(tmp_path / f"deep{suffix}")
        assert np.array_equal(again.pixels, deep.pixels)
        assert again.profile == photo.profile
        assert again.metadata.dpi == pytest.approx((300, 300), abs=0.01)
        assert b'dc:title="A"' in again.metadata.xmp
        exif = Image.open(tmp_path / f"deep{suffix}").getexif()
        assert exif.get_ifd(ExifTags.IFD.Exif)[0xA434] == "50 mm"
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"


def test_the_thumbnail_of_the_photo_as_it_was_is_gone(lite, tmp_path):
    buffer = io.BytesIO()
    SMALL.save(buffer, "JPEG")
    thumbnail = buffer.getvalue()
    # IFD0 with the camera's model, IFD1 with the thumbnail.
    head = b"II*\0\x08\0\0\0" + b"\1\0" + b"\x10\1\2\0\4\0\0\0CAM\0" + (26).to_bytes(4, "little")
    second = b"\2\0" + b"\1\2\4\0\1\0\0\0" + (56).to_bytes(4, "little")
    second += b"\2\2\4\0\1\0\0\0" + len(thumbnail).to_bytes(4, "little") + bytes(4)
    block = head + second
    assert len(block) == 56
    PHOTO.save(tmp_path / "p.jpg", exif=b"Exif\0\0" + block + thumbnail, quality=95)
    assert Image.open(tmp_path / "p.jpg").getexif().get_ifd(ExifTags.IFD.IFD1)
    harmonize(lite, tmp_path / "p.jpg", INSIDE).save(tmp_path / "r.jpg")
    exif = Image.open(tmp_path / "r.jpg").getexif()
    assert exif[0x0110] == "CAM"
    assert not exif.get_ifd(ExifTags.IFD.IFD1)
    assert thumbnail not in (tmp_path / "r.jpg").read_bytes()


def test_damaged_exif_is_left_out_with_a_warning(lite, tmp_path, caplog):
    PHOTO.save(tmp_path / "p.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(9))
    harmonize(lite, tmp_path / "p.jpg", INSIDE).save(tmp_path / "r.jpg")
    assert "p.jpg: its EXIF data are damaged" in caplog.text
    assert not Image.open(tmp_path / "r.jpg").getexif()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".bmp"])
def test_save_of_python_keeps_the_profile_or_writes_srgb(lite, tmp_path, suffix):
    write_png(tmp_path / "p.png", in_space(PIXELS, "Display P3", False), rgb_profile("Display P3"))
    result = harmonize(lite, tmp_path / "p.png", INSIDE)
    result.save(tmp_path / f"r{suffix}")
    written = read_photo(tmp_path / f"r{suffix}")
    assert (written.profile == rgb_profile("Display P3")) == (suffix != ".bmp")
    assert np.abs(written.srgb.astype(int) - result.srgb).mean() <= (2 if suffix == ".jpg" else 0.5)


def test_the_result_is_an_array_and_an_image(lite):
    result = harmonize(lite, PHOTO, MASK)
    assert np.asarray(result).shape == PIXELS.shape
    assert result.image.size == PHOTO.size
    assert result._repr_png_().startswith(b"\x89PNG")


# --- masks


@pytest.mark.parametrize("quality", [50, 90])
@pytest.mark.parametrize("kind", ["WEBP", "JPEG", "AVIF"])
def test_masks_that_are_grey_but_for_rounding(tmp_path, kind, quality):
    MASK.convert("RGB").save(tmp_path / "m.any", kind, quality=quality)
    assert ((read_mask(tmp_path / "m.any") >= 0.5) == INSIDE).mean() > 0.99


def test_faint_masks_and_the_threshold(tmp_path):
    Image.fromarray(INSIDE.astype(np.uint8) * 38).save(tmp_path / "m.png")
    with pytest.raises(ImageError, match=r"no value above 38 .* --mask-threshold 19"):
        read_mask(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", threshold=19), INSIDE)
    Image.fromarray(INSIDE.astype(np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(ImageError, match=r"only the values 0 and 1 .* --mask-threshold 1"):
        read_mask(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", threshold=1), INSIDE)
    with pytest.raises(ImageError, match="from 1 to 255"):
        read_mask(tmp_path / "m.png", threshold=0)


def test_a_mask_in_the_raw_orientation_gets_a_hint(lite, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    PHOTO.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "p.jpg", exif=exif)
    with pytest.raises(ImageError, match="EXIF orientation"):
        harmonize(lite, tmp_path / "p.jpg", MASK.transpose(Image.Transpose.ROTATE_90))
    harmonize(lite, tmp_path / "p.jpg", MASK)


# --- what a tester found


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("how", ["path", "file", "image"])
def test_tiff_without_compression_is_turned_once(tmp_path, mode, orientation, how):
    """Pillow maps such a file into memory by its path, with the sides of the turned picture."""
    stored = PHOTO.convert("L").convert(mode) if mode == "L" else PHOTO.convert(mode)
    if mode == "RGBA":
        stored.putalpha(MASK)
    stored.save(tmp_path / "p.tif", tiffinfo={274: orientation})
    stored.save(tmp_path / "p.png", exif=exif_of(orientation))
    path = tmp_path / "p.tif"
    with path.open("rb") as file:
        photo = read_photo({"path": path, "file": file, "image": Image.open(file)}[how])
    expected = read_photo(tmp_path / "p.png")
    assert np.array_equal(photo.pixels, expected.pixels)
    assert photo.turned == (orientation > 4)


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_pages_do_not_share_their_profile_and_resolution(tmp_path):
    main, preview = (
        {"metadata": None},
        {"metadata": None, "iccprofile": rgb_profile("adobergb"), "resolution": (72, 72)},
    )
    for order in (1, -1):
        with tifffile.TiffWriter(tmp_path / "p.tif") as file:
            for page, kind, options in [(PIXELS, 0, main), (np.asarray(SMALL), 1, preview)][::order]:
                file.write(page, photometric="rgb", subfiletype=kind, **options)
        photo = read_photo(tmp_path / "p.tif")
        assert photo.profile == b""
        assert photo.metadata.dpi is None or photo.metadata.dpi == (1, 1)  # what tifffile writes without one
        assert np.array_equal(photo.pixels, PIXELS)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_grey_of_a_png(tmp_path, bits):
    values = np.arange(2**bits, dtype=np.uint8)
    levels = np.resize(values, (HEIGHT, WIDTH))
    key = int(values[-2])
    packed = np.packbits(np.unpackbits(levels.reshape(-1, 1), axis=1)[:, 8 - bits :].reshape(HEIGHT, -1), axis=1)

    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = WIDTH.to_bytes(4, "big") + HEIGHT.to_bytes(4, "big") + bytes([bits, 0, 0, 0, 0])
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    (tmp_path / "p.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", key.to_bytes(2, "big"))
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )  # fmt: skip
    photo = read_photo(tmp_path / "p.png")
    assert np.array_equal(photo.alpha == 0, levels == key)


def test_texts_keep_their_bytes_in_tiff(lite, tmp_path):
    block = b"II*\0\x08\0\0\0" + b"\1\0" + b"\x0e\1\2\0" + (14).to_bytes(4, "little") + (26).to_bytes(4, "little")
    PHOTO.save(
        tmp_path / "p.jpg", exif=b"Exif\0\0" + block + bytes(4) + "Beschreib. \u00e4".encode() + b"\0", quality=95
    )
    harmonize(lite, tmp_path / "p.jpg", INSIDE).save(tmp_path / "r.tif")
    assert "Beschreib. \u00e4".encode() in (tmp_path / "r.tif").read_bytes()


@pytest.mark.parametrize("entry", [(0x0131, 5, 26), (0x8769, 9, 2**32 - 1), (0x8825, 9, 2**32 - 1), (0x010F, 11, 0)])
def test_exif_of_another_type_does_not_stop_a_tiff(lite, tmp_path, entry):
    tag, kind, value = entry
    block = b"II*\0" + struct.pack("<LHHHLLL", 8, 1, tag, kind, 1, value, 0) + struct.pack("<LL", 72, 1)
    PHOTO.save(tmp_path / "p.jpg", exif=b"Exif\0\0" + block, quality=95)
    harmonize(lite, tmp_path / "p.jpg", INSIDE).save(tmp_path / "r.tif")
    assert Image.open(tmp_path / "r.tif").size == PHOTO.size


def test_the_resolution_that_only_exif_knows(lite, tmp_path):
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 300.0, 300.0, 2
    PHOTO.save(tmp_path / "p.webp", exif=exif, lossless=True)
    for suffix in (".png", ".tif", ".jpg"):
        harmonize(lite, tmp_path / "p.webp", INSIDE).save(tmp_path / f"r{suffix}")
        assert tuple(map(float, Image.open(tmp_path / f"r{suffix}").info["dpi"])) == pytest.approx((300, 300), abs=0.01)


def test_the_result_does_not_share_the_callers_arrays(lite):
    rgba = np.dstack([PIXELS, np.full((HEIGHT, WIDTH), 99, np.uint8)])
    result = harmonize(lite, rgba, INSIDE)
    rgba[:] = 0
    assert (result.alpha == 99).all()
    assert result.pixels.max() > 100


def test_streams_that_cannot_go_back(tmp_path):
    class Stream(io.RawIOBase):
        def __init__(self, content):
            self.inner = io.BytesIO(content)

        def readable(self):
            return True

        def read(self, size=-1):
            return self.inner.read(size)

    for pixels in (PIXELS, PIXELS.astype(np.uint16) * 257):
        assert np.array_equal(read_photo(Stream(imagecodecs.png_encode(pixels))).pixels, pixels)
    with pytest.raises(ImageError, match="not an image"):
        read_photo(Stream(b"no image"))


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "p.png")
    with pytest.raises(ImageError, match="is not a file"):
        read_photo(tmp_path / "p.png")


def test_a_loaded_image_whose_file_is_closed():
    buffer = io.BytesIO()
    PHOTO.save(buffer, "GIF")
    image = Image.open(buffer)
    image.load()
    buffer.close()
    assert read_photo(image).size == PHOTO.size


@pytest.mark.parametrize("values", [1, 255])
def test_masks_of_16_bits_on_a_scale_of_8(tmp_path, values):
    (tmp_path / "m.png").write_bytes(imagecodecs.png_encode(INSIDE.astype(np.uint16) * np.uint16(values)))
    with pytest.raises(ImageError, match="no value above 255 of 65,535"):
        read_mask(tmp_path / "m.png")


def test_a_photo_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["harmonize", str(tmp_path / "none"), "m.png", "-o", str(tmp_path / "out")]) == 2
    assert "none: there is no such file or folder" in capsys.readouterr().err
