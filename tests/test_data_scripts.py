"""check_dataset, prepare_iharmony4 and make_lists, on copies of the mini set at 64 pixels."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from functools import partial
from pathlib import Path

import check_dataset
import imagecodecs
import make_lists
import numpy as np
import pandas as pd
import prepare_iharmony4
import psutil
import pytest
from conftest import REPOSITORY
from PIL import Image, ImageFilter
from tqdm import tqdm

from hdnet_lib.cli import main
from hdnet_lib.data import list_triplets
from hdnet_lib.data.images import ImageError
from hdnet_lib.data.profiles import adobe_rgb


@pytest.fixture
def copy(small, tmp_path):
    return Path(shutil.copytree(small, tmp_path / "copy"))


def found(root):
    problems, _ = check_dataset.check(root, workers=1)
    return {(problem.problem, problem.file) for problem in problems}


# --- check


def edit(change, mode="RGB"):
    """Damage that changes an image's pixels."""

    def damage(path):
        image = change(Image.open(path).convert(mode))
        image.save(path)

    return damage


def brighten_a_corner(image):
    pixels = np.array(image).astype(int)
    pixels[:12, -12:] += np.where(pixels[:12, -12:] > 127, -60, 60)
    return Image.fromarray(pixels.astype(np.uint8))


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


COMPOSITE = "Change/composite_images/china_1_1.png"
MASK, REAL = "Change/masks/china_1.png", "Change/real_images/china.png"
DAMAGES = {
    "composite gone": (COMPOSITE, Path.unlink, "missing file"),
    "mask gone": (MASK, Path.unlink, "missing file"),
    "real photo gone": (REAL, Path.unlink, "missing file"),
    "composite no image": (COMPOSITE, lambda path: path.write_text("404 not found"), "unreadable file"),
    "mask empty file": (MASK, lambda path: path.write_bytes(b""), "unreadable file"),
    "real photo cut off": (REAL, truncate, "unreadable file"),
    "composite cut off": (COMPOSITE, truncate, "unreadable file"),
    "mask cut off": (MASK, truncate, "unreadable file"),
    "composite of another size": (COMPOSITE, edit(lambda image: image.resize((60, 64))), "size differs"),
    "mask of another size": (MASK, edit(lambda image: image.resize((128, 128)), "L"), "size differs"),
    "mask black": (MASK, edit(lambda image: image.point(lambda _: 0), "L"), "empty mask"),
    "mask white": (MASK, edit(lambda image: image.point(lambda _: 255), "L"), "full mask"),
    "mask of 0 and 1": (MASK, edit(lambda image: image.point(lambda value: value > 0), "L"), "empty mask"),
    "mask blurred": (MASK, edit(lambda image: image.filter(ImageFilter.GaussianBlur(2)), "L"), "soft mask"),
    "mask inverted": (MASK, edit(lambda image: image.point(lambda value: 255 - value), "L"), "inverted mask"),
    "background of another photo": (COMPOSITE, edit(lambda image: image.rotate(180)), "background differs"),
    "background changed in a corner": (COMPOSITE, edit(brighten_a_corner), "background differs"),
    "composite is the real photo": (
        COMPOSITE,
        lambda path: shutil.copy(path.parents[1] / "real_images" / "china.png", path),
        "unchanged foreground",
    ),
}


@pytest.mark.slow
def test_a_sound_copy_has_no_problems(mini, small):
    assert found(small) == found(mini) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_and_no_other(copy, name):
    file, damage, problem = DAMAGES[name]
    assert (copy / file).is_file()
    damage(copy / file)
    assert found(copy) == {(problem, file)}


def test_damaged_lists_are_found(copy):
    train, test = (copy / f"IHD_{split}.txt" for split in ("train", "test"))
    trained, tested = train.read_text().split(), test.read_text().split()
    leaked = next(line for line in trained if "/flower_" in line)
    test.write_text("\n".join([*tested[1:], tested[1], "flower.png", leaked]))
    assert found(copy) == {
        ("not in a list", tested[0]),
        ("duplicate line", tested[1]),
        ("malformed line", "flower.png"),
        ("in both lists", leaked),
        ("leak", f"{leaked.split('/')[0]}/real_images/flower.png"),
    }


