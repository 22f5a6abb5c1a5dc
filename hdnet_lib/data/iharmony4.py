"""Triplets in the layout of iHarmony4: composite, mask of its foreground, real photo.

::

    ROOT/IHD_train.txt, ROOT/IHD_test.txt      lines such as HCOCO/composite_images/x_1_1.jpg
    ROOT/HCOCO/composite_images/<photo>_<mask>_<version>.jpg
    ROOT/HCOCO/masks/<photo>_<mask>.png
    ROOT/HCOCO/real_images/<photo>.jpg
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from sys import intern

import numpy as np
from PIL import Image

from hdnet_lib.data.images import read_gray, read_rgb
from hdnet_lib.data.samples import Sample
from hdnet_lib.utils.files import first_line, stamp
from hdnet_lib.utils.paths import data_folder

MINI = data_folder() / "mini"
"""Where the mini data set is built, by the first command that asks for it (:mod:`~hdnet_lib.composites.mini`)."""

PUBLISHED = {
    "HCOCO": {"train": 38545, "test": 4283},
    "HAdobe5k": {"train": 19437, "test": 2160},
    "HFlickr": {"train": 7449, "test": 828},
    "Hday2night": {"train": 311, "test": 133},
}
"""Composites of each subset and split, as published."""

FOLDERS = ("composite_images", "masks", "real_images")


class MissingListError(ValueError):
    """A data set has no list for a split."""


@dataclass(frozen=True, slots=True)
class Triplet:
    """Where the three images of one composite lie, by the basename rule."""

    root: Path
    subset: str
    stem: str
    """``<photo>_<mask>_<version>``, read from the right: a photo's name may hold underscores and hyphens."""
    suffix: str = ".jpg"
    """Of the composite's file."""
    real_suffix: str = ".jpg"

    @property
    def name(self) -> str:
        """``subset/photo_mask_version``, unique in a data set."""
        return f"{self.subset}/{self.stem}"

    @property
    def photo(self) -> str:
        """Identifier of the real photo; several composites share one."""
        return self.stem.rsplit("_", 2)[0]

    @property
    def line(self) -> str:
        """The composite's line in a split list."""
        return f"{self.subset}/composite_images/{self.stem}{self.suffix}"

    @property
    def composite(self) -> Path:
        """Path of the composite."""
        return self.root / self.line

    @property
    def mask(self) -> Path:
        """Path of the mask."""
        return self.root / self.subset / "masks" / f"{self.stem.rsplit('_', 1)[0]}.png"

    @property
    def real(self) -> Path:
        """Path of the real photo."""
        return self.root / self.subset / "real_images" / f"{self.photo}{self.real_suffix}"

    def read(self, size: int | None = None, background: str = "composite") -> Sample:
        """Read the images.

        Args:
            size: squeeze them to a square of that side, as the paper does (256), bilinear with
                antialiasing; the mask is cut at one half after it.
            background: what stands around the composite's foreground: "composite", the file as it is, or
                "real", the real photo's pixels, so that nothing but the foreground can differ.

        Raises:
            ValueError: a file cannot be read, the three differ in size, or the background is unknown.
        """
        if background not in ("composite", "real"):
            raise ValueError(f"background must be composite or real, not {background!r}.")
        composite, real = read_rgb(self.composite, "composite", True), read_rgb(self.real, "real photo", True)
        mask = read_gray(self.mask)
        if not composite.size == mask.size == real.size:
            sizes = ", ".join(f"{image.width}x{image.height}" for image in (composite, mask, real))
            raise ValueError(f"{self.name}: composite, mask and real photo differ in size: {sizes}.")
        original = composite.size
        if size is not None:
            composite, mask, real = (
                image.resize((size, size), Image.Resampling.BILINEAR) for image in (composite, mask, real)
            )
        pixels, inside, answer = np.asarray(composite), np.asarray(mask) >= 128, np.asarray(real)
        if background == "real":
            pixels = np.where(inside[..., None], pixels, answer)
        # By name alone: subsets that were made from the same photos share their clusters.
        return Sample(pixels, inside, answer, self.name, self.subset, self.photo, original)


