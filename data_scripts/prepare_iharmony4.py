"""Make a resized copy of a data set in iHarmony4 layout, for fast reading.

    python data_scripts/prepare_iharmony4.py ROOT OUT [--size 256] [--keep-aspect] [--partial]

Images are PNG, so the copy holds exactly the pixels that reading ROOT at that size gives. A run that was stopped,
or killed, goes on where it was when it is started again: no file has its final name before it is whole, and the
lists come last. Nothing is written into ROOT.
"""

import argparse
import json
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from hdnet_lib.data.iharmony4 import FOLDERS, Triplet, find_root, group_by_photo, list_triplets, read_list
from hdnet_lib.data.images import ImageError, read_gray, read_rgb
from hdnet_lib.data.save import save_image
from hdnet_lib.utils.arguments import at_least
from hdnet_lib.utils.files import atomic_write, first_line
from hdnet_lib.utils.parallel import parallel

SETTINGS = "prepared.json"


def prepare(root: Path, out: Path, size: int, keep_aspect: bool, incomplete: bool, workers: int | None) -> int:
    """Write the copy; returns the exit status."""
    lists = {}
    for split in ("train", "test"):
        try:
            read_list(root, split)
        except ValueError as error:
            if split == "test" and not lists:
                raise
            absent = error
        else:
            lists[split] = list_triplets(root, split, incomplete)
    if not lists:
        raise absent
    groups = group_by_photo([triplet for triplets in lists.values() for triplet in triplets])
    lines = {triplet.line for group in groups for triplet in group}
    if twice := [line for line, count in Counter(Path(line).with_suffix("") for line in lines).items() if count > 1]:
        raise ValueError(f"{root}: {twice[0].as_posix()} is there with two suffixes: keep one.")
    _claim(root, out, {"size": size, "keep_aspect": keep_aspect})
    for split in ("train", "test"):  # they come back when all is done
        (out / f"IHD_{split}.txt").unlink(missing_ok=True)
    for subset in {group[0].subset for group in groups}:
        for folder in FOLDERS:
            (out / subset / folder).mkdir(parents=True, exist_ok=True)

    started, written, failed = time.monotonic(), 0, {}
    job = partial(prepare_photo, out=out, size=size, keep_aspect=keep_aspect)
    for count, problems in parallel(job, groups, "preparing", "photo", workers):
        written += count
        failed |= problems
    seconds = time.monotonic() - started
    print(f"{written} images written in {seconds:.0f} s: {written / seconds:.0f} images/s")
    for problem in list(failed.values())[:10]:
        print(f"left out: {problem}", file=sys.stderr)
    if failed and not incomplete:
        raise ValueError(
            f"{len(failed)} composites could not be prepared, so the lists are not written: mend them and run this "
            "again, or leave them out with --partial."
        )
    if len(failed) == len(lines):
        raise ValueError(f"{root}: none of its composites could be prepared, so the lists are not written.")
    for split, triplets in lists.items():
        listed, kept = len(read_list(root, split)), sum(triplet.line not in failed for triplet in triplets)
        print(f"{split}: {kept} of {listed} composites")
        with atomic_write(out / f"IHD_{split}.txt") as part:
            kept_lines = (Path(t.line).with_suffix(".png").as_posix() for t in triplets if t.line not in failed)
            part.write_text("".join(f"{line}\n" for line in kept_lines), "utf-8")
    return 0