def test_counts_are_compared_with_the_published_ones(copy):
    (copy / "Change").rename(copy / "HCOCO")
    for split in ("train", "test"):
        path = copy / f"IHD_{split}.txt"
        path.write_text(path.read_text().replace("Change/", "HCOCO/"))
    subsets = {"HCOCO", "HAdobe5k", "HFlickr", "Hday2night"}
    assert found(copy) == {("count differs", subset) for subset in subsets}
    _, counts = check_dataset.check(copy, workers=1)
    row = counts[(counts.subset == "HCOCO") & (counts.list == "test")].iloc[0]
    assert row.published == 4283
    assert row.listed == row.complete == sum("HCOCO" in line for line in path.read_text().split())


def test_all_damages_at_once(copy, tmp_path, monkeypatch, capsys):
    """Through the command line: table, CSV file and exit status."""
    composites = sorted(path.relative_to(copy).as_posix() for path in copy.glob("Transfer/composite_images/coffee*"))
    expected = set()
    names = [name for name, case in DAMAGES.items() if case[0] == COMPOSITE and "real" not in name]
    for file, name in zip(composites, names, strict=False):
        _, damage, problem = DAMAGES[name]
        damage(copy / file)
        expected.add((problem, file))
    assert len(expected) >= 5
    monkeypatch.setattr("sys.argv", ["check_dataset.py", str(copy), "--csv", str(tmp_path / "p.csv")])
    assert check_dataset.main() == 1
    table = pd.read_csv(tmp_path / "p.csv")
    assert set(zip(table.problem, table.file, strict=True)) == expected
    assert set(table.severity) == {"error"}
    output = capsys.readouterr().out
    assert f"{len(expected)} errors, 0 warnings" in output
    assert all(problem in output for problem, _ in expected)


def test_leaks_are_a_warning(copy, tmp_path, monkeypatch, capsys):
    train, test = (copy / f"IHD_{split}.txt" for split in ("train", "test"))
    lines = train.read_text().split()
    moved = [line for line in lines if "/rocket_" in line][:3]
    train.write_text("\n".join(line for line in lines if line not in moved))
    test.write_text("\n".join([*test.read_text().split(), *moved]))
    monkeypatch.setattr("sys.argv", ["check_dataset.py", str(copy), "--csv", str(tmp_path / "p.csv")])
    assert check_dataset.main() == 0
    total = len(test.read_text().split())
    assert f"The lists leak: 3 of {total} test composites share" in capsys.readouterr().out


