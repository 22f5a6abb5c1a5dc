import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.color import rgb2hsv

from hdnet_lib.data import list_triplets
from hdnet_lib.data.iharmony4 import MINI
from hdnet_lib.data.recipes import Photometric, draw_photometric, photometric, reinhard
from hdnet_lib.images import to_pixels, to_tensor
from hdnet_lib.metrics import ratio_bin

spec = importlib.util.spec_from_file_location("make_mini_dataset", REPOSITORY / "data_scripts" / "make_mini_dataset.py")
make_mini_dataset = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_mini_dataset)


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """The mini data set, built anew."""
    out = tmp_path_factory.mktemp("data") / "mini"
    make_mini_dataset.build(out, make_mini_dataset.SEED)
    return out


def test_mini_is_the_one_of_the_manifest(mini):
    """Deterministic: a second build has the same bytes, and the pixels that the repository records."""
    assert (mini / "manifest.csv").read_text() == (REPOSITORY / "data_scripts" / "mini_manifest.csv").read_text()
    if MINI.is_dir():
        for path in mini.rglob("*"):
            assert path.is_dir() or path.read_bytes() == (MINI / path.relative_to(mini)).read_bytes()


def test_mini_is_large_and_varied_enough(mini):
    triplets = {split: list_triplets(mini, split) for split in ("train", "test")}
    both = triplets["train"] + triplets["test"]
    assert len(both) >= 150
    assert len({t.mask.name for t in both}) >= 24
    assert len({t.photo for t in both}) >= 7
    assert {t.photo for t in triplets["train"]}.isdisjoint(t.photo for t in triplets["test"])
    for split in triplets.values():
        ratios = {t.mask: (np.asarray(Image.open(t.mask)) > 0).mean() for t in split}
        assert {ratio_bin(ratio) for ratio in ratios.values()} == {"0-5 %", "5-15 %", "15-100 %"}
        assert {t.subset for t in split} == {"MiniTransfer", "MiniPhotometric"}


def test_mini_composites_differ_from_the_real_photo_on_the_foreground_only(mini):
    for triplet in list_triplets(mini, "train")[::7]:
        composite, mask, real = triplet.read()
        assert np.array_equal(composite[~mask], real[~mask])
        change = np.sqrt(((composite[mask].astype(float) - real[mask]) ** 2).mean())
        assert 7 < change < 51


def test_every_outline_lies_in_its_photo():
    outlines = json.loads((REPOSITORY / "data_scripts" / "foregrounds.json").read_text())
    photos = {name: path for split in make_mini_dataset.PHOTOS.values() for name, path in split.items()}
    assert outlines.keys() == photos.keys()
    for name, path in photos.items():
        width, height = Image.open(path).size
        for outline in outlines[name].values():
            assert all(0 <= x <= width and 0 <= y <= height for x, y in outline)


def make_root(root, suffix=".jpg", subset="HCOCO"):
    for folder in ("composite_images", "masks", "real_images"):
        (root / subset / folder).mkdir(parents=True)
    for name in ("a-b_1_1", "a-b_1_2", "c_d_2_1"):
        photo, mask, _ = name.rsplit("_", 2)
        Image.new("RGB", (40, 30), "red").save(root / subset / "composite_images" / f"{name}{suffix}")
        soft = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))
        Image.fromarray(soft).save(root / subset / "masks" / f"{photo}_{mask}.png")
        Image.new("RGB", (40, 30), "blue").save(root / subset / "real_images" / f"{photo}.jpg")


@pytest.mark.parametrize("name", ["IHD_test.txt", "test.txt", "HCOCO/HCOCO_test.txt"])
def test_reader_finds_lists_under_every_name(tmp_path, name):
    make_root(tmp_path)
    prefix = "" if "/" in name else "HCOCO/composite_images/"
    (tmp_path / name).write_text(f"{prefix}a-b_1_2.jpg\n{prefix}c_d_2_1.jpg\r\n\n")
    first, second = list_triplets(tmp_path, "test")
    assert (first.name, first.photo, first.mask.name) == ("HCOCO/a-b_1_2", "a-b", "a-b_1.png")
    assert (second.photo, second.real.name) == ("c_d", "c_d.jpg")
    composite, mask, real = first.read(16)
    assert composite.shape == real.shape == (16, 16, 3)
    assert mask.dtype == bool
    assert abs(mask.mean() - 0.5) < 0.1  # soft masks are cut at one half, not dithered


