"""What is scored: the composites of a data set, or new ones of the validation photos of a training table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from hdnet_lib.composites.mini import find_data
from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.data.iharmony4 import Triplets, spread
from hdnet_lib.data.samples import Sample, to_batch, to_samples
from hdnet_lib.utils.files import stamp

VALIDATION_SEED = 1
"""Training draws the validation composites that choose its weights with seed 0."""


class Validation(Sequence[Sample]):
    """Composites of the validation photos of a table; those that equal the photo are left out.

    Others than those that choose the weights in training, but of the same photos: a comparison of runs, no test.

    Args:
        table: see :class:`~hdnet_lib.composites.photo_dataset.PhotoDataset`.
        size: side in pixels.
        limit: at most this many, spread evenly; 0 for all.
        rounds: composites of each mask.

    Raises:
        ValueError: see :class:`~hdnet_lib.composites.photo_dataset.PhotoDataset`.
    """

    def __init__(self, table: str | Path, size: int = 256, limit: int = 0, rounds: int = 2) -> None:
        self.table, self.size, self.dataset = Path(table), size, PhotoDataset(table, "validation", size)
        numbers = range(rounds * len(self.dataset))
        photos = self.dataset.photos(numbers, VALIDATION_SEED)
        changed = [number for number in numbers if self._images(number) is not None]
        self.numbers = [changed[index] for index in spread(len(changed), limit)]
        self.names = [str(number) for number in self.numbers]
        self.photos = [photos[number] for number in self.numbers]

    def sources(self) -> list:
        """What changes when a composite does: its number and photo, and size and date of the table."""
        return [stamp(self.table), *zip(self.names, self.photos, strict=True)]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        images = self._images(self.numbers[index])
        assert images is not None  # only numbers whose composite differs from the photo were kept
        return Sample(*images, self.names[index], "validation", self.photos[index])

    def _images(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        composite, mask, real = to_samples(self.dataset.composites([number], VALIDATION_SEED))[0][:3]
        return None if np.array_equal(composite, real) else (composite, mask, real)


def open_examples(
    data: str | Path, split: str = "test", size: int = 256, partial: bool = False, limit: int = 0
) -> Triplets | Validation:
    """A CSV table of photos and masks gives its :class:`Validation` composites; a folder, or "mini", its triplets."""
    if str(data).endswith(".csv"):
        return Validation(data, size, limit)
    return Triplets(find_data(data), split, size, partial, limit)


def calibration_composites(data: str | Path, count: int = 32) -> list[tuple[Tensor, Tensor]]:
    """Composites and masks for :func:`~hdnet_lib.inference.onnx.export_onnx`.

    They are of a training list, or of a table's validation photos.

    Raises:
        ValueError: see :func:`open_examples`.
    """
    examples = open_examples(data, "train", limit=count)
    return [to_batch(example)[:2] for example in examples]