def test_check_changes_nothing(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    found(copy)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


@pytest.mark.parametrize("script", ["check_dataset", "prepare_iharmony4", "make_lists"])
def test_a_wrong_folder_gets_a_sentence(script, tmp_path, monkeypatch, capsys):
    for root, sentence in ((tmp_path / "none", "there is no such folder."), (tmp_path, "no ")):
        out = [str(tmp_path / "out")] if script == "prepare_iharmony4" else []
        monkeypatch.setattr("sys.argv", [script, str(root), *out])
        with pytest.raises(SystemExit) as caught:
            sys.modules[script].main()
        assert caught.value.code == 2
        assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- prepare


def prepare(root, out, size=32, keep_aspect=False, incomplete=False, workers=1):
    return prepare_iharmony4.prepare(root, out, size, keep_aspect, incomplete, workers)


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_copy_holds_what_reading_at_that_size_gives(mini, small):
    for split in ("train", "test"):
        originals, copies = list_triplets(mini, split), list_triplets(small, split)
        assert [t.name for t in originals] == [t.name for t in copies]
        for original, copied in zip(originals[::9], copies[::9], strict=True):
            for one, other in zip(original.read(64)[:3], copied.read()[:3], strict=True):
                assert np.array_equal(one, other)
            assert set(np.unique(Image.open(copied.mask))) <= {0, 255}


@pytest.mark.slow
def test_keep_aspect_shrinks_the_longer_side_and_never_enlarges(mini, tmp_path):
    prepare(mini, tmp_path / "out", 256, keep_aspect=True, workers=2)
    for original, copied in zip(list_triplets(mini)[::20], list_triplets(tmp_path / "out")[::20], strict=True):
        (width, height), size = Image.open(original.real).size, Image.open(copied.composite).size
        assert max(size) == 256
        assert size[0] / size[1] == pytest.approx(width / height, rel=0.01)
    prepare(tmp_path / "out", tmp_path / "same", 4000, keep_aspect=True, workers=2)
    one, other = (list_triplets(tmp_path / name)[0].read() for name in ("out", "same"))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_nothing_is_written_into_the_root(copy, tmp_path):
    before = contents(copy)
    for out in (copy, copy / "Change" / "out", copy.parent):
        with pytest.raises(ValueError, match="choose a folder that neither lies in"):
            prepare(copy, out)
    prepare(copy, tmp_path / "out")
    assert contents(copy) == before


def test_foreign_folders_and_other_settings_are_refused(small, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="is not empty and not a prepared copy"):
        prepare(small, tmp_path / "mine")
    prepare(small, tmp_path / "out")
    with pytest.raises(ValueError, match="was prepared from other settings"):
        prepare(small, tmp_path / "out", size=48)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        prepare(small, tmp_path / "file")


def test_damaged_files_stop_the_lists_unless_partial(copy, tmp_path):
    truncate(copy / COMPOSITE)
    truncate(copy / "Transfer" / "masks" / "coffee_1.png")
    with pytest.raises(ValueError, match=r"\d+ composites could not be prepared"):
        prepare(copy, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.txt"))
    prepare(copy, tmp_path / "out", incomplete=True)
    whole = {t.name for t in list_triplets(copy)}
    lost = {name for name in whole if name == "Change/china_1_1" or name.startswith("Transfer/coffee_1_")}
    assert lost
    assert {t.name for t in list_triplets(tmp_path / "out")} == whole - lost


def test_missing_files_stop_the_run_unless_partial(copy, tmp_path):
    (copy / COMPOSITE).unlink()
    with pytest.raises(ValueError, match=r"1 of \d+ composites of the test list miss a file"):
        prepare(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepare(copy, tmp_path / "out", incomplete=True)
    assert len(list_triplets(tmp_path / "out")) == len(list_triplets(copy, partial=True))


@pytest.mark.slow
def test_killed_at_twenty_moments_it_loses_nothing(small, tmp_path):
    """No file has its final name before it is whole, and the last run completes the copy."""
    prepare(small, tmp_path / "whole", size=128)
    whole = contents(tmp_path / "whole")
    out, rng, kills, sizes = tmp_path / "out", random.Random(0), 0, set()
    while kills < 20:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.close(2)
            tqdm.set_lock(threading.RLock())  # a child that is killed with this process's lock would keep it for ever
            try:
                prepare(small, out, size=128, workers=1)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.05, 0.35))
        finished, _ = os.waitpid(child, os.WNOHANG)
        if finished:
            shutil.rmtree(out)
            continue
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        left = contents(out) if out.exists() else {}
        named = {path: data for path, data in left.items() if path.suffix != ".part"}
        assert all(whole[path] == data for path, data in named.items())
        sizes.add(len(named))
    assert len(sizes) > 5  # the moments were different ones
    prepare(small, out, size=128)
    assert contents(out) == whole


@pytest.mark.slow
def test_killed_with_its_workers_it_loses_nothing(small, tmp_path):
    prepare(small, tmp_path / "whole", size=128)
    whole, out = contents(tmp_path / "whole"), tmp_path / "out"
    command = [sys.executable, prepare_iharmony4.__file__, str(small), str(out), "--size", "128", "--workers", "2"]
    for share in (0.1, 0.3, 0.5, 0.8):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        while len([*out.rglob("*.png")]) < share * len(whole):
            assert process.poll() is None
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        named = {path: data for path, data in contents(out).items() if path.suffix != ".part"}
        assert all(whole[path] == data for path, data in named.items())
        assert len(named) < len(whole)
    prepare(small, out, size=128)
    assert contents(out) == whole


@pytest.mark.slow
def test_memory_does_not_grow_with_the_count(tmp_path):
    """Eight times the composites of 128 px: 700 more would fill 34 MB if they were kept."""
    peaks = []
    for count in (100, 800):
        root = tmp_path / str(count)
        for folder in ("composite_images", "masks", "real_images"):
            (root / "HCOCO" / folder).mkdir(parents=True)
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
        mask = np.zeros((128, 128), np.uint8)
        mask[30:60, 30:60] = 255
        Image.fromarray(pixels).save(root / "image.png", compress_level=0)
        Image.fromarray(mask).save(root / "mask.png")
        lines = []
        for number in range(count):
            os.link(root / "image.png", root / f"HCOCO/real_images/c{number}.png")
            os.link(root / "image.png", root / f"HCOCO/composite_images/c{number}_1_1.png")
            os.link(root / "mask.png", root / f"HCOCO/masks/c{number}_1.png")
            lines.append(f"HCOCO/composite_images/c{number}_1_1.png\n")
        (root / "IHD_test.txt").write_text("".join(lines))
        code = (
            "import resource, sys; from pathlib import Path; import check_dataset, prepare_iharmony4\n"
            "prepare_iharmony4.prepare(Path(sys.argv[1]), Path(sys.argv[2]), 64, False, False, 1)\n"
            "check_dataset.check(Path(sys.argv[2]), 1)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, str(root), str(tmp_path / f"out{count}")]
        run = subprocess.run(command, cwd=REPOSITORY / "data_scripts", capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024))
    assert peaks[1] - peaks[0] < 12e6


# --- lists


def test_lost_lists_are_made_anew(copy):
    names = {t.name for split in ("train", "test") for t in list_triplets(copy, split)}
    for path in copy.glob("IHD_*"):
        path.unlink()
    table = make_lists.make_lists(copy, "IHD", 0.3, seed=1, workers=1)
    triplets = {split: list_triplets(copy, split) for split in ("train", "test")}
    assert {t.name for split in triplets.values() for t in split} == names
    assert {t.photo for t in triplets["train"]}.isdisjoint(t.photo for t in triplets["test"])
    assert pd.read_csv(copy / "IHD_manifest.csv").composite.tolist() == table.composite.tolist()
    for triplet in triplets["test"][::10]:
        row = table[table.composite == triplet.line].iloc[0]
        assert row.ratio == pytest.approx(triplet.read().ratio)
        assert (row.photo, row["split"]) == (triplet.photo, "test")
    assert found(copy) == set()


def test_a_named_split_stands_beside_the_official_one(copy, capsys, monkeypatch):
    before = contents(copy)
    monkeypatch.setattr("sys.argv", ["make_lists.py", str(copy), "--name", "mine", "--test-share", "0.4"])
    assert make_lists.main() == 0
    assert list_triplets(copy, "mine_test")
    after = contents(copy)
    assert {path: after[path] for path in before} == before
    assert {path.name for path in after.keys() - before.keys()} == {
        f"mine_{x}" for x in ("train.txt", "test.txt", "manifest.csv")
    }
    with pytest.raises(SystemExit):
        make_lists.main()
    assert "mine_train.txt exists and is left as it is" in capsys.readouterr().err


def test_what_is_incomplete_or_empty_is_left_out_and_said(copy, capsys):
    (copy / COMPOSITE).unlink()
    gone, black, *_ = sorted((copy / "Transfer" / "masks").glob("coffee_*"))
    gone.unlink()
    Image.new("L", (64, 64)).save(black)
    table = make_lists.make_lists(copy, "mine", 0.3, seed=1, workers=1)
    assert not ({gone.stem, black.stem} & set(table["mask"][table.subset == "Transfer"]))
    error = capsys.readouterr().err
    assert "without mask or real photo" in error
    assert "whose mask is empty, full or unreadable" in error


# --- found by users


def as_jpeg(root, out, quality):
    """The same data set with its photos as JPEG, composites compressed apart from the real photos."""
    for split in ("train", "test"):
        lines = []
        for triplet in list_triplets(root, split):
            for folder in ("composite_images", "masks", "real_images"):
                (out / triplet.subset / folder).mkdir(parents=True, exist_ok=True)
            images = triplet.read()
            real = out / triplet.subset / "real_images" / f"{triplet.photo}.jpg"
            if not real.exists():
                Image.fromarray(images.real).save(real, quality=95)
            background = np.asarray(Image.open(real))
            composite = np.where(images.mask[..., None], images.composite, background)
            line = f"{triplet.subset}/composite_images/{triplet.stem}.jpg"
            Image.fromarray(composite).save(out / line, quality=quality)
            shutil.copy(triplet.mask, out / triplet.subset / "masks" / triplet.mask.name)
            lines.append(f"{line}\n")
        (out / f"IHD_{split}.txt").write_text("".join(lines))


@pytest.mark.slow
def test_jpeg_compression_is_no_damage_but_a_shift_is(mini, tmp_path):
    as_jpeg(mini, tmp_path, quality=75)
    assert found(tmp_path) == set()
    line = "Change/composite_images/china_1_1.jpg"
    shifted = np.asarray(Image.open(tmp_path / line)).astype(int) + np.array([25, 0, 0])
    Image.fromarray(shifted.clip(0, 255).astype(np.uint8)).save(tmp_path / line, quality=75)
    line_of_real = "Transfer/composite_images/coffee_1_1.jpg"
    Image.open(tmp_path / "Transfer" / "real_images" / "coffee.jpg").save(tmp_path / line_of_real, quality=75)
    assert found(tmp_path) == {("background differs", line), ("unchanged foreground", line_of_real)}


def test_lists_that_are_gone_or_unusable_are_problems(copy):
    (copy / "IHD_test.txt").write_text("")
    assert found(copy) == {("unusable list", "test list")}
    (copy / "IHD_test.txt").unlink()
    assert found(copy) == {("missing list", "test list")}


@pytest.mark.parametrize(
    "line", ["../composite_images/x_1_1.png", "/composite_images/x_1_1.png", "A/composite_images/__1"]
)
def test_lines_that_lead_elsewhere_are_malformed(copy, tmp_path, line):
    with (copy / "IHD_test.txt").open("a") as file:
        file.write(f"{line}\n")
    assert found(copy) == {("malformed line", line)}
    with pytest.raises(ValueError, match="is not like"):
        prepare(copy, tmp_path / "out")


def test_a_cmyk_photo_is_a_problem(copy):
    path = copy / "Change" / "real_images" / "china.png"
    for composite in (copy / "Change" / "composite_images").glob("china_*"):
        Image.open(composite).convert("CMYK").save(composite.with_suffix(".tif"))
        composite.unlink()
        composite.with_suffix(".tif").rename(composite)
    problems = {problem for problem, _ in found(copy)}
    assert problems == {"unreadable file"}
    assert path.is_file()


def test_a_link_in_a_circle_hides_no_other_file(copy):
    (copy / "Change" / "real_images" / "loop").symlink_to("loop")
    assert found(copy) == set()


@pytest.mark.slow
def test_a_mended_source_is_prepared_anew(copy, tmp_path):
    original = (copy / MASK).read_bytes()
    Image.new("L", (64, 64)).save(copy / MASK)
    prepare(copy, tmp_path / "out", incomplete=True)
    assert not any(t.name.startswith("Change/china_1_") for t in list_triplets(tmp_path / "out"))
    (copy / MASK).write_bytes(original)
    target = tmp_path / "out" / "Change" / "masks" / "china_2.png"
    Image.new("L", (32, 32)).save(target)
    os.utime(target, (0, 0))
    (tmp_path / "out" / "Change" / "masks" / "china_3.png").unlink()
    prepare(copy, tmp_path / "out")
    prepare(copy, tmp_path / "fresh")
    for path, data in contents(tmp_path / "fresh").items():
        assert contents(tmp_path / "out")[path] == data


def test_a_disk_that_is_full_ends_the_run(small, tmp_path, monkeypatch):
    def full(*_, **__):
        raise ImageError("output x.png cannot be written: No space left on device.")

    monkeypatch.setattr(prepare_iharmony4, "save_image", full)
    with pytest.raises(ValueError, match="No space left"):
        prepare(small, tmp_path / "out", incomplete=True)
    assert not list((tmp_path / "out").glob("*.txt"))


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path):
    code = (
        "import time; from hdnet_lib.utils.parallel import parallel\n"
        "list(parallel(time.sleep, [60] * 4, 'sleeping', 'nap', 2))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    children = []
    while len(children) < 4:  # two workers, the server that forks them, and one that cleans up
        assert process.poll() is None
        time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def test_lists_under_other_names_are_not_shadowed(copy):
    for split in ("train", "test"):
        (copy / f"IHD_{split}.txt").rename(copy / f"{split}.txt")
    before = contents(copy)
    with pytest.raises(ValueError, match=r"has a train list, which is left as it is: choose another name"):
        make_lists.make_lists(copy, "IHD", 0.3, seed=1, workers=1)
    with pytest.raises(ValueError, match="without folders"):
        make_lists.make_lists(copy, "../x", 0.3, seed=1, workers=1)
    assert contents(copy) == before


# --- every kind of file: check, prepare and evaluate agree


def rewritten(change, **options):
    """Damage, or none: another way to store what ``change`` makes of an image, under the same name."""
    return lambda path: change(Image.open(path)).save(path, **options)


def deep(path):
    pixels = np.asarray(Image.open(path)).astype(np.uint16) * 257
    path.write_bytes(imagecodecs.png_encode(pixels))


def with_alpha(image):
    image = image.convert("RGB")
    image.putalpha(Image.new("L", image.size, 99))
    return image


def magenta(image):
    return Image.merge("RGB", [image, Image.new("L", image.size), image])


same = partial(Image.Image.convert, mode="RGB")
KINDS = {
    # what is done to composites and real photos, and to masks; whether the readers take it
    "CMYK": (rewritten(lambda image: image.convert("CMYK"), format="TIFF"), None, False),
    "transparent": (rewritten(with_alpha), None, False),
    "opaque RGBA": (rewritten(lambda image: image.convert("RGBA")), None, True),
    "16 bits": (deep, deep, True),
    "MPO": (rewritten(same, format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))], quality=100,
                      subsampling=0), None, True),
    "two pages": (rewritten(same, format="TIFF", save_all=True, append_images=[Image.new("RGB", (8, 8))]), None, False),
    "palette": (None, rewritten(lambda image: image.convert("RGB").quantize(4)), True),
    "coloured mask": (None, rewritten(magenta), False),
    "nearly grey mask": (None, rewritten(same, format="WEBP", quality=90), True),
    "transparent mask": (None, rewritten(with_alpha), False),
    "profile": (rewritten(same, icc_profile=adobe_rgb()), None, True),
}  # fmt: skip


