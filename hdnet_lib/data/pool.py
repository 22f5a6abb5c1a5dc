"""A pool of real photos and masks in memory, from which training composites are made on the fly."""

import csv
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from hdnet_lib.data.recipes import Photometric, draw_photometric, photometric, reinhard
from hdnet_lib.images import open_image

SMALLEST_RATIO, LARGEST_RATIO = 0.002, 0.95
"""Masks that cover less or more of the photo are left out of a pool."""


class PhotoPool:
    """Photos with one mask each, squeezed to a square and kept as uint8.

    Args:
        table: a CSV file with the columns ``image`` (path relative to the CSV) and ``masks`` (one or
            more paths, separated by spaces). Photos without a mask are left out.
        part: "train" or "validation". A photo goes to the validation part, with all its masks, when
            the CRC-32 of its name is divisible by 20: about 5 % of the photos, the same in every run. At
            least one does.
        size: side of the training images; the pool keeps 1/16 more, for random crops.

    Raises:
        ValueError: the table cannot be used; the sentence says why.
    """

    def __init__(self, table: str | Path, part: str = "train", size: int = 256) -> None:
        self.size = size
        side = size + size // 16
        pairs = _read_table(Path(table), validation=part == "validation")
        photos = np.empty((len(pairs), side, side, 3), np.uint8)
        masks = np.empty((len(pairs), side, side), np.uint8)
        for index, (photo, mask) in enumerate(tqdm(pairs, desc=f"reading {part} photos", unit="photo")):
            photos[index] = open_image(photo, "photo").convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            masks[index] = open_image(mask, "mask").convert("L").resize((side, side), Image.Resampling.BILINEAR)
        ratios = (masks > 127).mean(axis=(1, 2))
        usable = (ratios > SMALLEST_RATIO) & (ratios < LARGEST_RATIO)
        if not usable.any():
            raise ValueError(
                f"{table}: no mask of the {part} part covers between {SMALLEST_RATIO} and {LARGEST_RATIO}."
            )
        self.photos = torch.from_numpy(photos[usable]).permute(0, 3, 1, 2)
        self.masks = torch.from_numpy(masks[usable]).unsqueeze(1)

    def __len__(self) -> int:
        return len(self.photos)

    def batch(self, count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw composites: composite (B, 3, size, size) and real in [-1, 1], mask (B, 1, size, size) 0 or 1.

        Random crop and flip; one foreground in six is the surroundings of the object instead of the
        object, which gives large foregrounds. Two in five get Reinhard transfer from another photo of
        the batch, the others the photometric chain; each is mixed with the photo at U(0, 1), since a
        network that never sees a good composite learns to change every one.
        """
        photo, mask = self._crops(count, size, generator)
        reference, reference_mask = photo.roll(1, 0), mask.roll(1, 0)
        transfer = torch.rand(count, generator=generator) < 0.4
        strength = torch.rand(count, 1, 1, 1, generator=generator)
        settings = draw_photometric(count, photo, generator)

        recoloured = torch.empty_like(photo)
        region = (photo[transfer], mask[transfer])
        recoloured[transfer] = reinhard(*region, reference[transfer], reference_mask[transfer])
        chosen = Photometric(*(value[~transfer] for value in settings))
        recoloured[~transfer] = photometric(photo[~transfer], mask[~transfer], chosen)
        composite = torch.lerp(photo, recoloured, strength)
        return composite * 2 - 1, mask, photo * 2 - 1

    def _crops(self, count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        photos, masks = [], []
        margin = self.photos.shape[-1] - self.size
        for _ in range(100 * count):
            if len(photos) == count:
                break
            index, top, left, flip, invert = (
                int(torch.randint(high, (1,), generator=generator))
                for high in (len(self), margin + 1, margin + 1, 2, 6)
            )
            window = (..., slice(top, top + self.size), slice(left, left + self.size))
            photo, mask = self.photos[index][window].float() / 255, self.masks[index][window].float() / 255
            if size != self.size:
                photo = torch.nn.functional.avg_pool2d(photo, self.size // size)
                mask = torch.nn.functional.avg_pool2d(mask, self.size // size)
            mask = (mask > 0.5).float()
            if not 0 < mask.mean() < 1:  # cut away by the crop
                continue
            if invert == 0:
                mask = 1 - mask
            photos.append(photo.flip(-1) if flip else photo)
            masks.append(mask.flip(-1) if flip else mask)
        if len(photos) < count:
            raise ValueError(f"the masks are too thin for training at {size} pixels: crops lose nearly all of them.")
        return torch.stack(photos), torch.stack(masks)


def _read_table(table: Path, validation: bool) -> list[tuple[Path, Path]]:
    if not table.is_file():
        raise ValueError(f"{table}: there is no such file; a pool is a CSV file with the columns image and masks.")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "masks"} <= rows[0].keys():
        raise ValueError(f"{table}: needs the columns image and masks and at least one row.")
    rows = [row for row in rows if (row["masks"] or "").split()]
    if len(rows) < 2:
        raise ValueError(f"{table}: needs at least two photos with a mask: one is kept aside for validation.")
    checksums = [zlib.crc32(row["image"].encode()) for row in rows]
    # A small pool may have no photo whose checksum is divisible: then the one with the smallest is kept aside.
    held_out = {index for index, value in enumerate(checksums) if value % 20 == 0} or {checksums.index(min(checksums))}
    chosen = [row for index, row in enumerate(rows) if (index in held_out) == validation]
    if not chosen:
        raise ValueError(f"{table}: every photo falls into the validation part: add photos.")
    pairs = [(table.parent / row["image"], table.parent / mask) for row in chosen for mask in row["masks"].split()]
    for path in {path for pair in pairs for path in pair}:
        if not path.is_file():
            raise ValueError(f"{table}: names {path}, which does not exist.")
    return pairs