def test_reader_refuses_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"no list for the test split.*no such folder"):
        list_triplets(tmp_path / "none")
    make_root(tmp_path)
    with pytest.raises(ValueError, match=r"Expected IHD_test.txt .* found: HCOCO"):
        list_triplets(tmp_path)
    listing = tmp_path / "IHD_test.txt"
    listing.write_text("\n")
    with pytest.raises(ValueError, match="the list is empty"):
        list_triplets(tmp_path)
    listing.write_text("HCOCO/composite_images/zebra_1_1.jpg")
    with pytest.raises(ValueError, match=r"needs HCOCO/composite_images/zebra_1_1.jpg"):
        list_triplets(tmp_path)
    listing.write_text("zebra.jpg")
    with pytest.raises(ValueError, match="is not like"):
        list_triplets(tmp_path)
    listing.write_text("HCOCO/composite_images/a-b_1_1.jpg")
    triplet = list_triplets(tmp_path)[0]
    Image.new("RGB", (41, 30)).save(triplet.real)
    with pytest.raises(ValueError, match="differ in size"):
        triplet.read()
    triplet.real.write_bytes(b"")
    with pytest.raises(ValueError, match=r"real photo .* is not an image"):
        triplet.read()


def random_case(seed, batch=2):
    generator = torch.Generator().manual_seed(seed)
    photo, reference = torch.rand(2, batch, 3, 9, 11, generator=generator, dtype=torch.float64) * 0.6 + 0.2
    mask, reference_mask = (torch.rand(2, batch, 1, 9, 11, generator=generator) < 0.4).double()
    mask[..., 0, :2] = reference_mask[..., 0, :2] = 1
    return photo, mask, reference, reference_mask


@given(seed=st.integers(0, 10**6))
def test_recipes_leave_the_background_and_stay_in_range(seed):
    photo, mask, reference, reference_mask = random_case(seed)
    settings = draw_photometric(2, photo, torch.Generator().manual_seed(seed))
    for composite in (reinhard(photo, mask, reference, reference_mask), photometric(photo, mask, settings)):
        background = (mask == 0).expand_as(photo)
        assert torch.equal(composite[background], photo[background])
        assert 0 <= composite.min() <= composite.max() <= 1
        assert not torch.equal(composite, photo)


def test_reinhard_gives_the_statistics_of_the_reference():
    """Recoloured by a darker copy of itself, the foreground becomes that copy."""
    photo, mask, _, _ = random_case(0, batch=1)
    darker = photo * 0.5
    result = reinhard(photo, mask, darker, mask)
    foreground = (mask == 1).expand_as(photo)
    torch.testing.assert_close(result[foreground], darker[foreground], rtol=0, atol=2e-3)


@pytest.mark.parametrize("field", Photometric._fields)
def test_each_photometric_setting_does_what_it_says(field):
    photo, mask, _, _ = random_case(1, batch=1)
    neutral = {name: torch.ones(1, 1, 1, 1, dtype=torch.float64) for name in Photometric._fields}
    torch.testing.assert_close(photometric(photo, mask, Photometric(**neutral)), photo)
    result = photometric(photo, mask, Photometric(**(neutral | {field: neutral[field] * 0.7})))
    inside, before = (image[(mask == 1).expand_as(photo)].view(3, -1) for image in (result, photo))
    expected = {
        "gamma": before**0.7,
        "gain": before * 0.7,
        "channel_gain": before * 0.7,
        "contrast": (before - before.mean(1, keepdim=True)) * 0.7 + before.mean(1, keepdim=True),
    }
    if field in expected:
        torch.testing.assert_close(inside, expected[field])
    else:
        saturation = [rgb2hsv(image.T.numpy())[:, 1].mean() for image in (before, inside)]
        assert saturation[1] < saturation[0]


def test_draws_depend_on_the_seed_alone():
    like = torch.zeros(1)
    one, same, other = (draw_photometric(3, like, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one.gain, other.gain)


def test_pixels_and_tensors_round_trip():
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    assert np.array_equal(to_pixels(to_tensor(pixels)), pixels)
    mask = pixels[..., 0] > 7
    assert torch.equal(to_tensor(mask)[0, 0], torch.from_numpy(mask).float())


def test_mini_without_a_build_gets_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("hdnet_lib.data.iharmony4.MINI", Path(tmp_path / "none"))
    with pytest.raises(ValueError, match="run `make data`"):
        list_triplets("mini")
