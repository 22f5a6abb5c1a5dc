import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hdnet_lib import harmonize, load_pretrained
from hdnet_lib.cli import main
from hdnet_lib.images import ImageError, save_image


@pytest.fixture(scope="module")
def lite():
    return load_pretrained("hdnet-lite")


def photo(width=70, height=50, mode="RGB", seed=0):
    """A smooth picture with some detail."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 200 / width, y * 200 / height, (x + y) * 100 / (width + height)], axis=-1)
    pixels = np.clip(base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def mask_of(width=70, height=50):
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    return mask


@given(width=st.integers(1, 90), height=st.integers(1, 90), seed=st.integers(0, 99), size=st.sampled_from([32, 64]))
def test_any_size_keeps_size_and_background(lite, width, height, seed, size):
    rng = np.random.default_rng(seed)
    composite = photo(width, height, seed=seed)
    mask = rng.random((height, width)) < 0.5
    if mask.all() or not mask.any():
        return
    try:
        result = harmonize(lite, composite, mask, working_size=size)
    except ValueError as error:
        assert "too fine a pattern" in str(error)
        return
    assert (result.size, result.mode) == (composite.size, "RGB")
    assert np.array_equal(np.asarray(result)[~mask], np.asarray(composite)[~mask])


def test_foreground_changes_and_keeps_its_detail(lite):
    composite, mask = photo(400, 300), mask_of(400, 300)
    before, after = np.asarray(composite).astype(float), np.asarray(harmonize(lite, composite, mask)).astype(float)
    inside = np.s_[90:210, 120:280]
    assert np.abs(after - before)[inside].mean() > 1
    # What is added is smooth: the difference between neighbouring pixels stays what it was.
    rows = [np.diff(image[inside], axis=0) for image in (before, after)]
    assert np.corrcoef(rows[0].ravel(), rows[1].ravel())[0, 1] > 0.97


def test_soft_mask_blends_and_its_black_stays(lite):
    composite = photo()
    soft = np.zeros((50, 70), np.float32)
    soft[10:40, 10:60] = 0.3
    soft[15:35, 20:50] = 1
    before, after = np.asarray(composite), np.asarray(harmonize(lite, composite, soft))
    assert np.array_equal(after[soft == 0], before[soft == 0])
    assert not np.array_equal(after[soft == np.float32(0.3)], before[soft == np.float32(0.3)])


def test_working_size_and_model_state_are_respected(lite):
    lite.train()
    small, large = (harmonize(lite, photo(), mask_of(), working_size=size) for size in (32, 128))
    assert lite.training
    lite.eval()
    assert not np.array_equal(np.asarray(small), np.asarray(large))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_pixel_formats(lite, mode, tmp_path):
    composite = photo().convert("L").convert(mode) if mode in ("LA", "1") else photo().convert(mode)
    composite.save(tmp_path / "c.png")
    result = harmonize(lite, tmp_path / "c.png", mask_of())
    transparent = mode in ("RGBA", "LA")
    assert result.mode == ("RGBA" if transparent else "RGB")
    background = mask_of() == 0
    expected = np.asarray(composite.convert(result.mode))
    assert np.array_equal(np.asarray(result)[background], expected[background])


def test_transparency_survives(lite):
    composite = photo().convert("RGBA")
    alpha = Image.fromarray((np.arange(50)[:, None] * np.ones((1, 70)) * 5).astype(np.uint8))
    composite.putalpha(alpha)
    assert np.array_equal(np.asarray(harmonize(lite, composite, mask_of()))[..., 3], np.asarray(alpha))


def test_exif_orientation_is_applied(lite, tmp_path):
    upright = photo(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    sideways = upright.transpose(Image.Transpose.ROTATE_90)
    sideways.save(tmp_path / "c.png", exif=exif)
    result = harmonize(lite, tmp_path / "c.png", mask_of(60, 40))
    expected = harmonize(lite, upright, mask_of(60, 40))
    assert np.array_equal(np.asarray(result), np.asarray(expected))


def test_paths_images_and_arrays_agree(lite, tmp_path):
    photo().save(tmp_path / "c.png")
    Image.fromarray(mask_of()).save(tmp_path / "m.png")
    inputs = [
        (tmp_path / "c.png", str(tmp_path / "m.png")),
        (photo(), Image.fromarray(mask_of())),
        (np.asarray(photo()), mask_of()),
        (np.asarray(photo()), mask_of() > 0),
        (np.asarray(photo()), (mask_of() / 255)[..., None]),
        (photo(), Image.fromarray(mask_of()).convert("RGB")),
    ]
    results = [np.asarray(harmonize(lite, *pair)) for pair in inputs]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_tiny_object_in_a_large_photo_is_still_changed(lite):
    composite, mask = photo(900, 700), np.zeros((700, 900), bool)
    mask[300:303, 400:402] = True
    result = np.asarray(harmonize(lite, composite, mask, working_size=64))
    assert np.array_equal(result[~mask], np.asarray(composite)[~mask])
    assert not np.array_equal(result[mask], np.asarray(composite)[mask])


def test_almost_everything_is_foreground(lite):
    mask = np.ones((700, 900), bool)
    mask[300:303, 400:402] = False
    result = np.asarray(harmonize(lite, photo(900, 700), mask, working_size=64))
    assert np.array_equal(result[~mask], np.asarray(photo(900, 700))[~mask])


def test_24_megapixels(lite):
    composite, mask = Image.new("RGB", (6000, 4000), (90, 120, 60)), np.zeros((4000, 6000), bool)
    composite.paste((200, 40, 40), (2000, 1000, 4000, 3000))
    mask[1000:3000, 2000:4000] = True
    result = np.asarray(harmonize(lite, composite, mask))
    assert result.shape == (4000, 6000, 3)
    assert np.array_equal(result[~mask], np.asarray(composite)[~mask])


def test_command_line(tmp_path, lite):
    photo().save(tmp_path / "c.png", icc_profile=b"profile")
    Image.fromarray(mask_of()).save(tmp_path / "m.png")
    arguments = ["harmonize", str(tmp_path / "c.png"), str(tmp_path / "m.png"), "-o", str(tmp_path / "out.png")]
    assert main(arguments) == 0
    written = Image.open(tmp_path / "out.png")
    assert np.array_equal(np.asarray(written), np.asarray(harmonize(lite, photo(), mask_of())))
    assert written.info["icc_profile"] == b"profile"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.png", "m.png", "out.png"]


def test_writing_never_leaves_half_a_file(tmp_path):
    (tmp_path / "out.jpg").write_bytes(b"precious")
    with pytest.raises(ImageError, match="cannot be written"):
        save_image(photo().convert("RGBA"), tmp_path / "out.jpg")
    assert (tmp_path / "out.jpg").read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [tmp_path / "out.jpg"]