def list_triplets(root: str | Path = "mini", split: str = "test", partial: bool = False) -> list[Triplet]:
    """The triplets of one split, in the order of its list.

    Args:
        root: a folder in iHarmony4 layout, or "mini" for the mini data set.
        split: "train", "test" or the name of another list. The list is ``IHD_<split>.txt`` or ``<split>.txt``
            in the root, else every ``<subset>/<subset>_<split>.txt``.
        partial: leave out composites with a missing file, for a copy that holds only a part.

    Raises:
        ValueError: there is no such list, or it names files that are missing; the message says which.
    """
    root = find_root(root)
    has_file = file_finder()
    triplets = [resolve(root, line, has_file) for line in read_list(root, split)]
    complete = [triplet for triplet in triplets if not missing_files(triplet, has_file)]
    if partial and complete:
        return complete
    if not complete:
        first = missing_files(triplets[0], has_file)[0]
        raise ValueError(
            f"{root}: none of the {len(triplets)} composites of the {split} list has all its files; the first that is "
            f"missing is {first.relative_to(root).as_posix()}."
        )
    if len(complete) < len(triplets):
        present = set(complete)
        first = missing_files(next(triplet for triplet in triplets if triplet not in present), has_file)[0]
        raise ValueError(
            f"{root}: {len(triplets) - len(complete)} of {len(triplets)} composites of the {split} list miss a file, "
            f"the first {first.relative_to(root).as_posix()}: complete the copy, or ask for what is there ("
            "partial=True in Python, --partial in the scripts, PARTIAL=1 with make report)."
        )
    return triplets


def find_root(root: str | Path) -> Path:
    """The folder of a data set; "mini" is the mini data set.

    Raises:
        ValueError: it is not there.
    """
    if root == "mini":
        if not MINI.is_dir():
            raise ValueError("the mini data set is not built yet: run `python -m hdnet_lib.composites.mini`.")
        return MINI
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder.")
    return root


def read_list(root: Path, split: str) -> list[str]:
    """The lines of a split, each ``subset/composite_images/name``; see :func:`list_triplets` for the files.

    Raises:
        MissingListError: there is no list; the message shows the expected tree beside the one found.
        ValueError: the list is empty or cannot be read.
    """
    for name in (f"IHD_{split}.txt", f"{split}.txt"):
        if (root / name).is_file():
            lines = _lines(root / name)
            if not lines:
                raise ValueError(f"{root / name}: the list is empty.")
            return lines
    lists = [path for path in sorted(root.glob(f"*/*_{split}.txt")) if path.name == f"{path.parent.name}_{split}.txt"]
    lines = [
        f"{path.parent.name}/composite_images/{line.rpartition('/')[2]}" for path in lists for line in _lines(path)
    ]
    if not lines:
        raise MissingListError(_explain(root, split))
    return lines


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: the list cannot be read: {first_line(error)}.") from None


def _explain(root: Path, split: str) -> str:
    """Why a folder is no data set, with the expected tree beside the one found."""
    subsets = {path.parent.name for path in root.glob("*/composite_images")}
    nested = next((path.parent for path in root.glob("*/*/composite_images")), None)
    if (root / "composite_images").is_dir():
        advice = f"This is one subset; give the folder above it, {root.resolve().parent}."
    elif nested:
        advice = f"Give {nested.parent} instead."
    elif subsets and (others := [path.name for path in sorted(root.glob("*.txt"))]):
        advice = f"It has {', '.join(others)}; if a list is lost, data_scripts/make_lists.py makes new ones."
    elif subsets:
        advice = "If its lists are lost, data_scripts/make_lists.py makes new ones."
    else:
        advice = "Give the folder that holds the subsets."
    expected = [f"IHD_{split}.txt", *(f"HCOCO/{folder}/" for folder in FOLDERS), "HAdobe5k/...", "HFlickr/..."]
    entries = [path for path in root.iterdir() if not path.name.startswith(".")]
    entries = sorted(entries, key=lambda path: (path.is_file(), path.name))
    found = []
    for path in entries:
        below = sorted(child.name for child in path.iterdir() if child.is_dir())[:3] if path.is_dir() else []
        found += [f"{path.name}/{child}/" for child in below] or [path.name + "/" * path.is_dir()]
    if len(found) > 8:
        found[7:] = [f"... and {len(found) - 7} more"]
    columns = ["expected", *expected], ["found", *(found or ["nothing"])]
    tree = [f"  {one:<28}{other}" for one, other in zip_longest(*columns, fillvalue="")]
    return "\n".join([f"{root}: no list for the {split} split. {advice}", *tree])


