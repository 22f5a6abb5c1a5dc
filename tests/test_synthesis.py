import numpy as np
import pandas as pd
import pytest
import synthesize_composites
from PIL import Image

from hdnet_lib.composites.recipes import TRANSFERS
from hdnet_lib.composites.synthesis import match_masks, synthesize
from hdnet_lib.data import list_triplets
from hdnet_lib.data.splits import split_by_photo


@pytest.fixture(scope="module")
def photos(mini, tmp_path_factory):
    """Folders with six photos, as JPEG of different sizes, and nine masks."""
    root = tmp_path_factory.mktemp("photos")
    (root / "photos").mkdir()
    (root / "masks").mkdir()
    for number, triplet in enumerate({t.photo: t for t in list_triplets(mini, "train") + list_triplets(mini)}.values()):
        size = (160 + 10 * number, 120)
        Image.open(triplet.real).resize(size).save(root / "photos" / f"my_photo_{number}.jpg")
        for letter in "ab"[: 1 + number % 2]:
            mask = Image.new("L", size)
            mask.paste(255, (20, 10, 70 + 20 * number, 90) if letter == "a" else (90, 50, 140, 110))
            mask.save(root / "masks" / (f"my_photo_{number}.png" if letter == "a" else f"my_photo_{number}_b.png"))
    return root


def make(photos, out, **options):
    return synthesize(photos / "photos", photos / "masks", out, **({"seed": 1, "workers": 1, "test": 0.3} | options))


def test_a_folder_of_photos_becomes_a_data_set(photos, tmp_path):
    table = make(photos, tmp_path / "out", per_mask=4)
    assert len(table) >= 20
    triplets = {split: list_triplets(tmp_path / "out", split) for split in ("train", "test")}
    assert sum(map(len, triplets.values())) == len(table)
    assert {t.photo for t in triplets["train"]}.isdisjoint(t.photo for t in triplets["test"])
    rows = table.set_index("composite")
    for triplet in triplets["train"] + triplets["test"]:
        composite, mask, real = triplet.read()[:3]
        assert np.array_equal(composite[~mask], real[~mask])
        assert (composite[mask] != real[mask]).any()
        row = rows.loc[triplet.line]
        assert (row.recipe in TRANSFERS) == (triplet.subset == "Transfer") == bool(row.reference)
        assert not row.reference.startswith(f"{triplet.photo}_")
        assert row.reference != triplet.photo
    written = pd.read_csv(tmp_path / "out" / "composites.csv", keep_default_na=False)
    assert written.composite.tolist() == table.composite.tolist()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_the_seed_decides_and_the_number_of_processes_does_not(photos, tmp_path):
    make(photos, tmp_path / "one")
    make(photos, tmp_path / "two", workers=2)
    make(photos, tmp_path / "other", seed=2)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) > 30
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    composites = [path for path in files if path.parent.name == "composite_images"]
    same = [
        (tmp_path / "other" / path).is_file()
        and (tmp_path / "one" / path).read_bytes() == (tmp_path / "other" / path).read_bytes()
        for path in composites
    ]
    assert sum(same) < 0.2 * len(same)


def test_the_chosen_recipes_alone_are_used(photos, tmp_path):
    table = make(photos, tmp_path / "out", recipes=["curves", "illuminant"], per_mask=2)
    assert set(table.recipe) == {"curves", "illuminant"}
    assert not (tmp_path / "out" / "Transfer").exists()
    assert table.groupby(table.composite.str.extract(r"/(\w+)_\d\.png$")[0]).recipe.nunique().max() == 2


