"""Photos and masks for training, from which composites are made on the fly."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdnet_lib.composites.photo_table import photo_mask_pairs
from hdnet_lib.composites.plausibility import LIMITS, measure, plausible
from hdnet_lib.composites.recipes import DRAWS, RECIPES, recolor
from hdnet_lib.data import dataset
from hdnet_lib.data.dataset import CompositeDataset
from hdnet_lib.data.images import read_mask, read_rgb, to_signed
from hdnet_lib.data.masks import make_mask, mask_descriptor
from hdnet_lib.data.samples import Batch
from hdnet_lib.utils.counter_rng import counter_random

SMALLEST_RATIO, LARGEST_RATIO = 0.002, 0.95
"""Masks that cover less or more of the photo are left out."""
MIX = {"reinhard": 0.25, "xiao": 0.15, "histogram": 0.15, "photometric": 0.2, "curves": 0.15, "illuminant": 0.1}
"""Share of each recipe in training. ``idt`` has none: it costs about three times as much as the slowest other."""
CANDIDATES = 16
"""So many masks are drawn as reference, and the one most like the foreground in size and place is taken."""
# A network that never sees a good composite learns to change every one, so nearly unchanged ones stay in.
_TRAINING_LIMITS = LIMITS._replace(change=(0.0, LIMITS.change[1]))


@dataclass
class _Drawn:
    """All that was drawn for a batch; arrays with one row for each composite, or two."""

    index: np.ndarray
    """The photos, and then their references."""
    corner: np.ndarray
    """Of the crops, for the same."""
    flip: np.ndarray
    invert: np.ndarray
    recipe: np.ndarray
    strength: np.ndarray
    uniform: np.ndarray


class PhotoDataset(CompositeDataset):
    """Photos with one mask each, squeezed to a square; composites are made on the fly.

    Random crop and flip; one foreground in six is the surroundings of the object instead of the object, which
    gives large foregrounds. What a recipe gives is mixed with the photo at sqrt(U(0, 1)); what is not plausible is
    replaced by a mild change of light.

    Args:
        table: a CSV file with the columns ``image`` (path relative to the CSV) and ``masks`` (paths, separated
            by spaces; a photo without any gets one by :func:`~hdnet_lib.data.masks.make_mask`).
        split: "train" or "validation". A photo goes to the validation split, with all its masks, when
            the CRC-32 of its name is divisible by 20: about 5 % of the photos, the same in every run. At
            least one does.
        size: side of the training images; the data set keeps 1/16 more, for random crops.
        device: where the composites are made.
        resident: see :class:`~hdnet_lib.data.dataset.TripletDataset`.
        mask_jitter: share of the composites whose mask misses the border (:func:`~hdnet_lib.data.jitter.jitter_masks`).
        recipe: "mix", to draw from :data:`MIX` for each composite, or one of
            :data:`~hdnet_lib.composites.recipes.RECIPES` for all.

    Raises:
        ValueError: the table cannot be used, or an image cannot be read; the sentence says why.
    """

    def __init__(
        self,
        table: str | Path,
        split: str = "train",
        size: int = 256,
        device: str | torch.device = "cpu",
        resident: bool | None = None,
        mask_jitter: float = 0.0,
        recipe: str = "mix",
    ) -> None:
        super().__init__(split, size, device, "photos", mask_jitter)
        if recipe not in ("mix", *RECIPES):
            raise ValueError(f"there is no recipe called {recipe!r}, only mix, {', '.join(RECIPES)}.")
        self.side, self.recipe = size + size // 16, recipe
        self._folder, self._pairs = Path(table).parent, photo_mask_pairs(Path(table), split)
        if resident is None:
            resident = len(self._pairs) * self.side**2 * 4 <= dataset.RESIDENT_LIMIT
        descriptors, borders, usable, kept = [], [], [], []
        read = self._read if resident else lambda index: (self._read_mask(index),)
        for index, images in enumerate(self._read_all(read, len(self._pairs))):
            mask = images[-1] > 127
            if SMALLEST_RATIO < mask.mean() < LARGEST_RATIO:
                usable.append(index)
                descriptors.append(mask_descriptor(mask))
                borders.append(_border(mask))
                if resident:
                    kept.append(images)
        if not usable:
            raise ValueError(
                f"{table}: no mask of the {split} split covers between {SMALLEST_RATIO:.1%} and {LARGEST_RATIO:.0%} of "
                "its photo."
            )
        self._pairs = [self._pairs[index] for index in usable]
        self._photo_of = np.unique([str(photo) for photo, _ in self._pairs], return_inverse=True)[1]
        self._descriptors, self._borders = np.stack(descriptors), np.stack(borders)
        if resident:
            self._keep(kept)

    def __len__(self) -> int:
        return len(self._pairs)

    def photos(self, numbers: Sequence[int], seed: int = 0) -> list[str]:
        """The photo of each of these composites: its path, from the table's folder where it lies in there."""
        paths = (self._pairs[index][0] for index in self._indices(numbers, seed))
        inside = self._folder
        return [(path.relative_to(inside) if path.is_relative_to(inside) else path).as_posix() for path in paths]

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        photo, mask = self._pairs[index]
        image = read_rgb(photo, "photo")
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

    def _plan(self, numbers: Sequence[int], seed: int) -> _Drawn:
        """Draw everything: a row of random numbers for each composite, from a generator of its own."""
        uniform = np.stack([counter_random(seed, 1, number, DRAWS + CANDIDATES + 8) for number in numbers])
        recoloring, candidates, free = np.split(uniform, [DRAWS, DRAWS + CANDIDATES], axis=1)
        photo = self._indices(numbers, seed)
        candidates = (candidates * len(self)).astype(int)
        distance = np.linalg.norm(self._descriptors[candidates] - self._descriptors[photo][:, None], axis=-1)
        distance[self._photo_of[candidates] == self._photo_of[photo][:, None]] = np.inf
        reference = candidates[np.arange(len(photo)), distance.argmin(axis=1)]
        mix = MIX if self.recipe == "mix" else {self.recipe: 1.0}
        recipe = np.searchsorted(np.cumsum([mix.get(name, 0) for name in RECIPES])[:-1], free[:, 0], side="right")
        return _Drawn(
            index=np.concatenate([photo, reference]),
            corner=np.concatenate([self._corner(photo, free[:, 1:3]), self._corner(reference, free[:, 3:5])]),
            flip=free[:, 5] < 0.5,
            invert=free[:, 6] < 1 / 6,
            recipe=recipe,
            strength=np.sqrt(free[:, 7]),
            uniform=recoloring,
        )

    def _corner(self, index: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Upper left corners (B, 2) of crops that keep a piece of the mask's border, so no region is lost."""
        border = self._borders[index]  # (B, 2 pixels, 2)
        low = np.maximum(border.max(axis=1) - self.size + 1, 0)
        high = np.minimum(border.min(axis=1), self.side - self.size)
        return low + (uniform * (high - low + 1)).astype(int)

    def _compose(self, plan: _Drawn, photos: Tensor, masks: Tensor) -> Batch:
        """Crop, flip and recolor."""
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
        recolored = torch.empty_like(photo)
        for recipe in np.unique(plan.recipe):
            chosen = torch.from_numpy(np.flatnonzero(plan.recipe == recipe))
            here = chosen.to(self.device)
            recolored[here] = recolor(
                RECIPES[recipe], photo[here], mask[here], reference[here], reference_mask[here], uniform[chosen]
            )
        composite = torch.lerp(photo, recolored, strength)
        keep = plausible(measure(composite, photo, mask), _TRAINING_LIMITS).view(-1, 1, 1, 1)
        mild = recolor("illuminant", photo, mask, reference, reference_mask, 0.25 + 0.5 * uniform)
        composite = torch.where(keep, composite, torch.lerp(photo, mild, strength))
        return Batch(to_signed(composite), mask, to_signed(photo))


def _border(mask: np.ndarray) -> np.ndarray:
    """Two neighbouring pixels (row, column), one inside the mask and one outside, from the middle of its border."""
    down, right = np.argwhere(mask[1:] != mask[:-1]), np.argwhere(mask[:, 1:] != mask[:, :-1])
    steps = np.repeat([[1, 0], [0, 1]], [len(down), len(right)], axis=0)
    first = np.concatenate([down, right])
    middle = len(first) // 2
    return np.stack([first[middle], first[middle] + steps[middle]])
