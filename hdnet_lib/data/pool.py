"""A pool of real photos and masks, from which training composites are made on the fly."""

import csv
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from hdnet_lib.data.masks import kind, make_mask
from hdnet_lib.data.plausibility import LIMITS, measure, plausible
from hdnet_lib.data.recipes import DRAWS, RECIPES, recolour
from hdnet_lib.images import open_image

SMALLEST_RATIO, LARGEST_RATIO = 0.002, 0.95
"""Masks that cover less or more of the photo are left out of a pool."""
RESIDENT_LIMIT = 4 * 2**30
"""A pool of at most so many bytes is kept in memory; a larger one is read again and again."""
MIX = {"reinhard": 0.25, "xiao": 0.15, "histogram": 0.15, "photometric": 0.2, "curves": 0.15, "illuminant": 0.1}
"""Share of each recipe in training. ``idt`` has none: it costs as much as all others together."""
CANDIDATES = 16
"""So many masks are drawn as reference, and the one most like the foreground in size and place is taken."""
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


class _Plan(NamedTuple):
    """All that was drawn for a batch; arrays with one row for each sample."""

    photo: np.ndarray
    reference: np.ndarray
    corner: np.ndarray
    reference_corner: np.ndarray
    flip: np.ndarray
    invert: np.ndarray
    recipe: np.ndarray
    strength: np.ndarray
    uniform: np.ndarray