def resolve(root: Path, line: str, has_file: Callable[[Path], bool] = Path.is_file) -> Triplet:
    """The triplet of a line of a list.

    Raises:
        ValueError: the line does not follow the naming rule.
    """
    parts = line.split("/")
    stem, dot, suffix = parts[-1].rpartition(".")
    names = stem.rsplit("_", 2)
    if (
        len(parts) != 3
        or parts[1] != "composite_images"
        or not dot
        or len(names) != 3
        or not all(names)
        or (parts[0] in ("", ".", ".."))
    ):
        raise ValueError(f"{root}: the line {line!r} is not like HCOCO/composite_images/<photo>_<mask>_<version>.jpg.")
    triplet = Triplet(root, intern(parts[0]), stem, intern(f".{suffix}"), intern(f".{suffix}"))
    for other in (".jpg", ".png"):
        if not has_file(triplet.real):
            alternative = replace(triplet, real_suffix=other)
            triplet = alternative if has_file(alternative.real) else triplet
    return triplet


def group_by_photo(triplets: Sequence[Triplet]) -> list[list[Triplet]]:
    """One list for each real photo, so that a job reads it once; a composite named twice is there once."""
    groups: dict[tuple[str, str], dict[str, Triplet]] = {}
    for triplet in triplets:
        groups.setdefault((triplet.subset, triplet.photo), {})[triplet.line] = triplet
    return [list(group.values()) for group in groups.values()]


def missing_files(triplet: Triplet, has_file: Callable[[Path], bool] = Path.is_file) -> list[Path]:
    """Those of the three files that are not there."""
    return [path for path in (triplet.composite, triplet.mask, triplet.real) if not has_file(path)]


def file_finder() -> Callable[[Path], bool]:
    """A ``Path.is_file`` that lists each folder once: 200,000 questions to a network disk take minutes."""

    @cache
    def names(folder: Path) -> frozenset[str]:
        try:
            with os.scandir(folder) as entries:
                return frozenset(entry.name for entry in entries if _is_file(entry))
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        except OSError as error:
            raise ValueError(f"{folder}: the folder cannot be read: {first_line(error)}.") from None

    return lambda path: path.name in names(path.parent)


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle
        return False


class Triplets(Sequence[Sample]):
    """The triplets of a list, each once, read when asked for and squeezed to a square.

    Args:
        root, split, partial: see :func:`list_triplets`.
        size: side of the square, in pixels.
        limit: at most this many, spread evenly over the list; 0 for all.

    Raises:
        ValueError: the list or a file is missing. Reading one raises it, too: a file is damaged, or a mask is empty
            or full at this size.
    """

    def __init__(
        self, root: str | Path, split: str = "test", size: int = 256, partial: bool = False, limit: int = 0
    ) -> None:
        triplets = list(dict.fromkeys(list_triplets(root, split, partial)))
        self.triplets = [triplets[index] for index in spread(len(triplets), limit)]
        self.names = [triplet.name for triplet in self.triplets]
        self.size = size

    def sources(self) -> list:
        """What changes when a composite does: its name, and size and date of its three files."""
        files = ((triplet.composite, triplet.mask, triplet.real) for triplet in self.triplets)
        return [(name, *map(stamp, paths)) for name, paths in zip(self.names, files, strict=True)]

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, index: int) -> Sample:
        sample = self.triplets[index].read(self.size)
        if sample.mask.all() or not sample.mask.any():
            state = "full" if sample.mask.all() else "empty"
            raise ValueError(f"{sample.name}: its mask is {state}; check_dataset.py finds all such faults.")
        return sample


def spread(length: int, limit: int) -> list[int]:
    """At most ``limit`` of the numbers 0 to length - 1, evenly spread; all for a limit of 0."""
    return list(range(length)) if not 0 < limit < length else [index * length // limit for index in range(limit)]
