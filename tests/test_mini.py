import json

import numpy as np
import pandas as pd
from PIL import Image

from hdnet_lib.composites.mini import MANIFEST, PHOTOS
from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.composites.plausibility import LIMITS
from hdnet_lib.composites.recipes import RECIPES
from hdnet_lib.data import list_triplets
from hdnet_lib.data.iharmony4 import MINI
from hdnet_lib.data.samples import ratio_bin


def test_mini_is_the_one_of_the_manifest(mini):
    """Deterministic: a second build has the same bytes, and the pixels that the repository records."""
    assert (mini / "manifest.csv").read_text() == MANIFEST.read_text()
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
        assert {t.subset for t in split} == {"Transfer", "Change"}


def test_the_table_of_the_composites_tells_the_truth(mini):
    table = pd.read_csv(mini / "composites.csv")
    assert set(table.recipe) == set(RECIPES)
    lines = {split: {t.line for t in list_triplets(mini, split)} for split in ("train", "test")}
    assert {split: set(rows.composite) for split, rows in table.groupby("split")} == lines
    for name, (low, high) in LIMITS._asdict().items():
        assert table[name].between(low, high).all()
    triplets = {t.line: t for t in list_triplets(mini, "train")}
    for _, row in table[table.split == "train"][::20].iterrows():
        assert abs(triplets[row.composite].read().ratio - row.ratio) < 1e-3


def test_mini_composites_differ_from_the_real_photo_on_the_foreground_only(mini):
    for triplet in list_triplets(mini, "train")[::7]:
        composite, mask, real = triplet.read()[:3]
        assert np.array_equal(composite[~mask], real[~mask])
        assert (composite[mask] != real[mask]).any(axis=-1).mean() > 0.5


def test_the_pool_of_mini_holds_no_test_photo(mini):
    table = (mini / "pool.csv").read_text()
    tested = {t.photo for t in list_triplets(mini, "test")}
    assert tested
    assert not any(photo in table for photo in tested)
    assert (
        len(PhotoDataset(mini / "pool.csv", "train", 32)) + len(PhotoDataset(mini / "pool.csv", "validation", 32)) >= 15
    )


def test_every_outline_lies_in_its_photo():
    outlines = json.loads(MANIFEST.with_name("foregrounds.json").read_text())
    photos = {name: path for split in PHOTOS.values() for name, path in split.items()}
    assert outlines.keys() == photos.keys()
    for name, path in photos.items():
        width, height = Image.open(path).size
        for outline in outlines[name].values():
            assert all(0 <= x <= width and 0 <= y <= height for x, y in outline)
