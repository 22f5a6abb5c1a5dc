"""Masks that are moved to the border of the paste."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from hdnet_lib import harmonize, load_pretrained
from hdnet_lib.cli import main
from hdnet_lib.data.masks import perturb_mask
from hdnet_lib.data.snapping import COARSE, REACH, snap_mask
from hdnet_lib.evaluation.examples import open_examples
from hdnet_lib.evaluation.robustness import with_snapped_masks
from hdnet_lib.evaluation.scoring import evaluate


def scene(height=200, width=240, texture=6.0, seed=0):
    """A smooth textured photo."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack([90 + 60 * x / width, 110 + 40 * y / height, 100 + 20 * np.sin(x / 17)], axis=-1)
    grain = ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (1.2, 1.2, 0))
    return base + texture * grain / grain.std()


def blob(height=200, width=240):
    """An object with round and straight parts, and a hole."""
    y, x = np.mgrid[:height, :width]
    mask = np.hypot(y - 90, x - 110) < 45
    mask[100:160, 90:150] = True
    mask[80:100, 100:120] = False
    return mask


def paste(photo, mask, by=(35, -20, 10)):
    return (photo + mask[..., None] * by).clip(0, 255).astype(np.uint8)


def off(mask, true):
    """Mean distance of the outlines: the area between them by the length of the true one, in pixels."""
    length = sum(np.count_nonzero(np.diff(true, axis=axis)) for axis in (0, 1))
    return np.count_nonzero(mask != true) / length


@pytest.mark.parametrize("texture", [0.0, 6.0])
def test_an_exact_mask_stays_exact(texture):
    composite = paste(scene(texture=texture), blob())
    assert np.array_equal(snap_mask(composite, blob()), blob())


@pytest.mark.parametrize(
    ("kind", "amount"), [("eroded", 1), ("dilated", 1), ("eroded", 2), ("dilated", 3), ("shifted", 2), ("rough", 2)]
)
def test_planted_errors_are_found(kind, amount):
    composite, careless = paste(scene(), blob()), perturb_mask(blob(), kind, amount)
    snapped = snap_mask(composite, careless)
    assert off(careless, blob()) > 0.3
    assert off(snapped, blob()) < 0.05


def test_a_rough_outline_comes_nearer():
    composite, careless = paste(scene(), blob()), perturb_mask(blob(), "rough", 4)
    assert off(snap_mask(composite, careless), blob()) < 0.5 * off(careless, blob())


def test_a_strong_texture_does_not_break_the_mask():
    stripes = 40 * np.sign(np.sin(np.mgrid[:200, :240][1] / 3.0))[..., None]
    composite = paste(scene() + stripes, blob())
    for careless in (blob(), perturb_mask(blob(), "dilated", 2)):
        assert off(snap_mask(composite, careless), blob()) <= max(off(careless, blob()), 0.3)


def test_thin_parts_and_gaps_stay():
    mask = blob()
    mask[60:62, 155:220] = True  # a stick
    mask[60:62, 150:156] = True
    mask[140:142, 90:140] = False  # a slit
    composite = paste(scene(), mask)
    snapped = snap_mask(composite, mask)
    assert np.array_equal(snapped, mask)
    blind = snap_mask(paste(scene(), blob()), mask)  # the stick has no step of colour: it stays all the same
    assert blind[60:62, 165:220].all()


@pytest.mark.parametrize("composite", [
    np.full((200, 240, 3), 128, np.uint8),
    np.random.default_rng(1).integers(0, 256, (200, 240, 3), np.uint8),
    scene().clip(0, 255).astype(np.uint8),
])  # fmt: skip
def test_where_no_border_is_to_be_seen_the_mask_stays(composite):
    mask = blob()
    assert snap_mask(composite, mask) is mask


@pytest.mark.parametrize("scale", [1, 3, 8])
def test_large_photos_and_how_far_a_mask_moves(scale):
    """Three pixels off at the coarse size, at every size of photo."""
    size = (240 * scale, 200 * scale)
    true = np.asarray(Image.fromarray(blob()).resize(size, Image.Resampling.NEAREST))
    photo = np.asarray(Image.fromarray(scene().clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC))
    composite = paste(photo.astype(float), true)
    careless = np.roll(true, 2 * scale, axis=1)
    snapped = snap_mask(composite, careless)
    assert off(snapped, true) < 0.12 * off(careless, true)
    far = perturb_mask(true, "dilated", 12 * scale)
    pixel = 1  # of the coarse size
    while max(size) / pixel > COARSE:
        pixel *= 2
    limit = (math.ceil(max(size) / pixel * REACH) + 7) * pixel
    moved = snap_mask(composite, far) != far
    assert not (
        moved & (np.abs(ndimage.distance_transform_edt(far) - ndimage.distance_transform_edt(~far)) > limit)
    ).any()