def _claim(root: Path, out: Path, settings: dict) -> None:
    """Refuse an output folder that holds anything but an earlier run with the same settings."""
    one, other = root.resolve(), out.resolve()
    sources = (one, *(path.resolve() for path in root.iterdir()))  # a subset may be a link
    inside = any(folder == other or folder in other.parents for folder in sources)
    if inside or other in one.parents:
        raise ValueError(f"{out}: choose a folder that neither lies in {root} nor holds it.")
    settings = {"root": str(one)} | settings
    try:
        if (out / SETTINGS).is_file():
            try:
                earlier = json.loads((out / SETTINGS).read_text())
            except ValueError:
                raise ValueError(f"{out / SETTINGS} is damaged: delete {out} and start anew.") from None
            if earlier != settings:
                raise ValueError(f"{out} was prepared from other settings, {earlier}: choose another folder.")
        elif out.exists() and any(not path.name.endswith(".part") for path in out.iterdir()):
            raise ValueError(f"{out} is not empty and not a prepared copy: choose another folder.")
        out.mkdir(parents=True, exist_ok=True)
        for part in out.rglob(".*.part"):  # of a run that was killed; another that goes on keeps its own
            if not _runs(int(part.suffixes[-2].lstrip("."))):
                part.unlink(missing_ok=True)
        with atomic_write(out / SETTINGS) as part:
            part.write_text(json.dumps(settings))
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {first_line(error)}.") from None


def _runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def prepare_photo(group: list[Triplet], out: Path, size: int, keep_aspect: bool) -> tuple[int, dict[str, str]]:
    """Write what is not there yet of one real photo, its masks and composites.

    Returns:
        How many images were written, and for each line that could not be prepared a sentence.
    """

    def target(path: Path) -> Path:
        return out / Path(*path.parts[-3:]).with_suffix(".png")

    written, problems, images = 0, {}, {}
    for triplet in group:
        paths = (triplet.real, triplet.mask, triplet.composite)
        wanted = [path for path in paths if not _is_done(target(path), path)]
        if not wanted:
            continue
        try:
            for path in (triplet.real, triplet.mask, triplet.composite):
                if path not in images:
                    is_mask = path == triplet.mask
                    images[path] = read_gray(path, "it") if is_mask else read_rgb(path, "it", stored=True)
                if images[path].size != images[triplet.real].size:
                    sizes = (f"{image.width}x{image.height}" for image in (images[path], images[triplet.real]))
                    raise ImageError(f"it {path} does not have the size of its real photo: {', '.join(sizes)}.")
            small = {path: _resize(images[path], size, keep_aspect) for path in wanted}
            if triplet.mask in small and len(small[triplet.mask].getcolors()) == 1:
                raise ImageError(f"it {triplet.mask} marks nothing or everything at this size.")
        except ImageError as error:
            problems[triplet.line] = str(error).removeprefix("it ")
            continue
        finally:
            images.pop(triplet.composite, None)
        for path, image in small.items():
            save_image(image, target(path), compress_level=1)
            written += 1
    return written, problems


def _is_done(target: Path, source: Path) -> bool:
    """Whether a file is there and no older than what it is made from, which may have been mended since."""
    return target.is_file() and target.stat().st_mtime >= source.stat().st_mtime


def _resize(image: Image.Image, size: int, keep_aspect: bool) -> Image.Image:
    """As ``Triplet.read`` does: bilinear with antialiasing, masks cut at one half after it."""
    width, height = size, size
    if keep_aspect:
        scale = min(1, size / max(image.size))
        width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return Image.fromarray(np.asarray(image) >= 128).convert("L") if image.mode == "L" else image


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", help="folder in iHarmony4 layout")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--size", type=int, default=256, help="side in pixels (%(default)s)")
    parser.add_argument("--keep-aspect", action="store_true",
                        help="shrink the longer side to SIZE (never enlarge), do not squeeze to a square")  # fmt: skip
    parser.add_argument("--partial", action="store_true", help="leave out composites with a missing or damaged file")
    parser.add_argument("--workers", type=at_least(1), help="processes (default: one for each processor)")
    arguments = parser.parse_args()
    if not 16 <= arguments.size <= 8192:
        parser.error(f"--size must be 16 to 8192 pixels, not {arguments.size}.")
    try:
        return prepare(
            find_root(arguments.root), arguments.out, arguments.size, arguments.keep_aspect, arguments.partial,
            arguments.workers)  # fmt: skip
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped; the same command goes on.\n")


if __name__ == "__main__":
    sys.exit(main())
