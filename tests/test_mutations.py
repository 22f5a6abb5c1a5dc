"""Damaged files of every format: a right result or one sentence; never a traceback, half a file or a wrong picture."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile, ImageOps

from hdnet_lib.cli import main
from hdnet_lib.data.images import read_mask
from hdnet_lib.data.profiles import adobe_rgb

HEIGHT, WIDTH = 40, 60
Y, X = np.mgrid[:HEIGHT, :WIDTH]
INSIDE = ((X - 30) / 12) ** 2 + ((Y - 20) / 12) ** 2 < 1
NOISE = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3))
PIXELS = (np.stack([X * 2, Y * 3, X + Y], axis=-1) + NOISE).astype(np.uint8)
FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "MPO": ("RGB",),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"),
    "WEBP": ("RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
    "GIF": ("P",),
    "BMP": ("L", "P", "RGB"),
    "TGA": ("L", "RGB", "RGBA"),
    "PPM": ("L", "RGB"),
    "PCX": ("L", "RGB"),
    "SGI": ("L", "RGB"),
    "JPEG2000": ("L", "RGB", "RGBA"),
}


def encoded(file_format: str, mode: str, mask: bool, rng: np.random.Generator) -> bytes:
    picture = Image.fromarray(INSIDE.astype(np.uint8) * 255 if mask else PIXELS)
    buffer = io.BytesIO()
    if mode == "I;16":
        array = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        array = array if rng.random() < 0.5 else np.repeat(array[..., None], 3, axis=2)
        if file_format == "PNG":
            return bytes(imagecodecs.png_encode(array))
        compression = [None, "zlib", "lzw"][rng.integers(3)]
        tifffile.imwrite(buffer, array, compression=compression, metadata=None)
        return buffer.getvalue()
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = int(rng.integers(1, 9)), "CAM"
    options = {"exif": exif} if file_format in ("PNG", "JPEG", "MPO", "TIFF", "WEBP", "AVIF") else {}
    if file_format in ("PNG", "JPEG", "TIFF", "WEBP") and mode in ("RGB", "RGBA"):
        options["icc_profile"] = adobe_rgb() if rng.random() < 0.3 else None
    if file_format == "MPO":
        options |= {"save_all": True, "append_images": [picture.resize((15, 10))]}
    if file_format == "TIFF" and mode not in ("F", "P"):
        options["compression"] = [None, "tiff_lzw", "tiff_deflate", "jpeg"][rng.integers(4 if mode == "RGB" else 3)]
    picture = picture.convert("RGB") if mode in ("P", "CMYK") else picture
    picture.convert(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, with flipped bytes, with bytes taken out or put in, or as it is."""
    kind, changed = rng.integers(6), bytearray(content)
    if kind == 0:
        return content[: rng.integers(len(content))]
    if kind == 1:
        at, length = rng.integers(len(content)), rng.integers(1, 40)
        return content[:at] + content[at + length :]
    if kind == 2:
        at = rng.integers(len(content))
        return content[:at] + rng.bytes(rng.integers(1, 40)) + content[at:]
    if kind in (3, 4):  # flips, near the start, where the headers are, or anywhere
        reach = min(len(content), 200) if kind == 3 else len(content)
        for at in rng.integers(reach, size=rng.integers(1, 12)):
            changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def as_pillow_reads(path):
    """8 bits, upright; None where the file holds something else, and "" where its pixels are damaged."""
    try:
        image = Image.open(io.BytesIO(path.read_bytes()))  # by its path Pillow scrambles a TIFF that it turns
        deep = ";16" in str(getattr(image, "tile", "")) or 16 in getattr(image, "tag_v2", {}).get(258, ())
        if deep or image.mode not in ("1", "L", "P", "RGB") or "transparency" in image.info:
            return None
    except Exception:
        return None
    try:
        image.load()
    except Exception:
        return ""
    try:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:  # its EXIF data
        return None


def check(number, folder, capsys):
    """One mutated photo or mask, or both, through the command; returns whether it gave a result."""
    rng = np.random.default_rng([7, number])
    paths = {}
    damaged = ("photo", "mask", "both")[rng.integers(3)]
    for role in ("photo", "mask"):
        names = list(FORMATS)
        file_format = names[rng.integers(len(names))] if damaged in (role, "both") else "PNG"
        modes = FORMATS[file_format]
        mode = modes[rng.integers(len(modes))] if damaged in (role, "both") else ("L" if role == "mask" else "RGB")
        content = encoded(file_format, mode, role == "mask", rng)
        paths[role] = folder / f"{role}.any"
        paths[role].write_bytes(mutated(content, rng) if damaged in (role, "both") else content)
    suffix = (".png", ".jpg", ".tif", ".webp", ".bmp")[rng.integers(5)]
    output = folder / f"out{suffix}"
    use = ("snapped", "as-given")[rng.integers(2)]
    command = ["harmonize", str(paths["photo"]), str(paths["mask"]), "-o", str(output), "--working-size", "32"]
    status = main([*command, "--mask", use])
    error = capsys.readouterr().err
    assert status in (0, 2)
    assert "Traceback" not in error
    assert {path.name for path in folder.iterdir()} - {output.name} == {"photo.any", "mask.any"}
    assert output.exists() == (status == 0)
    if status:
        assert error.startswith("hdnet: ") or "\nhdnet: " in error
        assert error.rstrip().endswith(".")
    else:
        with Image.open(output) as written:
            written.load()
        expected = as_pillow_reads(paths["photo"])
        assert not isinstance(expected, str)
        if expected is not None and suffix in (".png", ".tif", ".webp"):
            result = np.asarray(Image.open(output).convert("RGB"))
            assert result.shape == expected.shape
            black = read_mask(paths["mask"]) == 0
            assert use == "snapped" or np.array_equal(result[black], expected[black])
        output.unlink()
    return status == 0


@pytest.fixture
def tiny_network(nano, monkeypatch):
    monkeypatch.setattr("hdnet_lib.cli.load_model", lambda *_: nano)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.usefixtures("tiny_network")
def test_a_hundred_damaged_files(tmp_path, capsys):
    results = [check(number, tmp_path, capsys) for number in range(100)]
    assert 10 < sum(results) < 90


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_network")
def test_a_thousand_damaged_files(tmp_path, capsys):
    results = [check(number, tmp_path, capsys) for number in range(100, 1100)]
    assert 100 < sum(results) < 900
