import csv
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hdnet_lib.composites import photo_dataset
from hdnet_lib.composites.photo_dataset import MIX, PhotoDataset
from hdnet_lib.composites.plausibility import measure
from hdnet_lib.composites.recipes import RECIPES
from hdnet_lib.data import dataset, list_triplets
from hdnet_lib.data.dataset import TripletDataset
from hdnet_lib.data.images import ImageError, to_unit
from hdnet_lib.data.jitter import jitter_masks
from hdnet_lib.data.masks import make_mask, mask_descriptor
from hdnet_lib.data.samples import Batch

GROUPS = [range(first, min(first + 4, 40)) for first in range(3, 40, 4)]


def equal(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_pool_splits_by_photo_and_makes_composites(table):
    train_part, held_out = PhotoDataset(table, "train", 32), PhotoDataset(table, "validation", 32)
    assert (len(train_part), len(held_out)) == (11, 2)  # ten photos, one of them with two masks
    composite, mask, real = train_part.composites(range(24))
    assert composite.shape == real.shape == (24, 3, 32, 32)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    background = (mask == 0).expand_as(real)
    assert torch.equal(composite[background], real[background])
    assert min(real.min(), composite.min()) >= -1
    assert max(real.max(), composite.max()) <= 1
    assert ((composite - real).abs().amax(dim=(1, 2, 3)) > 0).all()


def test_a_small_pool_keeps_one_photo_aside(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
        mask = Image.new("L", (20, 20))
        mask.paste(255, (5, 5, 15, 15))
        mask.save(tmp_path / f"{name}_mask.png")
    table = tmp_path / "pool.csv"
    table.write_text("image,masks\na.png,a_mask.png\nb.png,b_mask.png\n")
    pools = [PhotoDataset(table, part, 16) for part in ("train", "validation")]
    assert [len(pool) for pool in pools] == [1, 1]
    assert pools[0].composites(range(4)).composite.isfinite().all()  # a lone photo is its own reference


def test_a_composite_depends_on_its_number_and_the_seed_alone(table):
    pool = PhotoDataset(table, "train", 32)
    together = pool.composites(range(5, 30), seed=3)
    for number in (5, 11, 29):
        alone = pool.composites([number], seed=3)
        for one, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_of_them[number - 5], rtol=0, atol=1e-5)
    assert equal(together, PhotoDataset(table, "train", 32).composites(range(5, 30), seed=3))
    assert not torch.equal(together.composite, pool.composites(range(5, 30), seed=4).composite)


@pytest.mark.slow
def test_loose_masks_miss_the_border_of_a_share_of_the_composites(table):
    exact, half, every = (PhotoDataset(table, "train", 32, mask_jitter=share) for share in (0.0, 0.5, 1.0))
    numbers = range(200)
    before, some, after = (pool.composites(numbers, seed=3) for pool in (exact, half, every))
    assert torch.equal(some.real, before.real)
    changed = [(made.mask != before.mask).flatten(1).any(1).float().mean() for made in (some, after)]
    assert 0.25 < changed[0] < 0.5 < changed[1] < 0.85  # one in five is grown by nothing
    for made in (some, after):
        assert set(made.mask.unique().tolist()) == {0.0, 1.0}
        assert (made.mask.mean(dim=(1, 2, 3)) > 0).all()
        assert (made.mask.mean(dim=(1, 2, 3)) < 1).all()
        outside = (before.mask == 0).expand_as(made.real)
        assert torch.equal(made.composite[outside], made.real[outside])  # whatever the mask that is given
        error, error_before = (x.sub(before.real).abs() for x in (made.composite, before.composite))
        assert (error <= error_before + 1e-6).all()
    assert (after.composite != before.composite).any()
    assert equal([images[7:9] for images in some], half.composites(range(7, 9), seed=3))
    streaming = PhotoDataset(table, "train", 32, resident=False, mask_jitter=0.5)
    assert equal(streaming.composites(range(4), seed=3), [images[:4] for images in some])


def test_masks_that_would_vanish_or_cover_everything_stay():
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, 0, 5, 5] = 1
    mask[1] = 1 - mask[0]
    images = torch.zeros(2, 3, 16, 16)
    for start in range(0, 40, 2):
        made = jitter_masks(Batch(images, mask, images), [start, start + 1], 0, 1.0)
        assert (made.mask.mean(dim=(1, 2, 3)) > 0).all()
        assert (made.mask.mean(dim=(1, 2, 3)) < 1).all()


def test_a_pool_on_disk_gives_the_same_composites(table):
    """Also when it starts in the middle, as a run that goes on does, and stops in the middle."""
    resident, streaming = (PhotoDataset(table, "train", 32, resident=choice) for choice in (True, False))
    assert not streaming.resident
    batches = [list(pool.batches(GROUPS, seed=1)) for pool in (resident, streaming)]
    assert [len(batch.mask) for batch in batches[0]] == [4] * 9 + [1]
    assert all(equal(one, two) for one, two in zip(*batches, strict=True))
    assert equal(streaming.composites(range(7, 11), seed=1), batches[0][1])
    middle = streaming.batches(GROUPS[1:], seed=1)
    assert equal(next(middle), batches[0][1])
    middle.close()