def test_masks_find_their_photos(tmp_path):
    for folder, names in {
        "p": ("cat", "cat_dog", "x_1"),
        "m": ("cat", "cat_dog", "cat_dog_2", "cat_tail_3", "x_1_1"),
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.png").touch()
    (tmp_path / "m" / "notes.txt").touch()
    pairs = [(photo.stem, mask.stem) for photo, mask in match_masks(tmp_path / "p", tmp_path / "m")]
    expected = [
        ("cat", "cat"),
        ("cat", "cat_tail_3"),
        ("cat_dog", "cat_dog"),
        ("cat_dog", "cat_dog_2"),
        ("x_1", "x_1_1"),
    ]
    assert pairs == expected


def test_bad_input_gets_one_sentence(photos, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["synthesize_composites.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            synthesize_composites.main()
        assert caught.value.code == 2
        return capsys.readouterr().err.strip().split("\n")[-1]

    good = (photos / "photos", photos / "masks")
    for name in ("empty", "full", "small", "broken", "lost"):
        (tmp_path / name).mkdir()
        mask = Image.new("L", (160, 120), 255 if name == "full" else 0)
        mask.paste(255, (0, 0, 9, 9)) if name == "small" else None
        mask = mask.resize((80, 60)) if name == "small" else mask
        mask.save(tmp_path / name / ("lost.png" if name == "lost" else "my_photo_0.png"))
    broken = tmp_path / "broken" / "my_photo_0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (tmp_path / "nothing").mkdir()
    out = tmp_path / "out"
    cases = {
        "there is no such folder": (tmp_path / "none", good[1], out),
        "marks nothing": (good[0], tmp_path / "empty", out),
        "marks everything": (good[0], tmp_path / "full", out),
        "does not have the size of its photo, 160x120": (good[0], tmp_path / "small", out),
        "is not an image": (good[0], tmp_path / "broken", out),
        "1 masks have no photo, the first lost.png": (good[0], tmp_path / "lost", out),
        "there is no mask": (good[0], tmp_path / "nothing", out),
        "exists already": (*good, tmp_path / "nothing"),
        "the folder": (*good, tmp_path / "none" / "out"),
        "no recipe called 'magic'": (*good, out, "--recipes", "magic"),
        "must be a whole number of at least 1, not '0'": (*good, out, "--per-mask", "0"),
        "must lie in two folders": (good[0], good[0], out),
        "choose a folder outside": (*good, good[0] / "out"),
        "leaves one side": (*good, out, "--test-share", "0"),
    }
    for sentence, arguments in cases.items():
        error = run(*arguments)
        assert sentence in error
        assert error.endswith(".")
    assert not out.exists()


def test_command_line(photos, tmp_path, monkeypatch, capsys):
    arguments = [photos / "photos", photos / "masks", tmp_path / "out", "--per-mask", "1", "--test-share", "0.3"]
    monkeypatch.setattr("sys.argv", ["synthesize_composites.py", *map(str, arguments)])
    assert synthesize_composites.main() == 0
    assert "places empty" in capsys.readouterr().out


# --- splits


def random_composites(seed=0, photos=200):
    rng = np.random.default_rng(seed)
    names = np.repeat([f"p{n}" for n in range(photos)], rng.integers(1, 8, photos))
    kinds = rng.choice(["A 0-5 %", "A 5-15 %", "B 0-5 %"], photos, p=[0.6, 0.3, 0.1])
    return names.tolist(), [kinds[int(name[1:])] for name in names]


def test_split_keeps_photos_together_and_strata_balanced():
    names, strata = random_composites()
    testing = split_by_photo(names, strata, 0.2, seed=5)
    table = pd.DataFrame({"photo": names, "stratum": strata, "test": testing})
    assert (table.groupby("photo").test.nunique() == 1).all()
    assert table.test.mean() == pytest.approx(0.2, abs=0.01)
    np.testing.assert_allclose(table.groupby("stratum").test.mean(), 0.2, atol=0.06)


def test_split_depends_on_the_seed_and_not_on_the_order():
    names, strata = random_composites()
    one = split_by_photo(names, strata, 0.2, seed=5)
    order = np.random.default_rng(1).permutation(len(names))
    other = split_by_photo([names[i] for i in order], [strata[i] for i in order], 0.2, seed=5)
    assert np.array_equal(one[order], other)
    assert not np.array_equal(one, split_by_photo(names, strata, 0.2, seed=6))


def test_small_strata_add_up():
    """Twenty strata of one photo each still give a fifth."""
    names = [f"p{n}" for n in range(20)]
    assert split_by_photo(names, names, 0.2, seed=0).sum() == 4


def test_split_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="needs two photos"):
        split_by_photo(["a", "a"], ["x", "x"], 0.5, 0)
    with pytest.raises(ValueError, match="leaves one side"):
        split_by_photo(["a", "b"], ["x", "x"], 0.01, 0)