@pytest.mark.parametrize(("photos", "masks", "usable"), KINDS.values(), ids=KINDS)
def test_check_prepare_and_evaluate_agree(copy, tmp_path, capsys, photos, masks, usable):
    line = list_triplets(copy, "test")[0].line
    for split in ("train", "test"):
        (copy / f"IHD_{split}.txt").write_text(f"{line}\n")
    triplet = list_triplets(copy, "test")[0]
    expected = triplet.read()
    for damage, paths in ((photos, (triplet.composite, triplet.real)), (masks, (triplet.mask,))):
        for path in paths if damage else ():
            damage(path)
    faults = {problem for problem, _ in found(copy)} & {"unreadable file", "empty mask", "full mask", "size differs"}
    assert faults == (set() if usable else {"unreadable file"})
    command = (copy, tmp_path / "out", 64, False, True, 1)
    status = main(["evaluate", str(copy), "--models", "reinhard", "--size", "64"])
    error = capsys.readouterr().err
    if usable:
        assert status == 0
        assert prepare_iharmony4.prepare(*command) == 0
        read, prepared = triplet.read(), list_triplets(tmp_path / "out", "test")[0].read()
        for image, again, original in zip(read[:3], prepared[:3], expected[:3], strict=True):
            assert np.array_equal(image, again)
            assert np.abs(image.astype(float) - original).mean() < 3
    else:
        assert status == 2
        assert "Traceback" not in error
        with pytest.raises(ValueError, match="none of its composites could be prepared"):
            prepare_iharmony4.prepare(*command)