def test_a_pool_that_is_left_early_cancels_its_reads(table, monkeypatch):
    pool, begun, held = PhotoDataset(table, "train", 32, resident=False), [], threading.Event()
    read = pool._read

    def slow(index):
        begun.append(index)
        if len(begun) > 8:  # what the first batch does not need
            held.wait(2)
        return read(index)

    monkeypatch.setattr(pool, "_read", slow)
    batches = pool.batches(GROUPS, seed=1)
    next(batches)
    batches.close()
    held.set()
    assert len(begun) < sum(2 * len(group) for group in GROUPS)


def test_where_a_pool_is_kept_follows_from_its_size(table, monkeypatch):
    assert PhotoDataset(table, "train", 32).resident
    monkeypatch.setattr(dataset, "RESIDENT_LIMIT", 1000)
    assert not PhotoDataset(table, "train", 32).resident


def test_a_file_damaged_while_streaming_gets_a_sentence(table):
    pool = PhotoDataset(table, "train", 32, resident=False)
    for path in table.parent.glob("photo*.png"):
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"photo .*\.png is damaged"):
        list(pool.batches(GROUPS))


def test_every_photo_comes_once_in_each_round(table):
    pool = PhotoDataset(table, "train", 32)
    rounds = [
        pool._plan(range(start, start + len(pool)), seed=0).index[: len(pool)].tolist() for start in (0, len(pool))
    ]
    assert sorted(rounds[0]) == sorted(rounds[1]) == list(range(len(pool)))
    assert rounds[0] != rounds[1]


def test_recipes_come_in_the_shares_of_the_mix(table):
    plan = PhotoDataset(table, "train", 32)._plan(range(3000), seed=0)
    shares = np.bincount(plan.recipe, minlength=len(RECIPES)) / 3000
    assert sum(MIX.values()) == pytest.approx(1)
    np.testing.assert_allclose(shares, [MIX.get(name, 0) for name in RECIPES], atol=0.03)


def test_one_recipe_makes_all_composites_and_changes_nothing_else(table):
    mixed, curved = (
        PhotoDataset(table, "train", 32, recipe=recipe)._plan(range(60), 0) for recipe in ("mix", "curves")
    )
    assert {RECIPES[number] for number in curved.recipe} == {"curves"}
    for drawn in ("index", "corner", "flip", "invert", "strength", "uniform"):
        assert (getattr(mixed, drawn) == getattr(curved, drawn)).all()
    with pytest.raises(ValueError, match="no recipe called 'Curves', only mix, reinhard, "):
        PhotoDataset(table, recipe="Curves")


def test_references_are_of_other_photos_and_like_the_foreground(table):
    pool = PhotoDataset(table, "train", 32)
    photo, reference = np.split(pool._plan(range(300), seed=0).index, 2)
    assert (pool._photo_of[photo] != pool._photo_of[reference]).all()
    pool._descriptors = np.arange(33).reshape(11, 3) * 100.0  # each is most like its neighbours
    photo, reference = np.split(pool._plan(range(300), seed=0).index, 2)
    assert np.abs(photo - reference).mean() < 2


def test_implausible_composites_are_replaced(table, monkeypatch):
    """Noise and a recipe that clips everything: what is left is the mild change of light."""
    monkeypatch.setattr(photo_dataset, "recolor", broken_recolor)
    composite, mask, real = PhotoDataset(table, "train", 32).composites(range(32))
    values = measure(to_unit(composite), to_unit(real), mask)
    assert values.clipped.max() < 0.2
    assert values.change.min() > 0


def broken_recolor(recipe, photo, mask, *others):
    if recipe == "illuminant":
        return torch.where(mask > 0.5, photo * 0.9, photo)
    return torch.where(mask > 0.5, 1.0, photo)


