"""What training reads: a pool of photos and masks, composites made on the fly, or the triplets of a data set."""

import csv
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice, tee
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from hdnet_lib.data.iharmony4 import list_triplets
from hdnet_lib.data.masks import feather, grow_mask, kind, make_mask
from hdnet_lib.data.parallel import ahead
from hdnet_lib.data.plausibility import LIMITS, measure, plausible
from hdnet_lib.data.recipes import DRAWS, RECIPES, recolour
from hdnet_lib.errors import reason
from hdnet_lib.images import read_mask, read_photo

Result = TypeVar("Result")

SMALLEST_RATIO, LARGEST_RATIO = 0.002, 0.95
"""Masks that cover less or more of the photo are left out of a pool."""
RESIDENT_LIMIT = 4 * 2**30
"""A pool of at most so many bytes is kept in memory; a larger one is read again and again."""
MIX = {"reinhard": 0.25, "xiao": 0.15, "histogram": 0.15, "photometric": 0.2, "curves": 0.15, "illuminant": 0.1}
"""Share of each recipe in training. ``idt`` has none: it costs about three times as much as the slowest other."""
CANDIDATES = 16
"""So many masks are drawn as reference, and the one most like the foreground in size and place is taken."""
READ_AHEAD = 128
"""Images that are being read or wait for their batch, where a pool does not stay in memory."""
LOOSE_BY = (-2, -1, 0, 1, 2)
"""A loose mask is grown by one of these, in pixels."""
FEATHERED_OVER = (0, 1, 2)
"""The foreground of a loose mask fades out over one of these, in pixels."""
# A network that never sees a good composite learns to change every one, so nearly unchanged ones stay in.
_TRAINING_LIMITS = LIMITS._replace(change=(0.0, LIMITS.change[1]))


class Composites(NamedTuple):
    """A batch for training, on the pool's device."""

    composite: Tensor
    """(B, 3, H, W) in [-1, 1]."""
    mask: Tensor
    """(B, 1, H, W), 0 or 1."""
    real: Tensor
    """(B, 3, H, W) in [-1, 1]."""


class _Whole(NamedTuple):
    """A batch that takes its images as they are."""

    index: np.ndarray


class _Drawn(NamedTuple):
    """All that was drawn for a batch; arrays with one row for each sample, or two."""

    index: np.ndarray
    """The photos, and then their references."""
    corner: np.ndarray
    """Of the crops, for the same."""
    flip: np.ndarray
    invert: np.ndarray
    recipe: np.ndarray
    strength: np.ndarray
    uniform: np.ndarray


