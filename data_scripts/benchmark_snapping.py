"""Times snapping a mask next to all else that harmonising a photo takes, at several sizes of the photo.

python data_scripts/benchmark_snapping.py --sizes 256 1024 4096
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from hdnet_lib import harmonize, load_pretrained
from hdnet_lib.data.masks import perturb_mask
from hdnet_lib.data.snapping import snap_mask
from hdnet_lib.evaluation.examples import open_examples


def seconds(call: Callable[[], object], repeats: int) -> float:
    """The least of some runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024, 2048, 4096], help="sides in pixels")
    parser.add_argument("--model", default="hdnet-lite", help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls each (%(default)s)")
    parsed = parser.parse_args()
    model, example = load_pretrained(parsed.model), open_examples("mini")[0]
    careless = perturb_mask(example.mask, "dilated", 2)
    print("side (px)  snapping (s)  the rest (s)  ratio")
    for side in parsed.sizes:
        photo = np.asarray(Image.fromarray(example.composite).resize((side, side), Image.Resampling.BICUBIC))
        mask = np.asarray(Image.fromarray(careless).resize((side, side), Image.Resampling.NEAREST))
        snap = seconds(partial(snap_mask, photo, mask), parsed.repeats)
        rest = seconds(partial(harmonize, model, photo, mask, snap=False), parsed.repeats)
        print(f"{side:9}  {snap:12.3f}  {rest:12.3f}  {snap / rest:5.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
