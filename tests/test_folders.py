"""A folder comes out as its photos would one by one, whatever is wrong with some of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdnet_lib import cli, harmonize, load_pretrained
from hdnet_lib.data.images import ImageError, save_image
from hdnet_lib.inference import folders
from hdnet_lib.inference.folders import harmonize_folder


@pytest.fixture
def inputs(tmp_path):
    """Three photos of different sizes, named in the two ways, in photos/ and masks/."""
    rng = np.random.default_rng(0)
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for name, mask_name, (height, width) in (("a", "a", (40, 60)), ("b_1_2", "b_1", (64, 64)), ("c", "c", (90, 50))):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
        mask = np.zeros((height, width), np.uint8)
        mask[10:30, 10:40] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{mask_name}.png")
    return tmp_path


def run(inputs, *options):
    return cli.main(["harmonize", str(inputs / "photos"), str(inputs / "masks"), "-o", str(inputs / "out"), *options])


def test_a_folder_comes_out_as_its_photos_one_by_one(inputs, capsys):
    assert run(inputs) == 0
    assert sorted(path.name for path in (inputs / "out").iterdir()) == ["a.png", "b_1_2.png", "c.png"]
    for name, mask in (("a", "a"), ("b_1_2", "b_1"), ("c", "c")):
        photo, mask = inputs / "photos" / f"{name}.png", inputs / "masks" / f"{mask}.png"
        expected = harmonize(load_pretrained("hdnet-lite-loose"), photo, mask)
        assert np.array_equal(Image.open(inputs / "out" / f"{name}.png"), expected)
    assert "3 results in" in capsys.readouterr().err


def test_bad_files_are_left_out_and_named(inputs, capsys):
    (inputs / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    Image.new("L", (30, 30)).save(inputs / "masks" / "broken.png")
    Image.new("RGB", (30, 30)).save(inputs / "photos" / "lonely.png")
    Image.new("L", (60, 40)).save(inputs / "masks" / "a.png")  # marks nothing
    (inputs / "photos" / "notes.txt").write_text("no image")
    assert run(inputs) == 2
    assert sorted(path.name for path in (inputs / "out").iterdir()) == ["b_1_2.png", "c.png"]
    error = capsys.readouterr().err
    for sentence in ("lonely.png: ", "holds no mask named lonely", "a.png: mask is empty", "3 photos were left out"):
        assert sentence in error
    assert "broken.jpg is not an image" in error
    assert "notes.txt" not in error


def test_a_stopped_run_goes_on(inputs, monkeypatch, capsys):
    def stop(image, path):
        if path.stem != "a":
            raise KeyboardInterrupt
        save_image(image, path)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "save_image", stop)
        assert run(inputs) == 130
    finished = {path: path.stat().st_mtime_ns for path in (inputs / "out").iterdir()}
    assert [path.name for path in finished] == ["a.png"]
    assert run(inputs) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert "3 results in" in (error := capsys.readouterr().err)
    assert "1 of them from before" in error


def test_one_mask_serves_all_frames(inputs):
    for path in (inputs / "photos").iterdir():
        path.unlink()
    for number in range(3):
        Image.new("RGB", (60, 40), (40 * number, 90, 30)).save(inputs / "photos" / f"frame{number}.jpg")
    assert harmonize_folder(
        load_pretrained(), inputs / "photos", inputs / "masks" / "a.png", inputs / "new" / "out", suffix=".jpg"
    ) == 0  # fmt: skip
    assert sorted(path.name for path in (inputs / "new" / "out").iterdir()) == [f"frame{n}.jpg" for n in range(3)]


def test_a_result_that_cannot_be_written_is_named(inputs, monkeypatch, capsys):
    def full(image, path):
        raise ImageError(f"output {path} cannot be written: no space left on device.")

    monkeypatch.setattr(folders, "save_image", full)
    assert run(inputs) == 2
    assert capsys.readouterr().err.count("no space left on device") == 3


@pytest.mark.parametrize(
    ("photos", "masks", "output", "sentence"),
    [
        ("masks", "nowhere", "out", "there is no such folder or file"),
        ("empty", "masks", "out", "there is no photo"),
        ("photos", "masks", "photos", "is a folder of inputs"),
        ("photos", "masks", "masks", "is a folder of inputs"),
    ],
)
def test_bad_folders_are_refused(inputs, photos, masks, output, sentence, capsys):
    (inputs / "empty").mkdir()
    before = sorted(Path(inputs).rglob("*"))
    assert cli.main(["harmonize", *(str(inputs / name) for name in (photos, masks)), "-o", str(inputs / output)]) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(Path(inputs).rglob("*")) == before


def test_photos_that_would_share_a_result_are_refused(inputs):
    Image.new("RGB", (60, 40)).save(inputs / "photos" / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png share a name"):
        harmonize_folder(load_pretrained(), inputs / "photos", inputs / "masks", inputs / "out")