class PhotoPool:
    """Photos with one mask each, squeezed to a square.

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
    ) -> None:
        self.size, self.device = size, torch.device(device)
        self.side = size + size // 16
        self._pairs = _read_table(Path(table), validation=part == "validation")
        if resident is None:
            resident = len(self._pairs) * self.side**2 * 4 <= RESIDENT_LIMIT

        kinds, borders, photos, masks, usable = [], [], [], [], []
        with ThreadPoolExecutor() as executor:
            images = executor.map(self._read if resident else self._read_mask, range(len(self._pairs)))
            for index, image in enumerate(
                tqdm(images, desc=f"reading {part} photos", unit="photo", total=len(self._pairs), delay=5)
            ):
                mask = image[1] if resident else image
                if not SMALLEST_RATIO < (mask > 127).mean() < LARGEST_RATIO:
                    continue
                usable.append(index)
                kinds.append(kind(mask > 127))
                borders.append(_border(mask > 127))
                if resident:
                    photos.append(torch.from_numpy(image[0]))
                    masks.append(torch.from_numpy(mask))
        if not usable:
            raise ValueError(
                f"{table}: no mask of the {part} part covers between {SMALLEST_RATIO} and {LARGEST_RATIO}."
            )
        self._pairs = [self._pairs[index] for index in usable]
        self._photo_of = np.unique([str(photo) for photo, _ in self._pairs], return_inverse=True)[1]
        self._kinds, self._borders = np.stack(kinds), np.stack(borders)
        self.photos = torch.stack(photos).to(self.device) if resident else None  # (N, S, S, 3) uint8
        self.masks = torch.stack(masks).to(self.device) if resident else None  # (N, S, S) uint8

    def __len__(self) -> int:
        return len(self._pairs)

    def composites(self, samples: Sequence[int], seed: int = 0) -> Composites:
        """Make the composites with these numbers, (B,) of 0, 1, 2, ...; each depends on its number and the seed alone.

        Every len(pool) numbers go once through all photos, in a new order. Random crop and flip; one foreground
        in six is the surroundings of the object instead of the object, which gives large foregrounds. The
        recipe is drawn by :data:`MIX` and mixed with the photo at sqrt(U(0, 1)); what is not plausible is replaced
        by a mild change of light.
        """
        plan = self._plan(samples, seed)
        if self.photos is None:
            with ThreadPoolExecutor() as executor:
                return self._compose(plan, *_stack(executor.map(self._read, [*plan.photo, *plan.reference])))
        return self._resident(plan)

    def batches(self, batch_size: int, samples: range, seed: int = 0, ahead: int = 4) -> Iterator[Composites]:
        """Yield :meth:`composites` of consecutive numbers; a pool on disk is read ``ahead`` batches ahead."""
        plans = (self._plan(samples[start : start + batch_size], seed) for start in range(0, len(samples), batch_size))
        if self.photos is not None:
            yield from map(self._resident, plans)
            return
        with ThreadPoolExecutor() as executor:
            waiting = deque()
            try:
                for plan in plans:
                    reads = [executor.submit(self._read, index) for index in (*plan.photo, *plan.reference)]
                    waiting.append((plan, reads))
                    if len(waiting) > ahead:
                        yield self._compose(*_finish(waiting.popleft()))
                while waiting:
                    yield self._compose(*_finish(waiting.popleft()))
            finally:  # the consumer may stop early, or a file may turn out damaged
                for _, reads in waiting:
                    for read in reads:
                        read.cancel()

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        photo, mask = self._pairs[index]
        image = open_image(photo, "photo").convert("RGB")
        pixels = np.array(image.resize((self.side, self.side), Image.Resampling.BICUBIC))
        if mask is None:
            return pixels, make_mask(pixels, zlib.crc32(photo.name.encode()))
        return pixels, self._read_mask(index)

    def _read_mask(self, index: int) -> np.ndarray:
        mask = self._pairs[index][1]
        if mask is None:
            return self._read(index)[1]
        return np.array(open_image(mask, "mask").convert("L").resize((self.side, self.side), Image.Resampling.BILINEAR))

    def _plan(self, samples: Sequence[int], seed: int) -> _Plan:
        """Draw everything: a row of random numbers for each sample, from a generator of its own."""
        uniform = np.stack([_random(seed, 1, sample, DRAWS + CANDIDATES + 9) for sample in samples])
        recolouring, candidates, free = np.split(uniform, [DRAWS, DRAWS + CANDIDATES], axis=1)
        photo = np.array([_order(len(self), seed, s // len(self))[s % len(self)] for s in samples])
        candidates = (candidates * len(self)).astype(int)
        distance = np.linalg.norm(self._kinds[candidates] - self._kinds[photo][:, None], axis=-1)
        distance[self._photo_of[candidates] == self._photo_of[photo][:, None]] = np.inf
        reference = candidates[np.arange(len(photo)), distance.argmin(axis=1)]
        recipe = np.searchsorted(np.cumsum([MIX.get(name, 0) for name in RECIPES])[:-1], free[:, 0], side="right")
        return _Plan(
            photo=photo,
            reference=reference,
            corner=self._corner(photo, free[:, 1:3]),
            reference_corner=self._corner(reference, free[:, 3:5]),
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

    def _resident(self, plan: _Plan) -> Composites:
        index = torch.from_numpy(np.concatenate([plan.photo, plan.reference])).to(self.device)
        return self._compose(plan, self.photos[index], self.masks[index])

    def _compose(self, plan: _Plan, photos: Tensor, masks: Tensor) -> Composites:
        """Crop, flip and recolour; ``photos`` and ``masks`` are those of the plan and then their references."""
        corner = np.concatenate([plan.corner, plan.reference_corner])
        rows, columns = (torch.from_numpy(corner[:, axis, None] + np.arange(self.size)) for axis in (0, 1))
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


def _stack(images: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    photos, masks = zip(*images, strict=True)
    return torch.from_numpy(np.stack(photos)), torch.from_numpy(np.stack(masks))


def _finish(job: tuple) -> tuple[_Plan, Tensor, Tensor]:
    plan, reads = job
    return plan, *_stack(read.result() for read in reads)


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


def _read_table(table: Path, validation: bool) -> list[tuple[Path, Path | None]]:
    if not table.is_file():
        raise ValueError(f"{table}: there is no such file; a pool is a CSV file with the columns image and masks.")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "masks"} <= rows[0].keys():
        raise ValueError(f"{table}: needs the columns image and masks and at least one row.")
    if len(rows) < 2:
        raise ValueError(f"{table}: needs at least two photos: one is kept aside for validation.")
    checksums = [zlib.crc32(row["image"].encode()) for row in rows]
    # A small pool may have no photo whose checksum is divisible: then the one with the smallest is kept aside.
    held_out = {index for index, value in enumerate(checksums) if value % 20 == 0} or {checksums.index(min(checksums))}
    chosen = [row for index, row in enumerate(rows) if (index in held_out) == validation]
    if not chosen:
        raise ValueError(f"{table}: every photo falls into the validation part: add photos.")
    pairs = [
        (table.parent / row["image"], table.parent / mask if mask else None)
        for row in chosen
        for mask in (row["masks"] or "").split() or [None]
    ]
    for path in {path for pair in pairs for path in pair if path is not None}:
        if not path.is_file():
            raise ValueError(f"{table}: names {path}, which does not exist.")
    return pairs
