"""What training reads: numbered composites, from images that are kept in memory or read anew."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hdnet_lib.data.iharmony4 import list_triplets
from hdnet_lib.data.images import to_signed
from hdnet_lib.data.jitter import jitter_masks
from hdnet_lib.data.samples import Batch
from hdnet_lib.data.splits import held_out
from hdnet_lib.utils.counter_rng import counter_random

Result = TypeVar("Result")

RESIDENT_LIMIT = 4 * 2**30
"""A data set of at most so many bytes is kept in memory; a larger one is read again and again."""
READ_AHEAD = 128
"""Images that are being read or wait for their batch, where a data set does not stay in memory."""


class CompositeDataset:
    """Numbered composites, squeezed to a square of ``size``, from images that are kept as uint8 or read anew.

    A subclass has ``__len__``; ``_plan(numbers, seed)``, which draws everything for a batch, and whose ``index``
    says which images it needs; ``_read(index)``, the uint8 images with that index; and ``_compose(plan, *images)``,
    which makes the batch from them.

    Args:
        split: "train" or "validation".
        size: side of the images in pixels.
        device: where the composites are made.
        things: what is read, for the progress bar.
        mask_jitter: share of the composites whose mask misses the border (:func:`~hdnet_lib.data.jitter.jitter_masks`).
    """

    def __init__(
        self, split: str, size: int, device: str | torch.device, things: str, mask_jitter: float = 0.0
    ) -> None:
        if split not in ("train", "validation"):
            raise ValueError(f"split must be train or validation, not {split!r}.")
        self.mask_jitter = mask_jitter
        self.size, self.device, self._description = size, torch.device(device), f"{split} {things}"
        self.resident: tuple[Tensor, ...] = ()
        """The images, where they are kept in memory."""

    def __len__(self) -> int:
        raise NotImplementedError

    def _plan(self, numbers: Sequence[int], seed: int) -> Any:  # with an attribute index
        raise NotImplementedError

    def _read(self, index: int) -> tuple[np.ndarray, ...]:
        raise NotImplementedError

    def _compose(self, plan: Any, *images: Tensor) -> Batch:
        raise NotImplementedError

    def composites(self, numbers: Sequence[int], seed: int = 0) -> Batch:
        """Make the composites with these numbers, (B,) of 0, 1, 2, ...; each depends on its number and the seed alone.

        Every len(dataset) numbers go once through everything, in a new order.
        """
        return next(self.batches([numbers], seed))

    def batches(self, groups: Iterable[Sequence[int]], seed: int = 0) -> Iterator[Batch]:
        """Yield :meth:`composites` of each group of numbers; images on disk are read ahead of their use."""
        plans = ((numbers, self._plan(numbers, seed)) for numbers in groups)
        for numbers, plan, images in self._with_images(plans):
            batch = self._compose(plan, *images)
            yield jitter_masks(batch, numbers, seed, self.mask_jitter) if self.mask_jitter else batch

    def _with_images(self, plans: Iterable[tuple]) -> Iterator[tuple[Sequence[int], Any, Sequence[Tensor]]]:
        if self.resident:
            for numbers, plan in plans:
                index = torch.from_numpy(plan.index).to(self.device)
                yield numbers, plan, [images[index] for images in self.resident]
            return
        with ThreadPoolExecutor() as executor:
            try:
                waiting: deque[tuple] = deque()
                for numbers, plan in plans:
                    waiting.append((numbers, plan, [executor.submit(self._read, index) for index in plan.index]))
                    while sum(len(reads) for _, _, reads in waiting) >= READ_AHEAD:
                        numbers, plan, reads = waiting.popleft()
                        yield numbers, plan, _stack(read.result() for read in reads)
                for numbers, plan, reads in waiting:
                    yield numbers, plan, _stack(read.result() for read in reads)
            finally:  # the consumer may stop early, or a file may turn out damaged
                executor.shutdown(cancel_futures=True)

    def _keep(self, images: Iterable[tuple[np.ndarray, ...]]) -> None:
        """Keep all images, in the order of the index, on the device."""
        self.resident = tuple(images.to(self.device) for images in _stack(images))

    def _read_all(self, function: Callable[[int], Result], count: int) -> Iterator[Result]:
        with ThreadPoolExecutor() as executor:
            results = executor.map(function, range(count))
            yield from tqdm(results, desc=f"reading {self._description}", unit="image", total=count, delay=5)

    def _indices(self, numbers: Sequence[int], seed: int) -> np.ndarray:
        """Which entry of the data set each numbered composite is made from."""
        return np.array([_order(len(self), seed, n // len(self))[n % len(self)] for n in numbers])


@dataclass
class _Whole:
    """A batch that takes its images as they are."""

    index: np.ndarray


class TripletDataset(CompositeDataset):
    """The triplets of a data set in iHarmony4 layout, squeezed to a square, as they are: no crops, no flips.

    Args:
        root: the folder, or "mini".
        split: of the train list: "train" or "validation"; a real photo goes to the validation split, with all its
            composites, by its name (:func:`~hdnet_lib.data.splits.held_out`).
        size: side of the images in pixels.
        device: where the composites are wanted.
        resident: keep the images in memory, or read them anew for each batch; by default, whether they fit in
            :data:`RESIDENT_LIMIT`. Both give the same composites.
        mask_jitter: share of the composites whose mask misses the border (:func:`~hdnet_lib.data.jitter.jitter_masks`).

    Raises:
        ValueError: there is no train list, or a file is missing.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        size: int = 256,
        device: str | torch.device = "cpu",
        resident: bool | None = None,
        mask_jitter: float = 0.0,
    ) -> None:
        super().__init__(split, size, device, "triplets", mask_jitter)
        triplets = list_triplets(root, "train")
        out = held_out([triplet.photo for triplet in triplets])
        self._triplets = [t for t, is_out in zip(triplets, out, strict=True) if is_out == (split == "validation")]
        if not self._triplets:
            raise ValueError(f"{root}: the train list has one real photo only, which leaves no {split} split.")
        if resident if resident is not None else len(self) * size**2 * 7 <= RESIDENT_LIMIT:
            self._keep(self._read_all(self._read, len(self)))

    def __len__(self) -> int:
        return len(self._triplets)

    def _read(self, index: int) -> tuple[np.ndarray, ...]:
        sample = self._triplets[index].read(self.size, background="real")
        return np.array(sample.composite), sample.mask.astype(np.uint8), np.array(sample.real)

    def _plan(self, numbers: Sequence[int], seed: int) -> _Whole:
        return _Whole(self._indices(numbers, seed))

    def _compose(self, plan: _Whole, *images: Tensor) -> Batch:
        composite, mask, real = (image.to(self.device, non_blocking=True).float() for image in images)
        composite, real = (to_signed(image.permute(0, 3, 1, 2) / 255) for image in (composite, real))
        return Batch(composite, mask.unsqueeze(1), real)


def _stack(images: Iterable[tuple[np.ndarray, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.stack(same)) for same in zip(*images, strict=True))


@lru_cache(maxsize=4)
def _order(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.argsort(counter_random(seed, 2, epoch, length), kind="stable")
