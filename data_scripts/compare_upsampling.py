"""How should the network's change come to a photo that is larger than what it sees? Compares strategies on triplets.

    python data_scripts/compare_upsampling.py /path/to/set -o upsampling.csv

The set is in iHarmony4 layout, with large photos. Of each strategy, the means of: PSNR; its gain over the composite;
how often it is below the composite; fMSE; "edge", the MSE of the three outermost pixels of the foreground; "jumps", the
root mean square of the error's difference between neighbouring pixels, which seams and halos raise; "detail", the
spread of the Laplacian in the foreground over the real photo's; seconds.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from hdnet_lib.data import list_triplets
from hdnet_lib.data.images import to_pixels, to_signed, to_tensor, to_unit
from hdnet_lib.evaluation.metrics import score
from hdnet_lib.inference.harmonize import Job, finish, predict, prepare
from hdnet_lib.inference.load import load_model
from hdnet_lib.model.hdnet import STRIDE, HDNet
from hdnet_lib.utils.allocator import keep_freed_memory
from hdnet_lib.utils.files import atomic_write

TILE, OVERLAP = 512, 128


def color_map(model: HDNet, photo: np.ndarray, mask: np.ndarray, size: int, mixed: bool = False) -> np.ndarray:
    """What harmonize() does; ``mixed``: shrink foreground and background together, as any program would."""
    job = see(photo, mask, size, mixed)
    return np.asarray(finish(job, predict(model, job)))


def difference(model: HDNet, photo: np.ndarray, mask: np.ndarray, size: int, mixed: bool = False) -> np.ndarray:
    """Add the change of colours, brought to full size by bilinear interpolation."""
    job = see(photo, mask, size, mixed)
    return pixels(to_signed(to_tensor(photo)) + enlarge(predict(model, job) - job.small, job))


def local_maps(model: HDNet, photo: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    """A guided filter (He et al. 2013): in windows of 9 x 9, gain and shift of each channel, brought to full size."""
    job = prepare(photo, mask, size, snap=False)
    region, output = job.network_mask, predict(model, job)

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x * region, 9, 1, 4) / F.avg_pool2d(region, 9, 1, 4).clamp(min=1e-6)

    x, y = mean(job.small), mean(output)
    variance, covariance = mean(job.small**2) - x**2, mean(job.small * output) - x * y
    gain = (covariance + 0.01) / (variance + 0.01)
    lifted = enlarge(torch.cat([mean(gain), mean(y - gain * x)], dim=1), job)
    return pixels(to_signed(to_tensor(photo)) * lifted[:, :3] + lifted[:, 3:])


def native(model: HDNet, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The network's own output at full size."""
    height, width = mask.shape
    border = ((0, -height % STRIDE), (0, -width % STRIDE))
    composite = to_signed(to_tensor(np.pad(photo, (*border, (0, 0)), mode="edge")))
    with torch.inference_mode():
        return pixels(model(composite, to_tensor(np.pad(mask, border, mode="edge")))[..., :height, :width])


