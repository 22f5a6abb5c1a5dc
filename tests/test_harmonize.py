import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from hdnet_lib import harmonize, load_pretrained
from hdnet_lib.cli import main
from hdnet_lib.data import list_triplets
from hdnet_lib.data.images import ImageError, to_pixels, to_unit
from hdnet_lib.data.profiles import adobe_rgb
from hdnet_lib.data.save import save_image
from hdnet_lib.evaluation.metrics import score
from hdnet_lib.inference.harmonize import prepare


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
        result = harmonize(lite, composite, mask, working_size=size, snap=False)
    except ValueError as error:
        assert "too fine a pattern" in str(error)
        return
    assert (result.size, result.mode) == (composite.size, "RGB")
    assert np.array_equal(np.asarray(result)[~mask], np.asarray(composite)[~mask])


def test_foreground_changes_and_keeps_its_detail(lite):
    composite, mask = photo(1600, 1200), mask_of(1600, 1200)
    before, after = np.asarray(composite).astype(float), np.asarray(harmonize(lite, composite, mask)).astype(float)
    inside = np.s_[360:840, 480:1120]
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


def test_working_size_is_respected(lite):
    small, large = (harmonize(lite, photo(), mask_of(), working_size=size) for size in (32, 128))
    assert not np.array_equal(np.asarray(small), np.asarray(large))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_pixel_formats(lite, mode, tmp_path):
    composite = photo().convert("L").convert(mode) if mode in ("LA", "1") else photo().convert(mode)
    composite.save(tmp_path / "c.png")
    result = harmonize(lite, tmp_path / "c.png", mask_of())
    assert result.mode == "RGB"  # opaque RGBA is RGB
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


class Brighten(torch.nn.Module):
    """Stands for a network: adds 0.2, that is 25.5 grey levels, on the mask, and spoils everything else."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, composite, mask):
        return torch.where(mask > 0.5, composite + 0.2, -composite)


@pytest.mark.parametrize(("width", "height", "size"), [(64, 64, 64), (300, 200, 64), (40, 50, 128)])
def test_the_change_of_the_network_arrives_at_full_size(width, height, size):
    composite, mask = photo(width, height), mask_of(width, height)
    before, after = (
        np.asarray(image).astype(float) for image in (composite, harmonize(Brighten(), composite, mask, size))
    )
    inside = np.s_[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
    change = (after - before)[inside][before[inside] < 225]
    assert np.abs(change - 25.5).max() <= 1


class Tint(torch.nn.Module):
    """Stands for a network: an affine map of colours on the mask, and noise elsewhere."""

    def __init__(self):
        super().__init__()
        self.map = torch.nn.Parameter(torch.tensor([[0.8, 0.1, 0.0], [0.0, 0.9, 0.0], [0.1, 0.0, 0.7]]))

    def forward(self, composite, mask):
        mapped = torch.einsum("bchw,cd->bdhw", composite, self.map) + 0.05
        return torch.where(mask > 0.5, mapped, torch.rand_like(mapped))


@pytest.mark.parametrize(("width", "height", "size"), [(64, 64, 64), (300, 200, 64), (40, 50, 128)])
def test_a_colour_map_of_the_network_arrives_at_full_size(width, height, size):
    composite, mask = photo(width, height), mask_of(width, height) > 0
    before = np.asarray(composite)[mask] / 127.5 - 1
    after = np.asarray(harmonize(Tint(), composite, mask, size, snap=False))[mask]
    expected = ((before @ Tint().map.detach().numpy() + 0.05 + 1) * 127.5).clip(0, 255)
    # The ridge shrinks the map a little, and most where colours hardly vary.
    assert np.abs(after - expected).mean() < 2 < np.abs(after - before * 127.5 - 127.5).mean() / 3


def test_the_network_sees_a_small_photo_as_it_is():
    composite, mask = photo(64, 48), mask_of(64, 48)
    job = prepare(composite, mask, snap=False)
    assert np.array_equal(to_pixels(to_unit(job.small)), np.asarray(composite))
    assert np.array_equal(job.network_mask[0, 0].numpy() * 255, mask)


def test_no_pixel_that_the_network_sees_mixes_foreground_and_background():
    mask = np.zeros((500, 700), bool)
    mask[101:333, 57:411] = True
    pixels = np.where(mask[..., None], np.uint8([200, 40, 40]), np.uint8([30, 60, 220]))
    job = prepare(pixels, mask, 64)
    small = to_pixels(to_unit(job.small))
    inside = job.network_mask[0, 0].numpy() > 0
    assert np.array_equal(np.unique(small[inside].reshape(-1, 3), axis=0), [[200, 40, 40]])
    assert np.array_equal(np.unique(small[~inside].reshape(-1, 3), axis=0), [[30, 60, 220]])


def test_a_foreground_of_one_colour_is_shifted():
    pixels = np.asarray(photo(90, 70)).copy()
    mask = mask_of(90, 70) > 0
    pixels[mask] = 100
    result = np.asarray(harmonize(Brighten(), pixels, mask))
    assert np.abs(result[mask] - 125.5).max() <= 1


@pytest.mark.slow
def test_high_frequencies_of_the_foreground_come_closer_to_the_real_photo(lite):
    """Neither blurred nor grainy: the spread of the Laplacian, over the real photo's."""
    ratios = []
    for triplet in list_triplets("mini", "test")[::5]:
        composite, mask, real = triplet.read()[:3]
        inside = ndimage.binary_erosion(mask, iterations=2)
        images = (np.asarray(harmonize(lite, composite, mask, snap=False)), composite, real)
        spread = [ndimage.laplace(image.astype(float).mean(axis=2))[inside].std() for image in images]
        ratios.append((spread[0] / spread[2], spread[1] / spread[2]))
    result, before = np.log(ratios).T
    assert np.abs(result).mean() < 0.85 * np.abs(before).mean()
    assert 0.8 < np.exp(np.median(result)) < 1.15


