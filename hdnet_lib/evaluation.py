"""Score methods on composites whose real photo is known, with intervals that resample real photos."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from hdnet_lib.data.iharmony4 import list_triplets
from hdnet_lib.data.pool import PhotoPool
from hdnet_lib.data.recipes import match_histograms, reinhard, xiao
from hdnet_lib.images import to_pixels, to_tensor
from hdnet_lib.metrics import Protocol, score
from hdnet_lib.model import HDNet, paste

Method = Callable[[Tensor, Tensor], Tensor]
"""Composite (1, 3, H, W) in [0, 1] and mask (1, 1, H, W) -> the harmonised image, like the composite."""

BASELINES: dict[str, Method] = {
    "composite as it is": lambda composite, mask: composite,
    "Reinhard": lambda composite, mask: reinhard(composite, mask, composite, 1 - mask),
    "Xiao": lambda composite, mask: xiao(composite, mask, composite, 1 - mask),
    "histogram matching": lambda composite, mask: match_histograms(composite, mask, composite, 1 - mask),
}
"""Methods without a network; three transfer the colours of the background to the foreground."""


VALIDATION_SEED = 1
"""Training draws the validation composites that choose its weights with seed 0."""
HIGHEST_PSNR = 100.0
"""dB; a result that equals the real photo has no more in a mean."""


class Example(NamedTuple):
    """A composite with what it should look like."""

    name: str
    photo: str
    """Name of the real photo; several composites share one."""
    composite: np.ndarray
    """(H, W, 3) uint8."""
    mask: np.ndarray
    """(H, W) bool, not empty."""
    real: np.ndarray
    """(H, W, 3) uint8."""


def read_triplets(root: str | Path, split: str = "test", size: int = 256, partial: bool = False) -> Iterator[Example]:
    """The triplets of a list, each once, squeezed to a square; see :func:`~hdnet_lib.data.iharmony4.list_triplets`.

    Raises:
        ValueError: a file is missing or cannot be read, or a mask is empty or full at this size.
    """
    triplets = dict.fromkeys(list_triplets(root, split, partial))
    for triplet in tqdm(triplets, desc=str(root), unit="composite"):
        images = triplet.read(size)
        if images.mask.all() or not images.mask.any():
            state = "full" if images.mask.all() else "empty"
            raise ValueError(f"{triplet.name}: its mask is {state}; check_dataset.py finds all such faults.")
        # By name alone: subsets that were made from the same photos share their clusters.
        yield Example(triplet.name, triplet.photo, *images)


def make_validation(table: str | Path, size: int = 256, rounds: int = 2) -> Iterator[Example]:
    """Composites of the validation photos of a pool, ``rounds`` of each mask; those that equal the photo are left out.

    Others than those that choose the weights in training, but of the same photos: a comparison of runs, no test.

    Raises:
        ValueError: see :class:`~hdnet_lib.data.pool.PhotoPool`.
    """
    pool = PhotoPool(table, "validation", size)
    samples = range(rounds * len(pool))
    photos = pool.photos(samples, VALIDATION_SEED)
    for number, photo in zip(tqdm(samples, desc=str(table), unit="composite"), photos, strict=True):
        made = pool.composites([number], VALIDATION_SEED)
        composite, real = (to_pixels(image / 2 + 0.5) for image in (made.composite, made.real))
        if not np.array_equal(composite, real):
            yield Example(str(number), photo, composite, made.mask[0, 0].numpy() > 0.5, real)


def network(model: HDNet) -> Method:
    """A model as a method."""

    def harmonise(composite: Tensor, mask: Tensor) -> Tensor:
        return paste(model(composite * 2 - 1, mask) / 2 + 0.5, composite, mask)

    return harmonise


@torch.inference_mode()
def score_methods(
    examples: Iterable[Example], methods: Mapping[str, Method], protocol: Protocol | str = "hdnet"
) -> pd.DataFrame:
    """One row for each example and method: name, photo, ratio (of the mask), method, mse, fmse, psnr, ssim."""
    rows = []
    for example in examples:
        composite, mask = to_tensor(example.composite), to_tensor(example.mask)
        shared = {"name": example.name, "photo": example.photo, "ratio": example.mask.mean()}
        for name, method in methods.items():
            output = method(composite, mask)[0].permute(1, 2, 0).numpy() * 255
            scores = score(output, example.real, example.mask, example.composite, protocol)
            rows.append({**shared, "method": name, **scores._asdict()})
    return pd.DataFrame(rows)


def mean_interval(values: pd.Series, photos: pd.Series, draws: int = 5000, seed: int = 0) -> tuple[float, float, float]:
    """Mean over composites, and a 95 % bootstrap interval that resamples real photos, each with all its composites.

    Composites of one photo are not independent, so resampling them one by one gives intervals that are too
    narrow. With a handful of photos even this one is too narrow: look at the count beside it. ``values`` and
    ``photos`` share their index.
    """
    groups = values.groupby(photos).agg(["sum", "count"])
    times = np.random.default_rng(seed).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=draws)
    means = times @ groups["sum"].to_numpy() / (times @ groups["count"].to_numpy())
    low, high = np.quantile(means, [0.025, 0.975])
    return values.mean(), low, high


def summarise(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """One row for each method: counts, mean scores, and how its PSNR differs from that of the reference method.

    Args:
        table: of :func:`score_methods`.
        reference: name of a method of the table.

    Returns:
        Index: method, in the table's order. Columns: composites, photos, psnr, mse, fmse, ssim; psnr_low and
        psnr_high, gain, gain_low and gain_high (95 % intervals, :func:`mean_interval`), worse (number of
        composites with a lower PSNR than the reference method gives them). A PSNR counts as 100 dB at most.
    """
    table = table.assign(psnr=table.psnr.clip(upper=HIGHEST_PSNR))
    psnr = table.pivot(index="name", columns="method", values="psnr")
    rows = {}
    for method, scores in table.groupby("method", sort=False):
        scores = scores.set_index("name")
        gain = scores.psnr - psnr[reference]
        _, psnr_low, psnr_high = mean_interval(scores.psnr, scores.photo)
        gain_mean, gain_low, gain_high = mean_interval(gain, scores.photo)
        rows[method] = {
            "composites": len(scores), "photos": scores.photo.nunique(),
            **scores[["psnr", "mse", "fmse", "ssim"]].mean(), "psnr_low": psnr_low, "psnr_high": psnr_high,
            "gain": gain_mean, "gain_low": gain_low, "gain_high": gain_high, "worse": (gain < 0).sum(),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def permutation_test(values: pd.Series, photos: pd.Series, draws: int = 5000, seed: int = 0) -> float:
    """Two-sided p-value of paired differences: how often random signs give a mean as far from zero.

    All composites of a real photo change sign together. The smallest value is 1 / (draws + 1).
    """
    sums = values.groupby(photos).sum().to_numpy()
    signs = np.random.default_rng(seed).integers(0, 2, size=(draws, len(sums))) * 2 - 1
    # The first term is what was observed; a little slack, since sums in another order differ in the last bit.
    return (1 + (np.abs(signs @ sums) >= abs(sums.sum()) * (1 - 1e-9)).sum()) / (1 + draws)


def compare_entries(table: pd.DataFrame, reference: str, metric: str) -> pd.DataFrame:
    """Compare what was trained several times, paired by composite.

    Args:
        table: of :func:`score_methods`; methods are named ``<entry>-s<seed>``, as train_zoo.py names its runs.
        reference: the entry that the others are compared with.
        metric: "psnr", "mse", "fmse" or "ssim".

    Returns:
        Index: entry, in the table's order. Columns: seeds; mean (over composites and seeds) and spread (standard
        deviation of the seeds' means); difference from the reference entry, each averaged over its seeds first, with
        low and high (95 % interval over real photos, :func:`mean_interval`) and p (:func:`permutation_test`).
        Interval and p tell how far other photos would change the difference, and nothing of other seeds.
    """
    runs = table.method.str.extract(r"^(?P<entry>.+)-s(?P<seed>\d+)$")
    if runs.entry.isna().any() or reference not in runs.entry.to_numpy():
        raise ValueError(f"methods must be named <entry>-s<seed>, and {reference!r} must be an entry.")
    table = table.assign(entry=runs.entry, seed=runs.seed)
    photos = table.drop_duplicates("name").set_index("name").photo
    means = table.groupby(["entry", "name"])[metric].mean()
    rows = {}
    for entry, scores in table.groupby("entry", sort=False):
        by_seed = scores.groupby("seed")[metric].mean()
        difference = means[entry] - means[reference]
        mean, low, high = mean_interval(difference, photos)
        rows[entry] = {
            "seeds": len(by_seed), "mean": by_seed.mean(), "spread": by_seed.std(), "difference": mean,
            "low": low, "high": high, "p": permutation_test(difference, photos),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("entry")