def tiles(model: HDNet, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The network at full size, tile by tile; overlapping tiles fade into each other."""
    composite, region = to_signed(to_tensor(photo)), to_tensor(mask)
    total, weight = torch.zeros_like(composite), torch.zeros_like(region)
    ramp = 1.01 - torch.linspace(-1, 1, TILE).abs()
    tops, lefts = ({*range(0, max(n - TILE, 1), TILE - OVERLAP), max(n - TILE, 0)} for n in mask.shape)
    for top in sorted(tops):
        for left in sorted(lefts):
            tile = np.s_[..., top : top + TILE, left : left + TILE]
            if region[tile].any():
                with torch.inference_mode():
                    output = model(composite[tile], region[tile])
                fade = (ramp[:, None] * ramp)[: output.shape[2], : output.shape[3]]
                total[tile] += output * fade
                weight[tile] += fade
    return pixels(torch.where(weight > 0, total / weight.clamp(min=1e-6), composite))


def see(photo: np.ndarray, mask: np.ndarray, size: int, mixed: bool) -> Job:
    job = prepare(photo, mask, size, snap=False)
    if not mixed:
        return job
    shape = job.small.shape[:1:-1]
    together = np.asarray(Image.fromarray(photo).resize(shape, Image.Resampling.BICUBIC))
    return job._replace(small=to_signed(to_tensor(together)))


def enlarge(image: Tensor, job: Job) -> Tensor:
    """To the photo's size, from the foreground's cells only."""
    both = torch.cat([image * job.network_mask, job.network_mask], dim=1)
    both = F.interpolate(both, size=job.soft_mask.shape, mode="bilinear", align_corners=False)
    return both[:, :-1] / both[:, -1:].clamp(min=1e-4)


def pixels(image: Tensor) -> np.ndarray:
    return to_pixels(to_unit(image).clamp(0, 1))


STRATEGIES = {
    **{f"colour map, {size}": partial(color_map, size=size) for size in (256, 384, 512)},
    "colour map, 384, mixed": partial(color_map, size=384, mixed=True),
    "difference, 384": partial(difference, size=384),
    "difference, 384, mixed": partial(difference, size=384, mixed=True),
    "local maps, 384": partial(local_maps, size=384),
    "native": native,
    "tiles": tiles,
}


def measure(image: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict:
    """Scores of a result, pasted."""
    scores = score(image, real, mask)
    error = image.astype(np.float32) - real
    inside, inner = ndimage.binary_erosion(mask, iterations=4), ndimage.binary_erosion(mask, iterations=3)
    jumps, pairs = 0.0, 0
    for step, touched in (
        (error[1:] - error[:-1], mask[1:] | mask[:-1]),
        (error[:, 1:] - error[:, :-1], mask[:, 1:] | mask[:, :-1]),
    ):
        jumps += np.square(step).mean(axis=-1)[touched].sum()
        pairs += touched.sum()
    detail = [ndimage.laplace(other.astype(np.float32).mean(axis=-1))[inside].std() for other in (image, real)]
    return {
        "psnr": scores.psnr,
        "fmse": scores.fmse,
        "edge": np.square(error[mask & ~inner]).mean(),
        "jumps": np.sqrt(jumps / pairs),
        "detail": detail[0] / detail[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="set in iHarmony4 layout")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="CSV table, a line for each composite and strategy"
    )
    parser.add_argument("--splits", nargs="+", default=["test"])
    parser.add_argument("--every", type=int, default=1, help="take one composite in so many")
    parser.add_argument("--model", default="hdnet-lite")
    options = parser.parse_args()
    keep_freed_memory()
    model = load_model(options.model)
    lines = []
    triplets = [triplet for split in options.splits for triplet in list_triplets(options.data, split)]
    for triplet in tqdm(triplets[:: options.every]):
        composite, mask, real = triplet.read()[:3]
        for name, strategy in {"composite": None, **STRATEGIES}.items():
            started = time.perf_counter()
            result = strategy(model, composite, mask) if strategy else composite
            seconds = time.perf_counter() - started
            result = np.where(mask[..., None], result, composite)
            line = {"name": triplet.name, "photo": triplet.photo, "strategy": name, **measure(result, real, mask)}
            lines.append(line | {"seconds": seconds if strategy else np.nan})
    table = pd.DataFrame(lines)
    table["gain"] = table.psnr - table.name.map(table[table.strategy == "composite"].set_index("name").psnr)
    with atomic_write(options.output) as part:
        table.to_csv(part, index=False, float_format="%.5g")
    means = table.assign(worse=table.gain < 0).groupby("strategy", sort=False).mean(numeric_only=True)
    medians = table.groupby("strategy", sort=False).detail.median()
    print(f"{table.name.nunique()} composites of {table.photo.nunique()} photos; detail: medians, all else means")
    print(means.assign(detail=medians).round(3).to_string())


if __name__ == "__main__":
    sys.exit(main())
