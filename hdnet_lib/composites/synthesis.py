"""A data set in iHarmony4 layout from anyone's photos and masks."""

import itertools
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.spatial import KDTree
from torch import Tensor

from hdnet_lib.composites.plausibility import Plausibility, measure, plausible
from hdnet_lib.composites.recipes import DRAWS, RECIPES, TRANSFERS, recolor
from hdnet_lib.data.decode import list_images
from hdnet_lib.data.iharmony4 import FOLDERS
from hdnet_lib.data.images import read_mask, read_rgb, to_pixels, to_tensor
from hdnet_lib.data.masks import mask_descriptor, photo_of_mask
from hdnet_lib.data.samples import ratio_bin
from hdnet_lib.data.save import save_image
from hdnet_lib.data.splits import split_by_photo
from hdnet_lib.utils.files import first_line, fold
from hdnet_lib.utils.parallel import parallel

SUBSETS = ("Transfer", "Change")
"""Composites that take the colours of another photo, and the others."""
TRIES = 6
"""So many references, or draws of settings, are tried until a composite is plausible."""
REFERENCE_SIDE = 384
"""References are shrunk to this longer side: their colours count, not their detail."""


class Region(NamedTuple):
    """A foreground, cut out at its bounding box; float64, so that processors agree on every rounded pixel."""

    image: Tensor
    """(1, 3, H, W) in [0, 1]."""
    mask: Tensor
    """(1, 1, H, W), 0 or 1."""


class Foreground(NamedTuple):
    """One mask of one photo, and what a job needs to know about it."""

    photo: Path
    mask: Path
    number: int
    """Of the mask among the photo's, from 1."""
    ratio: float
    references: tuple[tuple[Path, Path], ...]
    """(photo, mask) of foregrounds of the same rough kind in other photos, the most alike first."""


def recolor_plausibly(
    region: Region, references: Sequence[Region], recipe: str, rng: np.random.Generator
) -> tuple[Tensor, Plausibility, int] | None:
    """The first plausible composite (1, 3, H, W) of :data:`TRIES`, its measures, and which reference it had."""
    order = rng.permutation(len(references)).tolist()
    for attempt in range(TRIES):
        choice = order[attempt % len(order)]
        uniform = torch.from_numpy(rng.random((1, DRAWS)).clip(1e-6, 1 - 1e-6))
        composite = recolor(
            recipe, region.image, region.mask, references[choice].image, references[choice].mask, uniform
        )
        values = measure(composite, *region)
        if plausible(values):
            return composite, values, choice
    return None


def synthesize(
    photos: Path,
    masks: Path,
    out: Path,
    recipes: Sequence[str] = RECIPES,
    per_mask: int = 3,
    seed: int = 0,
    test: float | set[str] = 0.1,
    workers: int | None = None,
) -> pd.DataFrame:
    """Make composites of every mask and write them in iHarmony4 layout, split by photo.

    The subset ``Transfer`` holds recipes that take the colours of another photo, ``Change`` the others. Version n of a
    mask's composites has the recipe that is n-th in the list, which starts one further with every mask. Beside
    the lists lies ``composites.csv`` with recipe, reference, ratio and the measures of plausibility.

    Args:
        photos: folder of photos.
        masks: folder of masks, named as their photo or ``<photo>_<anything>``.
        out: folder to write; it must not exist. It appears when it is complete.
        recipes: names of :data:`~hdnet_lib.composites.recipes.RECIPES`.
        per_mask: composites of each mask. A recipe that finds no plausible one leaves its place empty.
        seed: of everything random; the same seed gives the same pixels.
        test: share of the composites that go to the test list, or the names of the photos that do.
        workers: processes; one for each processor by default. A script that calls this with more than one needs
            ``if __name__ == "__main__":``, since each process imports it.

    Returns:
        The table of ``composites.csv``.

    Raises:
        ValueError: folders, recipes, a photo or a mask cannot be used; the sentence says which and why.
    """
    _check(photos, masks, out, recipes, per_mask)
    pairs = match_masks(photos, masks)
    found = list(parallel(_look, pairs, "reading masks", "mask", workers))
    names = [photo.stem for photo, _ in pairs]
    if isinstance(test, set):
        testing = np.array([name in test for name in names])
    else:
        testing = split_by_photo(names, [ratio_bin(ratio) for ratio, _ in found], test, seed)
    tested = {name for name, is_test in zip(names, testing, strict=True) if is_test}
    foregrounds = _with_references(pairs, found, testing)
    groups: dict[Path, list[tuple[int, Foreground]]] = {}
    for index, foreground in enumerate(foregrounds):
        groups.setdefault(foreground.photo, []).append((index, foreground))

    make = partial(_make, recipes=tuple(recipes), per_mask=per_mask, seed=seed)
    try:
        # Next to out, and renamed when all is there; removed if anything fails.
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            part = Path(temporary) / out.name
            for subset, kind in itertools.product(SUBSETS, FOLDERS):
                (part / subset / kind).mkdir(parents=True)
            made = parallel(partial(make, out=part), list(groups.values()), "making composites", "photo", workers)
            table = pd.DataFrame([row for rows in made for row in rows])
            if table.empty:
                raise ValueError(f"{photos}: no composite was plausible: try other recipes or masks.")
            table["split"] = np.where(table.pop("photo").isin(tested), "test", "train")
            table = table.sort_values("composite", ignore_index=True)
            _write_lists(table, part)
            for subset in SUBSETS:
                if not any((part / subset / FOLDERS[0]).iterdir()):
                    shutil.rmtree(part / subset)
            part.rename(out)
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {first_line(error)}.") from None
    return table


