from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdnet_lib.data import list_triplets
from hdnet_lib.data.iharmony4 import file_finder, group_by_photo


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
    (tmp_path / name).write_text(f"{prefix}a-b_1_2.jpg\n{prefix}c_d_2_1.jpg\r\n\n", "utf-8-sig")
    first, second = list_triplets(tmp_path, "test")
    assert (first.name, first.photo, first.mask.name) == ("HCOCO/a-b_1_2", "a-b", "a-b_1.png")
    assert (second.photo, second.real.name) == ("c_d", "c_d.jpg")
    images = first.read(16)
    assert images.composite.shape == images.real.shape == (16, 16, 3)
    assert images.mask.dtype == bool
    assert abs(images.ratio - 0.5) < 0.1  # soft masks are cut at one half, not dithered
    assert images.ratio == images.mask.mean()


def test_every_subset_list_is_read(tmp_path):
    for subset in ("HFlickr", "HCOCO"):
        make_root(tmp_path, subset=subset)
        (tmp_path / subset / f"{subset}_test.txt").write_text("a-b_1_1.jpg\n")
    assert [t.name for t in list_triplets(tmp_path)] == ["HCOCO/a-b_1_1", "HFlickr/a-b_1_1"]


def test_suffixes_may_differ(tmp_path):
    make_root(tmp_path, suffix=".png")
    (tmp_path / "test.txt").write_text("HCOCO/composite_images/a-b_1_1.png\n")
    assert list_triplets(tmp_path)[0].real.name == "a-b.jpg"


def test_background_is_an_explicit_choice(tmp_path):
    make_root(tmp_path)
    (tmp_path / "test.txt").write_text("HCOCO/composite_images/a-b_1_1.jpg\n")
    triplet = list_triplets(tmp_path)[0]
    given, pasted = triplet.read(), triplet.read(background="real")
    assert np.array_equal(pasted.composite[pasted.mask], given.composite[given.mask])
    assert np.array_equal(pasted.composite[~pasted.mask], given.real[~given.mask])
    assert not np.array_equal(given.composite, pasted.composite)
    with pytest.raises(ValueError, match="background must be composite or real, not 'white'"):
        triplet.read(background="white")


def test_partial_copies_are_used_on_request_only(tmp_path):
    make_root(tmp_path)
    names = ("a-b_1_1", "a-b_1_2", "c_d_2_1", "gone_1_1")
    (tmp_path / "IHD_test.txt").write_text("".join(f"HCOCO/composite_images/{name}.jpg\n" for name in names))
    (tmp_path / "HCOCO" / "masks" / "c_d_2.png").unlink()
    with pytest.raises(ValueError, match=r"2 of 4 composites .* the first HCOCO/masks/c_d_2.png: .*partial=True"):
        list_triplets(tmp_path)
    assert [t.stem for t in list_triplets(tmp_path, partial=True)] == ["a-b_1_1", "a-b_1_2"]
    for path in (tmp_path / "HCOCO" / "composite_images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"none of the 4 composites .* the first that is missing is "):
        list_triplets(tmp_path, partial=True)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (".", "Give the folder that holds the subsets."),  # three levels deep is too deep to guess
        ("nested", "Give {}/nested/set instead."),
        ("nested/set", "make_lists.py makes new ones."),
        ("nested/set/HCOCO", "give the folder above it, {}/nested/set."),
        ("nested/set/HCOCO/masks", "Give the folder that holds the subsets."),
    ],
)
def test_a_wrong_folder_shows_expected_and_found_trees(tmp_path, given, advice):
    make_root(tmp_path / "nested" / "set")
    with pytest.raises(ValueError, match="no list for the test split") as caught:
        list_triplets(tmp_path / given)
    first, header, *rows = str(caught.value).split("\n")
    assert first.endswith(advice.format(tmp_path))
    assert header.split() == ["expected", "found"]
    assert rows[0].split()[0] == "IHD_test.txt"
    assert any("HCOCO/masks/" in row for row in rows)


def test_another_list_is_named(tmp_path):
    make_root(tmp_path)
    (tmp_path / "IHD_train.txt").write_text("HCOCO/composite_images/a-b_1_1.jpg")
    with pytest.raises(ValueError, match=r"It has IHD_train.txt; if a list is lost"):
        list_triplets(tmp_path, "test")


def test_reader_refuses_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        list_triplets(tmp_path / "none")
    make_root(tmp_path)
    listing = tmp_path / "IHD_test.txt"
    listing.write_text("\n")
    with pytest.raises(ValueError, match="the list is empty"):
        list_triplets(tmp_path)
    listing.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="the list cannot be read"):
        list_triplets(tmp_path)
    for line in (
        "zebra.jpg",
        "HCOCO/composite_images/zebra_1.jpg",
        "HCOCO/composite_images/a_b_c",
        "HCOCO/masks/a_1_1.jpg",
    ):
        listing.write_text(line)
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


def test_files_are_found_as_by_asking_for_each(tmp_path):
    make_root(tmp_path)
    has_file = file_finder()
    paths = [*tmp_path.rglob("*"), tmp_path / "none" / "x.jpg", tmp_path / "HCOCO" / "masks" / "none.png"]
    assert [has_file(path) for path in paths] == [path.is_file() for path in paths]


def test_groups_hold_every_composite_once(tmp_path):
    make_root(tmp_path)
    names = ("a-b_1_1", "c_d_2_1", "a-b_1_2", "a-b_1_1")
    (tmp_path / "test.txt").write_text("".join(f"HCOCO/composite_images/{name}.jpg\n" for name in names))
    groups = group_by_photo(list_triplets(tmp_path))
    assert [[t.stem for t in group] for group in groups] == [["a-b_1_1", "a-b_1_2"], ["c_d_2_1"]]


def test_mini_without_a_build_gets_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("hdnet_lib.data.iharmony4.MINI", Path(tmp_path / "none"))
    with pytest.raises(ValueError, match="is not built yet"):
        list_triplets("mini")