@given(seed=st.integers(0, 10**6))
def test_no_crop_loses_a_region(seed):
    """Thin and tiny masks anywhere: both regions stay in each crop."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((34, 34), bool)
    top, left = rng.integers(0, 33, 2)
    height, width = rng.integers(1, 34, 2)
    mask[top : top + height, left : left + width] = True
    if mask.all():
        return
    pool = PhotoDataset.__new__(PhotoDataset)
    pool.size, pool.side = 32, 34
    pool._borders = photo_dataset._border(mask)[None]
    corners = pool._corner(np.zeros(50, int), rng.random((50, 2)))
    assert corners.min() >= 0
    assert corners.max() <= 2
    for y, x in corners:
        assert 0 < mask[y : y + 32, x : x + 32].mean() < 1


def test_photos_without_masks_get_some(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["image,masks"]
    for number in range(6):
        blobs = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        blobs.resize((90, 80), Image.Resampling.BICUBIC).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,")
    (tmp_path / "pool.csv").write_text("\n".join(lines))
    pools = [PhotoDataset(tmp_path / "pool.csv", "train", 32, resident=choice) for choice in (True, False)]
    assert len(pools[0]) == 5
    assert equal(*(pool.composites(range(10)) for pool in pools))


def test_made_masks_are_varied_and_no_rectangles():
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(
        (120, 100), Image.Resampling.BICUBIC
    )
    masks = [make_mask(np.asarray(photo), seed) for seed in range(60)]
    assert all(mask.shape == (100, 120) and mask.dtype == np.uint8 for mask in masks)
    assert np.array_equal(masks[7], make_mask(np.asarray(photo), 7))
    ratios = np.array([(mask > 127).mean() for mask in masks])
    assert 0.004 < ratios.min() < 0.1 < ratios.max() < 0.65
    rectangles = 0
    for mask in masks:
        rows, columns = np.nonzero(mask > 127)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        rectangles += len(rows) > 0.97 * box
    assert rectangles == 0


def test_a_photo_of_one_colour_gets_a_mask_too():
    for seed in range(12):
        assert 0.004 < (make_mask(np.full((64, 64, 3), 90, np.uint8), seed) > 127).mean() < 0.65


def test_kinds_are_near_for_masks_alike():
    masks = np.zeros((3, 40, 60), bool)
    masks[0, 10:20, 10:20] = masks[1, 11:21, 12:22] = masks[2, 30:32, 50:52] = True
    one, near, far = (mask_descriptor(mask) for mask in masks)
    assert np.linalg.norm(one - near) < 0.2 < np.linalg.norm(one - far)


def test_table_with_a_missing_mask_column_value(table):
    """Short rows: csv gives None for the cells that are not there."""
    with table.open(newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    table.write_text("image,masks\n" + "\n".join(names))
    assert len(PhotoDataset(table, "validation", 16)) == 2


def test_triplets_are_read_as_they_are(small):
    pool = TripletDataset(small, "train", 32)
    triplets = {t.photo: t for t in list_triplets(small, "train")}
    batch = pool.composites(range(len(pool)))
    assert batch.composite.shape == batch.real.shape == (len(pool), 3, 32, 32)
    index = pool._plan(range(len(pool)), 0).index
    assert sorted(index) == list(range(len(pool)))
    images = pool._triplets[index[3]].read(32, background="real")
    for tensor, image in zip((batch.composite, batch.real), (images.composite, images.real), strict=True):
        expected = torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 * 2 - 1
        torch.testing.assert_close(tensor[3], expected)
    assert torch.equal(batch.mask[3, 0], torch.from_numpy(images.mask).float())
    held_out = TripletDataset(small, "validation", 32)
    photos = [{t.photo for t in part._triplets} for part in (pool, held_out)]
    assert photos[0].isdisjoint(photos[1])
    assert photos[0] | photos[1] == set(triplets)


def test_triplets_on_disk_and_in_memory_are_the_same(small):
    pools = [TripletDataset(small, "train", 32, resident=choice) for choice in (True, False)]
    assert all(equal(one, two) for one, two in zip(*(pool.batches(GROUPS, 2) for pool in pools), strict=True))


def test_a_photo_with_one_row_for_each_mask_stays_on_one_side(table):
    lines = table.read_text().split("\n")
    first = next(line for line in lines[1:] if " " in line)
    name, masks = first.split(",")
    table.write_text(
        "\n".join(["image,masks", *(f"{name},{mask}" for mask in masks.split()), f"./{first}", *lines[5:8]])
    )
    parts = [PhotoDataset(table, part, 16) for part in ("train", "validation")]
    names = [{photo.name for photo, _ in pool._pairs} for pool in parts]
    assert names[0].isdisjoint(names[1])


def test_tables_and_masks_that_mislead_are_refused(table):
    text, masks = table.read_text(), sorted(table.parent.glob("mask_*"))
    table.write_text(text, "utf-8-sig")  # as spreadsheets write it
    assert len(PhotoDataset(table, "train", 16)) == 11
    with pytest.raises(ValueError, match="split must be train or validation, not 'test'"):
        PhotoDataset(table, "test", 16)
    table.write_text(text.replace(" mask_", ",mask_"))
    with pytest.raises(ValueError, match="has too many commas: separate masks by spaces"):
        PhotoDataset(table, "train", 16)
    with pytest.raises(ValueError, match="the table cannot be read"):
        PhotoDataset(masks[0], "train", 16)
    table.write_text(text)
    for path in masks:
        Image.open(path).rotate(90, expand=True).save(path)
    with pytest.raises(ValueError, match=r"mask .* is 50x60, its photo 60x50"):
        PhotoDataset(table, "train", 16)
    for path in masks:
        Image.new("L", (60, 50), 1).save(path)
    with pytest.raises(ValueError, match="holds only the values 0 and 1"):
        PhotoDataset(table, "train", 16)