def _check(photos: Path, masks: Path, out: Path, recipes: Sequence[str], per_mask: int) -> None:
    """Refuse what cannot work before anything is read."""
    for recipe in recipes:
        if recipe not in RECIPES:
            raise ValueError(f"there is no recipe called {recipe!r}, only {', '.join(RECIPES)}.")
    if per_mask < 1:
        raise ValueError(f"each mask needs one composite at least, not {per_mask}.")
    if out.exists():
        raise ValueError(f"{out} exists already: choose another name.")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: the folder {out.parent} does not exist.")
    if photos.resolve() == masks.resolve():
        raise ValueError(f"{photos}: photos and masks must lie in two folders.")
    if {photos.resolve(), masks.resolve()} & {out.resolve(), *out.resolve().parents}:
        raise ValueError(f"{out}: choose a folder outside the photos and the masks.")


def _write_lists(table: pd.DataFrame, folder: Path) -> None:
    """The lists of both splits, and the table itself."""
    for split in ("train", "test"):
        lines = table.composite[table.split == split]
        if lines.empty:
            raise ValueError(f"no composite for the {split} list was plausible: use more photos or masks.")
        (folder / f"IHD_{split}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    table.to_csv(folder / "composites.csv", index=False, float_format="%.4g")


def match_masks(photos: Path, masks: Path) -> list[tuple[Path, Path]]:
    """(photo, mask) of every mask, whose name is its photo's, or that and an underscore and more; case does not count.

    Raises:
        ValueError: a folder is missing, two photos share a name, or a mask has no photo.
    """
    for folder in (photos, masks):
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder.")
    known: dict[str, Path] = {}
    for path in list_images(photos):
        name = fold(path.stem)
        if name in known:
            raise ValueError(f"{photos}: {known[name].name} and {path.name} share a name: rename one.")
        known[name] = path
    pairs, lost = [], []
    for path in list_images(masks):
        if photo := photo_of_mask(path, known):
            pairs.append((known[photo], path))
        else:
            lost.append(path)
    if lost or not pairs:
        which = f"{len(lost)} masks have no photo, the first {lost[0].name}" if lost else "there is no mask"
        raise ValueError(f"{masks}: {which}; a mask is named as its photo, or <photo>_<anything>.png.")
    return sorted(pairs)


def _look(pair: tuple[Path, Path]) -> tuple[float, np.ndarray]:
    """Ratio and rough kind of a foreground."""
    photo, mask = pair
    binary = _read_mask(mask)
    if not 0 < binary.mean() < 1:
        raise ValueError(f"mask {mask} marks {'nothing' if not binary.any() else 'everything'}.")
    size = read_rgb(photo, "photo").size
    if size != binary.shape[::-1]:
        raise ValueError(f"mask {mask} does not have the size of its photo, {size[0]}x{size[1]}.")
    return float(binary.mean()), mask_descriptor(binary)


def _read_mask(path: Path) -> np.ndarray:
    return read_mask(path, "mask") >= 0.5


def _with_references(pairs: list, found: list, testing: np.ndarray) -> list[Foreground]:
    """Give every foreground the references most like it, of other photos on its side of the split."""
    descriptors = np.stack([descriptor for _, descriptor in found])
    nearest: dict[int, list[int]] = {}
    for side in (False, True):
        members = np.flatnonzero(testing == side).tolist()
        if not members:
            continue
        tree = KDTree(descriptors[members])
        most = max(np.unique([str(pairs[index][0]) for index in members], return_counts=True)[1])
        _, near = tree.query(descriptors[members], k=min(len(members), TRIES + most))
        for index, row in zip(members, near.reshape(len(members), -1), strict=True):
            others = [members[other] for other in row if pairs[members[other]][0] != pairs[index][0]]
            nearest[index] = others[:TRIES]
    foregrounds: list[Foreground] = []
    numbers: dict[Path, int] = {}
    for number, ((photo, mask), (ratio, _)) in enumerate(zip(pairs, found, strict=True)):
        numbers[photo] = numbers.get(photo, 0) + 1
        references = tuple(pairs[other] for other in nearest[number])
        foregrounds.append(Foreground(photo, mask, numbers[photo], ratio, references))
    return foregrounds


def _region(photo: Image.Image, mask: np.ndarray) -> tuple[Region, tuple[int, int]]:
    """A foreground and the upper left corner (x, y) of its bounding box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    pixels, inside = np.asarray(photo.crop(box)), mask[box[1] : box[3], box[0] : box[2]]
    return Region(to_tensor(pixels, torch.float64), to_tensor(inside, torch.float64)), (int(box[0]), int(box[1]))


@lru_cache(maxsize=2 * TRIES)
def _reference(photo: Path, mask: Path) -> Region:
    image, binary = read_rgb(photo, "photo"), _read_mask(mask)
    scale = REFERENCE_SIDE / max(image.size)
    if scale < 1:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        small = np.asarray(Image.fromarray(binary).resize(size, Image.Resampling.NEAREST))
        if small.any():  # the smallest objects keep their full size
            image, binary = image.resize(size, Image.Resampling.BOX), small
    return _region(image, binary)[0]


def _make(group: list[tuple[int, Foreground]], out: Path, recipes: tuple[str, ...], per_mask: int, seed: int) -> list:
    """Write all composites of one photo; returns their rows of the table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the arrays are small, and the processes fill the machine
    try:
        return [row for index, one in group for row in _composites(index, one, out, recipes, per_mask, seed)]
    finally:
        torch.set_num_threads(threads)


def _composites(
    index: int, foreground: Foreground, out: Path, recipes: tuple[str, ...], per_mask: int, seed: int
) -> list[dict]:
    photo, mask = read_rgb(foreground.photo, "photo"), _read_mask(foreground.mask)
    region, corner = _region(photo, mask)
    name, rows = foreground.photo.stem, []
    for version in range(1, per_mask + 1):
        recipe = recipes[(index + version - 1) % len(recipes)]
        references = [_reference(*reference) for reference in foreground.references] or [region]
        if recipe in TRANSFERS and not foreground.references:
            continue
        rng = np.random.default_rng([seed, index, version])
        result = recolor_plausibly(region, references, recipe, rng)
        if result is None:
            continue
        recolored, values, choice = result
        composite = photo.copy()
        composite.paste(Image.fromarray(to_pixels(recolored)), corner)
        subset = "Transfer" if recipe in TRANSFERS else "Change"
        line = f"{subset}/composite_images/{name}_{foreground.number}_{version}.png"
        _save(composite, out / line)
        _save(Image.fromarray(mask).convert("L"), out / subset / "masks" / f"{name}_{foreground.number}.png")
        _save(photo, out / subset / "real_images" / f"{name}.png")
        reference = foreground.references[choice][1].stem if recipe in TRANSFERS else ""
        row = {"composite": line, "photo": name, "recipe": recipe, "reference": reference, "ratio": foreground.ratio}
        rows.append(row | {field: value.item() for field, value in values._asdict().items()})
    return rows


def _save(image: Image.Image, path: Path) -> None:
    if not path.exists():
        save_image(image, path, compress_level=1)
