"""A folder comes out as its photos would one by one, whatever is wrong with some of them."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from hdnet_lib import cli, harmonize, load_pretrained
from hdnet_lib.data.images import ImageError, Photo
from hdnet_lib.inference.folders import MANIFEST, digest_of, harmonize_folder
from hdnet_lib.inference.load import Autocast
from hdnet_lib.inference.onnx import OnnxModel, export_onnx


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


def results(folder):
    """Names of the results; the list of what they were made from lies beside them."""
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)


def run(inputs, *options):
    return cli.main(["harmonize", str(inputs / "photos"), str(inputs / "masks"), "-o", str(inputs / "out"), *options])


def test_a_folder_comes_out_as_its_photos_one_by_one(inputs, capsys):
    assert run(inputs) == 0
    assert results(inputs / "out") == ["a.png", "b_1_2.png", "c.png"]
    for name, mask in (("a", "a"), ("b_1_2", "b_1"), ("c", "c")):
        photo, mask = inputs / "photos" / f"{name}.png", inputs / "masks" / f"{mask}.png"
        expected = harmonize(load_pretrained("hdnet-lite-loose"), photo, mask)
        assert np.array_equal(Image.open(inputs / "out" / f"{name}.png"), np.asarray(expected))
    assert "3 results in" in capsys.readouterr().err


def test_bad_files_are_left_out_and_named(inputs, capsys):
    (inputs / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    Image.new("L", (30, 30)).save(inputs / "masks" / "broken.png")
    Image.new("RGB", (30, 30)).save(inputs / "photos" / "lonely.png")
    Image.new("L", (60, 40)).save(inputs / "masks" / "a.png")  # marks nothing
    (inputs / "photos" / "notes.txt").write_text("no image")
    assert run(inputs) == 2
    assert results(inputs / "out") == ["b_1_2.png", "c.png"]
    error = capsys.readouterr().err
    for sentence in ("lonely.png: ", "holds no mask named lonely", "a.png: mask is empty", "4 were left out"):
        assert sentence in error
    assert "broken.jpg is not an image" in error
    assert "notes.txt ends with .txt" in error


def test_a_stopped_run_goes_on(inputs, monkeypatch, capsys):
    save = Photo.save

    def stop(photo, path):
        if path.stem != "a":
            raise KeyboardInterrupt
        save(photo, path)

    with monkeypatch.context() as patch:
        patch.setattr(Photo, "save", stop)
        assert run(inputs) == 130
    finished = {path: path.stat().st_mtime_ns for path in (inputs / "out").glob("*.png")}
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
    assert results(inputs / "new" / "out") == [f"frame{n}.jpg" for n in range(3)]


def test_a_result_that_cannot_be_written_is_named(inputs, monkeypatch, capsys):
    def full(photo, path):
        raise ImageError(f"output {path} cannot be written: no space left on device.")

    monkeypatch.setattr(Photo, "save", full)
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


@pytest.fixture
def one(inputs):
    """A folder with one photo and its mask."""
    for path in [*(inputs / "photos").iterdir(), *(inputs / "masks").iterdir()]:
        if path.stem != "a":
            path.unlink()
    return inputs


def copy_photo(folder, name, file_format="PNG"):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(len(name))
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / name, format=file_format)


def copy_mask(one, name):
    (one / "masks" / name).parent.mkdir(exist_ok=True)
    (one / "masks" / name).write_bytes((one / "masks" / "a.png").read_bytes())


def test_whatever_lies_there_is_done_or_named(one, capsys):
    done = {"b.avif": "AVIF", "c.gif": "GIF", "d.jfif": "JPEG", "e.jp2": "JPEG2000", "g.JPG": "MPO", "h.tga": "TGA"}
    for name, file_format in done.items():
        copy_photo(one / "photos", name, file_format)
        copy_mask(one, f"{Path(name).stem}.png")
    copy_photo(one / "photos" / "day2", "i.png")
    for name in ("j.heic", "k.raf", "l", "m.png", "Thumbs.db", ".DS_Store", "a.xmp"):
        (one / "photos" / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(400))
    assert run(one) == 2
    assert results(one / "out") == ["a.png", "b.png", "c.png", "d.png", "e.png", "g.png", "h.png"]
    error = capsys.readouterr().err
    named = ["day2 is a folder", "j.heic", "k.raf ends with .raf", "l has no ending", "m.png", "a.xmp ends with .xmp"]
    for sentence in [*named, "6 were left out"]:
        assert sentence in error
    assert "Thumbs" not in error
    assert "DS_Store" not in error


def test_folders_within(one):
    copy_photo(one / "photos" / "day2", "i.png")
    copy_mask(one, "day2/i_mask.png")
    assert run(one, "--recursive") == 0
    assert (one / "out" / "day2" / "i.png").is_file()
    assert harmonize_folder(
        load_pretrained(), one / "photos", one / "masks" / "a.png", one / "single", recursive=True
    ) == 0  # fmt: skip
    assert (one / "single" / "day2" / "i.png").is_file()


@pytest.mark.parametrize(
    ("photo", "mask"),
    [
        ("IMG_7.JPG", "img_7.png"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("STRA\u00dfE.png", "strasse.png"),
        ("cat.png", "cat_mask.png"),
        ("cat.png", "Cat_1_2.PNG"),
        ("b_1_2.png", "b_1.png"),
    ],
)
def test_names_of_masks(one, photo, mask):
    copy_photo(one / "photos", photo)
    copy_mask(one, mask)
    assert run(one) == 0
    assert len(results(one / "out")) == 2


@pytest.mark.parametrize("second", ["A.webp", "a_mask.png", "a.tif"])
def test_two_masks_for_one_photo_are_refused(one, second, capsys):
    copy_mask(one, second)
    assert run(one) == 2
    assert results(one / "out") == []
    assert f"has two masks, {', '.join(sorted(['a.png', second])).replace(', ', ' and ')}" in capsys.readouterr().err


def test_a_mask_goes_to_the_photo_with_the_longest_name(one):
    copy_photo(one / "photos", "a_1.png")
    Image.fromarray(255 - np.asarray(Image.open(one / "masks" / "a.png"))).save(one / "masks" / "a_1.png")
    assert run(one) == 0
    expected = harmonize(load_pretrained("hdnet-lite-loose"), one / "photos" / "a_1.png", one / "masks" / "a_1.png")
    assert np.array_equal(Image.open(one / "out" / "a_1.png"), np.asarray(expected))


def change_photo(one):
    copy_photo(one / "photos", "a.png")


def change_mask(one):
    Image.fromarray(np.roll(np.asarray(Image.open(one / "masks" / "a.png")), 3)).save(one / "masks" / "a.png")


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (change_photo, []),
        (change_mask, []),
        (None, ["--model", "hdnet-lite"]),
        (None, ["--precision", "bf16"]),
        (None, ["--working-size", "32"]),
        (None, ["--mask-threshold", "200"]),
        (lambda one: (one / "out" / "a.png").unlink(), []),
    ],
)
def test_a_rerun_notices_what_changed(one, change, options, capsys):
    assert run(one) == 0
    before = (one / "out" / "a.png").stat().st_mtime_ns
    assert run(one) == 0
    assert (one / "out" / "a.png").stat().st_mtime_ns == before
    assert "1 of them from before" in capsys.readouterr().err
    if change:
        change(one)
    assert run(one, *options) == 0
    assert (one / "out" / "a.png").stat().st_mtime_ns != before
    assert "0 of them from before" in capsys.readouterr().err


def test_a_file_of_others_is_left_alone(one, capsys):
    (one / "out").mkdir()
    (one / "out" / "a.png").write_bytes(b"precious")
    assert run(one) == 2
    assert (one / "out" / "a.png").read_bytes() == b"precious"
    assert "delete it to have it made" in capsys.readouterr().err


def test_half_a_line_of_the_list_does_not_matter(one):
    assert run(one) == 0
    with (one / "out" / MANIFEST).open("a") as file:
        file.write('\n{"result": "a.p')
    assert run(one) == 0


def test_transparent_photos_as_jpeg_are_left_out_before_the_work(one, monkeypatch, capsys):
    Image.new("RGBA", (60, 40), (9, 9, 9, 99)).save(one / "photos" / "a.png")
    monkeypatch.setattr("hdnet_lib.inference.folders.predict", None)
    assert run(one, "--suffix", ".jpg") == 2
    assert "transparent pixels" in capsys.readouterr().err


def test_an_edited_result_is_left_alone(one, capsys):
    assert run(one) == 0
    Image.new("RGB", (60, 40)).save(one / "out" / "a.png")
    edited = (one / "out" / "a.png").read_bytes()
    for options in ([], ["--model", "hdnet-lite"]):
        assert run(one, *options) == 2
        assert (one / "out" / "a.png").read_bytes() == edited
        assert "was changed since" in capsys.readouterr().err


def test_a_file_that_comes_where_a_photo_was_left_out_stays(one):
    copy_photo(one / "photos", "lonely.png")
    assert run(one) == 2
    (one / "out" / "lonely.png").write_bytes(b"precious")
    copy_mask(one, "lonely.png")
    assert run(one) == 2
    assert (one / "out" / "lonely.png").read_bytes() == b"precious"


@pytest.mark.parametrize("options", [[], ["--recursive"]])
def test_results_within_the_photos_are_no_photos(one, options):
    command = ["harmonize", str(one / "photos"), str(one / "masks"), "-o", str(one / "photos" / "out"), *options]
    for _ in range(3):
        assert cli.main(command) == 0
    assert results(one / "photos" / "out") == ["a.png"]


def test_links_in_a_circle_end(one):
    (one / "photos" / "loop").symlink_to(one / "photos")
    assert run(one, "--recursive") == 2
    assert results(one / "out") == ["a.png"]


def test_a_photo_that_breaks_the_writer_does_not_stop_the_others(one, monkeypatch, capsys):
    copy_photo(one / "photos", "b.png")
    copy_mask(one, "b.png")
    save = Photo.save

    def odd(photo, path):
        if path.stem == "a":
            raise AttributeError("an error of another type")
        save(photo, path)

    monkeypatch.setattr(Photo, "save", odd)
    assert run(one) == 2
    assert results(one / "out") == ["b.png"]
    assert "a.png: an error of another type" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{}\n[]\n"])
def test_a_damaged_list_does_not_stop_the_run(one, content):
    (one / "out").mkdir()
    (one / "out" / MANIFEST).write_bytes(content)
    assert run(one) == 0
    assert run(one) == 0


def test_every_change_of_a_model_is_noticed(nano, tmp_path):
    """Weights, precision, and ONNX, whose weights lie in its file."""
    other = copy.deepcopy(nano)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    export_onnx(nano, tmp_path / "one.onnx")
    graph = onnx.load(tmp_path / "one.onnx")
    weight = next(each for each in graph.graph.initializer if each.dims and each.raw_data)
    weight.raw_data = weight.raw_data[1:] + weight.raw_data[:1]
    onnx.save(graph, tmp_path / "two.onnx")
    models = [nano, other, Autocast(nano), copy.deepcopy(nano).bfloat16()]
    models += [OnnxModel(tmp_path / f"{name}.onnx") for name in ("one", "two")]
    assert len({digest_of(model) for model in models}) == len(models)
    assert digest_of(copy.deepcopy(nano)) == digest_of(nano)