class Pool:
    """Numbered composites, squeezed to a square of ``size``, from images that are kept as uint8 or read anew.

    A kind of pool has ``__len__``; ``_plan(samples, seed)``, which draws everything for a batch, and whose ``index``
    says which images it needs; ``_read(index)``, the uint8 images with that index; and ``_compose(plan, *images)``,
    which makes the batch from them.

    Args:
        part: "train" or "validation".
        size: side of the images in pixels.
        device: where the composites are made.
        things: what is read, for the progress bar.
        loose: share of the composites whose mask misses the border (:func:`loosen`).
    """

    def __init__(self, part: str, size: int, device: str | torch.device, things: str, loose: float = 0.0) -> None:
        if part not in ("train", "validation"):
            raise ValueError(f"part must be train or validation, not {part!r}.")
        self.loose = loose
        self.size, self.device, self._description = size, torch.device(device), f"{part} {things}"
        self.resident: tuple[Tensor, ...] = ()
        """The images, where they are kept in memory."""

    def composites(self, samples: Sequence[int], seed: int = 0) -> Composites:
        """Make the composites with these numbers, (B,) of 0, 1, 2, ...; each depends on its number and the seed alone.

        Every len(pool) numbers go once through everything, in a new order.
        """
        return next(self.batches([samples], seed))

    def batches(self, groups: Iterable[Sequence[int]], seed: int = 0) -> Iterator[Composites]:
        """Yield :meth:`composites` of each group of numbers; images on disk are read ahead of their use."""
        groups, same_groups = tee(groups)
        for samples, made in zip(groups, self._batches(same_groups, seed), strict=True):
            yield loosen(made, samples, seed, self.loose) if self.loose else made

    def _batches(self, groups: Iterable[Sequence[int]], seed: int) -> Iterator[Composites]:
        plans = (self._plan(samples, seed) for samples in groups)
        if self.resident:
            for plan in plans:
                index = torch.from_numpy(plan.index).to(self.device)
                yield self._compose(plan, *(images[index] for images in self.resident))
            return
        plans, coming = tee(plans)
        with ThreadPoolExecutor() as executor:
            try:
                reads = ahead(executor, self._read, (index for plan in coming for index in plan.index), READ_AHEAD)
                for plan in plans:
                    yield self._compose(plan, *_stack(islice(reads, len(plan.index))))
            finally:  # the consumer may stop early, or a file may turn out damaged
                executor.shutdown(cancel_futures=True)

    def _keep(self, images: Iterable[tuple[np.ndarray, ...]]) -> None:
        """Keep all images, in the order of the index, on the device."""
        self.resident = tuple(images.to(self.device) for images in _stack(images))

    def _read_all(self, function: Callable[[int], Result], count: int) -> Iterator[Result]:
        with ThreadPoolExecutor() as executor:
            results = executor.map(function, range(count))
            yield from tqdm(results, desc=f"reading {self._description}", unit="image", total=count, delay=5)

    def _numbers(self, samples: Sequence[int], seed: int) -> np.ndarray:
        return np.array([_order(len(self), seed, s // len(self))[s % len(self)] for s in samples])


class TripletPool(Pool):
    """The triplets of a data set in iHarmony4 layout, squeezed to a square, as they are: no crops, no flips.

    Args:
        root: the folder, or "mini".
        part: of the train list: "train" or "validation"; a real photo goes to the validation part, with all its
            composites, when the CRC-32 of its name is divisible by 20.
        size: side of the images in pixels.
        device: where the composites are wanted.
        resident: as in :class:`PhotoPool`.
        loose: share of the composites whose mask misses the border (:func:`loosen`).

    Raises:
        ValueError: there is no train list, or a file is missing.
    """

    def __init__(
        self,
        root: str | Path,
        part: str = "train",
        size: int = 256,
        device: str | torch.device = "cpu",
        resident: bool | None = None,
        loose: float = 0.0,
    ) -> None:
        super().__init__(part, size, device, "triplets", loose)
        triplets = list_triplets(root, "train")
        held_out = _held_out([triplet.photo for triplet in triplets])
        self._triplets = [t for t, out in zip(triplets, held_out, strict=True) if out == (part == "validation")]
        if not self._triplets:
            raise ValueError(f"{root}: the train list has one real photo only, which leaves no {part} part.")
        if resident if resident is not None else len(self) * size**2 * 7 <= RESIDENT_LIMIT:
            self._keep(self._read_all(self._read, len(self)))

    def __len__(self) -> int:
        return len(self._triplets)

    def _read(self, index: int) -> tuple[np.ndarray, ...]:
        composite, mask, real = self._triplets[index].read(self.size, background="real")
        return np.array(composite), mask.astype(np.uint8), np.array(real)

    def _plan(self, samples: Sequence[int], seed: int) -> _Whole:
        return _Whole(self._numbers(samples, seed))

    def _compose(self, plan: _Whole, *images: Tensor) -> Composites:
        composite, mask, real = (image.to(self.device, non_blocking=True).float() for image in images)
        composite, real = (image.permute(0, 3, 1, 2) / 255 * 2 - 1 for image in (composite, real))
        return Composites(composite, mask.unsqueeze(1), real)


class PhotoPool(Pool):
    """Photos with one mask each, squeezed to a square; composites are made on the fly.

    Random crop and flip; one foreground in six is the surroundings of the object instead of the object, which
    gives large foregrounds. The recipe is drawn by :data:`MIX` and mixed with the photo at sqrt(U(0, 1)); what
    is not plausible is replaced by a mild change of light.

    Args:
        table: a CSV file with the columns ``image`` (path relative to the CSV) and ``masks`` (paths, separated
            by spaces; a photo without any gets one by :func:`~hdnet_lib.data.masks.make_mask`).
        part: "train" or "validation". A photo goes to the validation part, with all its masks, when
            the CRC-32 of its name is divisible by 20: about 5 % of the photos, the same in every run. At
            least one does.
        size: side of the training images; the pool keeps 1/16 more, for random crops.
        device: where the composites are made.
        resident: keep the images as uint8 on the device, or read them anew for each batch, ahead of
            its use; by default, whether they fit in :data:`RESIDENT_LIMIT`. Both give the same composites.
        loose: share of the composites whose mask misses the border (:func:`loosen`).

    Raises:
        ValueError: the table cannot be used, or an image cannot be read; the sentence says why.
    """

    def __init__(
        self,
        table: str | Path,
        part: str = "train",
        size: int = 256,
        device: str | torch.device = "cpu",
        resident: bool | None = None,
        loose: float = 0.0,
    ) -> None:
        super().__init__(part, size, device, "photos", loose)
        self.side = size + size // 16
        self._folder, self._pairs = Path(table).parent, _pairs(Path(table), part)
        if resident is None:
            resident = len(self._pairs) * self.side**2 * 4 <= RESIDENT_LIMIT
        kinds, borders, usable, kept = [], [], [], []
        for index, images in enumerate(self._read_all(self._read if resident else self._read_mask, len(self._pairs))):
            mask = (images[1] if resident else images) > 127
            if SMALLEST_RATIO < mask.mean() < LARGEST_RATIO:
                usable.append(index)
                kinds.append(kind(mask))
                borders.append(_border(mask))
                if resident:
                    kept.append(images)
        if not usable:
            raise ValueError(
                f"{table}: no mask of the {part} part covers between {SMALLEST_RATIO:.1%} and {LARGEST_RATIO:.0%} of "
                "its photo."
            )
        self._pairs = [self._pairs[index] for index in usable]
        self._photo_of = np.unique([str(photo) for photo, _ in self._pairs], return_inverse=True)[1]
        self._kinds, self._borders = np.stack(kinds), np.stack(borders)
        if resident:
            self._keep(kept)

    def __len__(self) -> int:
        return len(self._pairs)

    def photos(self, samples: Sequence[int], seed: int = 0) -> list[str]:
        """The photo of each of these composites: its path, from the table's folder where it lies in there."""
        paths = (self._pairs[index][0] for index in self._numbers(samples, seed))
        inside = self._folder
        return [(path.relative_to(inside) if path.is_relative_to(inside) else path).as_posix() for path in paths]

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        photo, mask = self._pairs[index]
        image = read_photo(photo, "photo").convert("RGB")
        pixels = np.array(image.resize((self.side, self.side), Image.Resampling.BICUBIC))
        if mask is None:
            return pixels, make_mask(pixels, zlib.crc32(photo.name.encode()))
        return pixels, self._read_mask(index, image.size)

    def _read_mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        path = self._pairs[index][1]
        if path is None:
            return self._read(index)[1]
        mask = Image.fromarray((read_mask(path, "mask") * 255).astype(np.uint8))
        if size and mask.size != size:
            raise ValueError(f"mask {path} is {mask.width}x{mask.height}, its photo {size[0]}x{size[1]}.")
        return np.array(mask.resize((self.side, self.side), Image.Resampling.BILINEAR))

    def _plan(self, samples: Sequence[int], seed: int) -> _Drawn:
        """Draw everything: a row of random numbers for each sample, from a generator of its own."""
        uniform = np.stack([_random(seed, 1, sample, DRAWS + CANDIDATES + 8) for sample in samples])
        recolouring, candidates, free = np.split(uniform, [DRAWS, DRAWS + CANDIDATES], axis=1)
        photo = self._numbers(samples, seed)
        candidates = (candidates * len(self)).astype(int)
        distance = np.linalg.norm(self._kinds[candidates] - self._kinds[photo][:, None], axis=-1)
        distance[self._photo_of[candidates] == self._photo_of[photo][:, None]] = np.inf
        reference = candidates[np.arange(len(photo)), distance.argmin(axis=1)]
        recipe = np.searchsorted(np.cumsum([MIX.get(name, 0) for name in RECIPES])[:-1], free[:, 0], side="right")
        return _Drawn(
            index=np.concatenate([photo, reference]),
            corner=np.concatenate([self._corner(photo, free[:, 1:3]), self._corner(reference, free[:, 3:5])]),
            flip=free[:, 5] < 0.5,
            invert=free[:, 6] < 1 / 6,
            recipe=recipe,
            strength=np.sqrt(free[:, 7]),
            uniform=recolouring,
        )

    def _corner(self, index: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Upper left corners (B, 2) of crops that keep a piece of the mask's border, so no region is lost."""
        border = self._borders[index]  # (B, 2 pixels, 2)
        low = np.maximum(border.max(axis=1) - self.size + 1, 0)
        high = np.minimum(border.min(axis=1), self.side - self.size)
        return low + (uniform * (high - low + 1)).astype(int)

    def _compose(self, plan: _Drawn, photos: Tensor, masks: Tensor) -> Composites:
        """Crop, flip and recolour."""
        rows, columns = (torch.from_numpy(plan.corner[:, axis, None] + np.arange(self.size)) for axis in (0, 1))
        flip = torch.from_numpy(np.tile(plan.flip, 2))
        columns = torch.where(flip[:, None], columns.flip(1), columns)
        invert = torch.from_numpy(np.tile(plan.invert, 2)).view(-1, 1, 1, 1)
        photos, masks, rows, columns, invert = (
            x.to(self.device, non_blocking=True) for x in (photos, masks, rows, columns, invert)
        )
        window = (torch.arange(len(photos), device=self.device)[:, None, None], rows[:, :, None], columns[:, None])
        photos = photos[window].permute(0, 3, 1, 2).float() / 255
        masks = ((masks[window].unsqueeze(1) > 127) ^ invert).float()
        (photo, reference), (mask, reference_mask) = photos.chunk(2), masks.chunk(2)

        uniform = torch.from_numpy(plan.uniform)
        strength = torch.from_numpy(plan.strength).to(photo).view(-1, 1, 1, 1)
        recoloured = torch.empty_like(photo)
        for number in np.unique(plan.recipe):
            chosen = torch.from_numpy(np.flatnonzero(plan.recipe == number))
            here = chosen.to(self.device)
            recoloured[here] = recolour(
                RECIPES[number], photo[here], mask[here], reference[here], reference_mask[here], uniform[chosen]
            )
        composite = torch.lerp(photo, recoloured, strength)
        keep = plausible(measure(composite, photo, mask), _TRAINING_LIMITS).view(-1, 1, 1, 1)
        mild = recolour("illuminant", photo, mask, reference, reference_mask, 0.25 + 0.5 * uniform)
        composite = torch.where(keep, composite, torch.lerp(photo, mild, strength))
        return Composites(composite * 2 - 1, mask, photo * 2 - 1)


def loosen(made: Composites, samples: Sequence[int], seed: int, share: float) -> Composites:
    """Composites as people make them: the mask is not quite that of the object, and the object fades out at its border.

    A network that is always given the exact mask learns to read the jump of colours along it, and is lost without.
    Of a ``share`` of the composites the mask that the network gets is grown or shrunk (:data:`LOOSE_BY`), and the
    foreground fades into the real photo inside the true mask (:data:`FEATHERED_OVER`); each is drawn by the
    composite's number and the seed. A mask that would vanish, or cover everything, stays as it is.
    """
    drawn = np.stack([_random(seed, 3, sample, 3) for sample in samples])
    by, over = (
        torch.from_numpy((drawn[:, column] * len(choices)).astype(int)).to(made.mask.device)
        for column, choices in ((1, LOOSE_BY), (2, FEATHERED_OVER))
    )
    each = torch.arange(len(samples), device=made.mask.device)
    given, opacity = (
        torch.stack([function(made.mask, pixels) for pixels in choices])[chosen, each]
        for function, choices, chosen in ((grow_mask, LOOSE_BY, by), (feather, FEATHERED_OVER, over))
    )
    mean = given.mean(dim=(1, 2, 3), keepdim=True)
    given = torch.where((mean > 0) & (mean < 1), given, made.mask)
    loose = torch.from_numpy(drawn[:, 0] < share).to(made.mask.device).view(-1, 1, 1, 1)
    composite = torch.lerp(made.real, made.composite, torch.where(loose, opacity, 1.0))
    return Composites(composite, torch.where(loose, given, made.mask), made.real)


def _stack(images: Iterable[tuple[np.ndarray, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.stack(same)) for same in zip(*images, strict=True))


def _random(seed: int, stream: int, number: int, count: int) -> np.ndarray:
    """``count`` numbers in (0, 1) that depend on the three others alone (Philox, a counter-based generator)."""
    generator = np.random.Generator(np.random.Philox(key=[seed, (stream << 56) + number]))
    return generator.random(count).clip(1e-6, 1 - 1e-6)


@lru_cache(maxsize=4)
def _order(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.argsort(_random(seed, 2, epoch, length), kind="stable")


def _border(mask: np.ndarray) -> np.ndarray:
    """Two neighbouring pixels (row, column), one inside the mask and one outside, from the middle of its border."""
    down, right = np.argwhere(mask[1:] != mask[:-1]), np.argwhere(mask[:, 1:] != mask[:, :-1])
    steps = np.repeat([[1, 0], [0, 1]], [len(down), len(right)], axis=0)
    first = np.concatenate([down, right])
    middle = len(first) // 2
    return np.stack([first[middle], first[middle] + steps[middle]])


def _held_out(photos: Sequence[str]) -> list[bool]:
    """Whether each photo belongs to the validation part: one in 20, by its name, and at least one."""
    checksums = {photo: zlib.crc32(photo.encode()) for photo in photos}
    chosen = {photo for photo, value in checksums.items() if value % 20 == 0} or {min(checksums, key=checksums.get)}
    return [photo in chosen for photo in photos]


def read_table(table: Path) -> list[tuple[str, list[str]]]:
    """The photos and masks of a pool's table: paths relative to it, as they stand there.

    Raises:
        ValueError: the table cannot be used, or names a file that does not exist.
    """
    if not table.is_file():
        raise ValueError(f"{table}: there is no such file; a pool is a CSV file with the columns image and masks.")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{table}: the table cannot be read: {reason(error)}.") from None
    if not rows or not {"image", "masks"} <= rows[0].keys():
        raise ValueError(f"{table}: needs the columns image and masks, separated by a comma, and at least one row.")
    if surplus := [row["image"] for row in rows if None in row]:
        raise ValueError(f"{table}: the row of {surplus[0]} has too many commas: separate masks by spaces.")
    photos = [(Path(row["image"]).as_posix(), (row["masks"] or "").split()) for row in rows]
    for name in dict.fromkeys(name for photo, masks in photos for name in (photo, *masks)):
        if not (table.parent / name).is_file():
            raise ValueError(f"{table}: names {table.parent / name}, which does not exist.")
    return photos


def _pairs(table: Path, part: str) -> list[tuple[Path, Path | None]]:
    """The photos of one part, each with each of its masks, or with None."""
    photos = read_table(table)
    if len(photos) < 2:
        raise ValueError(f"{table}: needs at least two photos: one is kept aside for validation.")
    held_out = _held_out([photo for photo, _ in photos])
    chosen = [row for row, out in zip(photos, held_out, strict=True) if out == (part == "validation")]
    if not chosen:
        raise ValueError(f"{table}: every photo falls into the validation part: add photos.")
    return [
        (table.parent / photo, table.parent / mask if mask else None)
        for photo, masks in chosen
        for mask in masks or [None]
    ]