def test_soft_masks_stay_soft():
    composite = paste(scene(), blob())
    soft = ndimage.uniform_filter(blob().astype(np.float32), 5)
    assert np.abs(snap_mask(composite, soft) - soft).mean() < 1e-3  # its middle is on the border, but for corners
    shifted = np.roll(soft, 2, axis=1)
    snapped = snap_mask(composite, shifted)
    assert (snapped.dtype, snapped.shape) == (np.float32, soft.shape)
    assert np.abs(snapped - soft).mean() < 0.35 * np.abs(shifted - soft).mean()
    assert off(snapped >= 0.5, blob()) < 0.1
    assert 0.8 < np.count_nonzero((snapped > 0) & (snapped < 1)) / np.count_nonzero((soft > 0) & (soft < 1)) < 1.25


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_half_transparent_object_moves_as_one(dtype):
    """The softness is that of the border, whatever lies inside."""
    composite = paste(scene(), blob())
    veil, shifted = blob() * dtype(0.6), np.roll(blob(), 2, axis=1) * dtype(0.6)
    snapped = snap_mask(composite, shifted)
    assert snapped.dtype == dtype
    assert off(snapped >= 0.5, blob()) < 0.1
    assert not snapped[~ndimage.binary_dilation(blob() | (shifted > 0), iterations=2)].any()
    assert np.array_equal(snapped[70:78, 90:100], veil[70:78, 90:100])


def test_small_objects_do_not_vanish():
    small = np.zeros((200, 240), bool)
    small[20:27, 20:27] = small[20:28, 200:208] = True
    mask = blob() | small
    assert np.array_equal(snap_mask(paste(scene(texture=2.0), mask), mask), mask)
    unseen = snap_mask(paste(scene(texture=2.0), blob()), mask)  # the small ones have no step of colour
    assert unseen[20:27, 20:27].sum() >= 5 * 5
    assert unseen[20:28, 200:208].sum() >= 6 * 6
    careless = perturb_mask(mask, "dilated", 1)
    assert off(snap_mask(paste(scene(), mask), careless), mask) < 0.1


def test_thin_parts_are_not_lost_when_the_outline_moves():
    true = blob()
    careless = perturb_mask(blob(), "dilated", 2)
    careless[60:62, 156:220] = True
    snapped = snap_mask(paste(scene(), true), careless)
    assert snapped[60:62, 165:220].all()
    assert off(snapped[:, :155], true[:, :155]) < 0.1


def test_sixteen_bits_and_masks_at_the_edge_of_the_photo():
    mask = np.zeros((200, 240), bool)
    mask[120:, :130] = True
    composite = paste(scene(), mask)
    careless = np.zeros_like(mask)
    careless[122:, :128] = True
    assert off(snap_mask(composite, careless), mask) < 0.05
    deep = composite.astype(np.uint16) * 257
    assert np.array_equal(snap_mask(deep, careless), snap_mask(composite, careless))


@pytest.mark.parametrize("mask", [np.zeros((40, 40), bool), np.ones((40, 40), bool), np.eye(40, dtype=bool)])
def test_masks_with_nothing_to_move(mask):
    assert np.array_equal(snap_mask(paste(scene(40, 40), mask), mask), mask)


@pytest.mark.parametrize("size", [(1, 5), (3, 3), (9, 400), (17, 2), (3, 800), (10, 4000)])
def test_tiny_and_narrow_photos(size):
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (*size, 3), np.uint8)
    for _ in range(5):
        mask = rng.random(size) < 0.5
        snapped = snap_mask(photo, mask)
        assert (snapped.shape, snapped.dtype) == (mask.shape, bool)


def test_the_command_snaps_unless_told_otherwise(tmp_path):
    composite, careless = paste(scene(), blob()), perturb_mask(blob(), "dilated", 2)
    Image.fromarray(composite).save(tmp_path / "c.png")
    Image.fromarray(careless).save(tmp_path / "m.png")
    run = ["harmonize", str(tmp_path / "c.png"), str(tmp_path / "m.png"), "--model", "hdnet-lite"]
    assert main([*run, "-o", str(tmp_path / "snapped.png")]) == 0
    assert main([*run, "-o", str(tmp_path / "given.png"), "--mask", "as-given"]) == 0
    changed = {
        name: (np.asarray(Image.open(tmp_path / f"{name}.png")) != composite).any(axis=-1)
        for name in ("snapped", "given")
    }
    assert not (changed["snapped"] & ~snap_mask(composite, careless)).any()
    rim = careless & ~ndimage.binary_dilation(blob())
    assert changed["given"][rim].mean() > 0.5 > changed["snapped"][rim].mean() == 0


def test_a_photo_with_transparency_keeps_its_mask():
    composite, careless = paste(scene(), blob()), perturb_mask(blob(), "dilated", 2)
    alpha = np.full(careless.shape, 255, np.uint8)
    alpha[:5] = 0
    rgba = np.dstack([composite, alpha])
    snapped, given = (
        np.asarray(harmonize(load_pretrained("hdnet-lite"), rgba, careless, snap=snap)) for snap in (True, False)
    )
    assert np.array_equal(snapped, given)


def test_evaluation_with_snapped_masks(small):
    example = open_examples(str(small), "test", 64, False, 1)[0]
    seen = []
    with_snapped_masks(lambda batch: seen.extend(batch) or [e.composite for e in batch])([example])
    assert np.array_equal(seen[0].mask, snap_mask(example.composite, example.mask))
    table = evaluate(small, ["reinhard"], size=64, limit=2, protocols=["hdnet"], snap=True)
    assert set(table.method) == {"composite", "reinhard", "reinhard+snap"}
    assert main(["evaluate", str(small), "--models", "reinhard", "--size", "64", "--limit", "2", "--snap", "--masks",
                 "--reference", "reinhard+snap"]) == 0  # fmt: skip
