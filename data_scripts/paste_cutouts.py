"""Real cut-outs for judging by eye, where no number tells: objects of some photos pasted into others, and harmonised.

    python data_scripts/paste_cutouts.py photos.csv cutouts.png --models hdnet-lite hdnet

The table is one of photos and masks, as for training; its validation photos are taken. An object stands in the other
photo as in its own, stretched with it to the other's size, and is pasted by its mask as it is.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from hdnet_lib.composites.photo_table import photo_mask_pairs
from hdnet_lib.course.plots import show_images, use_style
from hdnet_lib.data.images import read_mask, read_rgb
from hdnet_lib.inference.harmonize import harmonize
from hdnet_lib.inference.load import load_model


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="CSV table of photos and masks")
    parser.add_argument("output", type=Path, help="picture to write (.png)")
    parser.add_argument("--models", nargs="+", default=["hdnet-lite", "hdnet"], help="(%(default)s)")
    parser.add_argument("--count", type=int, default=20, help="cut-outs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice (%(default)s)")
    parsed = parser.parse_args()
    models = {name: load_model(name) for name in parsed.models}
    pairs = [(photo, mask) for photo, mask in photo_mask_pairs(parsed.table, "validation") if mask]
    rng = np.random.default_rng(parsed.seed)
    rows: list[list[np.ndarray]] = []
    outlines = []
    for index in rng.permutation(len(pairs)):
        photo, path = pairs[index]
        other = pairs[rng.integers(len(pairs))][0]
        mask = read_mask(path, str(path))
        if other == photo or not 0.03 < (mask >= 0.5).mean() < 0.4:
            continue
        background = read_rgb(other, str(other))
        pixels = np.asarray(read_rgb(photo, str(photo)).resize(background.size, Image.Resampling.LANCZOS))
        soft = np.asarray(Image.fromarray(mask).resize(background.size, Image.Resampling.BILINEAR))[..., None]
        composite = np.rint(soft * pixels + (1 - soft) * np.asarray(background)).astype(np.uint8)
        row = [composite]
        for model in models.values():
            row += [np.asarray(harmonize(model, composite, soft[..., 0] >= 0.5, snap=snap)) for snap in (False, True)]
        rows.append(row)
        outlines.append(soft[..., 0])
        if len(rows) == parsed.count:
            break
    if not rows:
        parser.error(f"{parsed.table}: no validation photo has a mask of 3 to 40 % and another photo to go into.")
    titles = ["cut-out, pasted", *(f"{name}, {how}" for name in models for how in ("mask as given", "snapped"))]
    use_style()
    figure = show_images(rows, titles, outline=outlines, width=3)
    figure.savefig(parsed.output, dpi=70)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