@pytest.mark.slow
def test_cut_outs_are_pasted_and_snapping_is_timed(mini, tmp_path):
    aside = [name for name in (f"{n}.png" for n in range(99)) if zlib.crc32(name.encode()) % 20 == 0][:2]
    rng = np.random.default_rng(0)
    for name in (*aside, "other.png"):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / name)
        Image.fromarray(np.pad(np.full((20, 20), 255, np.uint8), ((14, 14), (22, 22)))).save(tmp_path / f"m{name}")
    rows = [f"{name},m{name}" for name in (*aside, "other.png")]
    (tmp_path / "pool.csv").write_text("\n".join(["image,masks", *rows]))

    def run(script, *arguments):
        command = [sys.executable, REPOSITORY / "data_scripts" / script, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    sheet = ("paste_cutouts.py", tmp_path / "pool.csv", tmp_path / "sheet.png", "--models", "hdnet-lite")
    result = run(*sheet)
    assert result.returncode == 0, result.stderr
    assert Image.open(tmp_path / "sheet.png").width > 500
    result = run("paste_cutouts.py", mini / "pool.csv", tmp_path / "sheet.png")  # one photo is aside, none to go into
    assert result.returncode == 2
    assert "no validation photo has a mask" in result.stderr
    result = run("benchmark_snapping.py", "--sizes", 256, "--repeats", 1)
    snapping, rest, ratio = map(float, result.stdout.splitlines()[1].split()[1:])
    assert ratio == pytest.approx(snapping / rest, rel=0.1)