@pytest.mark.slow
def test_shipped_weights_bring_composites_closer_to_the_real_photos(lite):
    gains = []
    for triplet in list_triplets("mini", "test")[::6]:
        composite, mask, real = triplet.read()[:3]
        result = np.asarray(harmonize(lite, composite, mask, snap=False))
        gains.append(score(result, real, mask).psnr - score(composite, real, mask).psnr)
    assert np.mean(gains) > 1


def test_half_precision_works_and_an_overflow_is_refused(lite):
    half = copy.deepcopy(lite).half()
    one, other = (np.asarray(harmonize(model, photo(256, 256), mask_of(256, 256))) for model in (lite, half))
    assert np.abs(one.astype(int) - other).max() <= 3
    half.encoder[0].conv.weight.data.fill_(6e4)
    with pytest.raises(ImageError, match="use float32 weights"):
        harmonize(half, photo(256, 256), mask_of(256, 256))


@pytest.mark.slow
def test_24_megapixels_in_bounded_memory_with_its_detail():
    """In a process of its own, whose peak memory tells."""
    script = """
import numpy as np
from PIL import Image
from hdnet_lib import harmonize, load_pretrained
from hdnet_lib.inference.benchmark import peak_of_process

rng = np.random.default_rng(0)
before = rng.integers(60, 196, (4000, 6000, 3), dtype=np.uint8)
mask = np.zeros((4000, 6000), bool)
mask[1000:3000, 2000:4000] = True
after = np.asarray(harmonize(load_pretrained("hdnet-lite"), Image.fromarray(before), mask))
assert np.array_equal(after[~mask], before[~mask])
inside = np.s_[1500:2500, 2500:3500]
texture = [np.diff(image[inside].astype(float), axis=0).ravel() for image in (before, after)]
assert np.corrcoef(*texture)[0, 1] > 0.99
print(peak_of_process() // 2**20)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2000  # MiB


def test_command_line(tmp_path):
    photo().save(tmp_path / "c.png", icc_profile=adobe_rgb())
    Image.fromarray(mask_of()).save(tmp_path / "m.png")
    arguments = ["harmonize", str(tmp_path / "c.png"), str(tmp_path / "m.png"), "-o", str(tmp_path / "out.png")]
    assert main(arguments) == 0
    written = Image.open(tmp_path / "out.png")
    expected = harmonize(load_pretrained("hdnet-lite-loose"), tmp_path / "c.png", mask_of())
    assert np.array_equal(np.asarray(written), np.asarray(expected))
    assert written.info["icc_profile"] == adobe_rgb()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.png", "m.png", "out.png"]


def test_writing_never_leaves_half_a_file(tmp_path):
    (tmp_path / "out.jpg").write_bytes(b"precious")
    with pytest.raises(ImageError, match="cannot be written"):
        save_image(photo().convert("F"), tmp_path / "out.jpg")
    assert (tmp_path / "out.jpg").read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [tmp_path / "out.jpg"]
