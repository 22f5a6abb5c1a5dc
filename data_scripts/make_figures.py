"""Draw the README's pictures from the mini data set and the shipped weights into figures/."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from hdnet_lib import harmonize, load_pretrained
from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.composites.shifts import REAL_SHIFTS, sample_shifts
from hdnet_lib.course.plots import plot_shifts, show_images, use_style
from hdnet_lib.data import list_triplets
from hdnet_lib.data.iharmony4 import MINI
from hdnet_lib.evaluation.metrics import score

FIGURES = Path(__file__).parents[1] / "figures"
SHOWN = ("Change/china_1_2", "Transfer/chelsea_4_2", "Transfer/coffee_1_1")


def composite_shifts() -> None:
    pool = PhotoDataset(MINI / "pool.csv", "train", 128)
    made, retouched = sample_shifts(pool, 512)
    tables = {"real recaptures": pd.read_csv(REAL_SHIFTS), "training composites": made, "assumed retouches": retouched}
    plot_shifts(tables).savefig(FIGURES / "composite_shifts.png")


def before_after() -> None:
    """The chosen composites, and for each test photo the one that loses most."""
    model = load_pretrained("hdnet-lite")
    results, gains = {}, {}
    for triplet in list_triplets("mini", "test"):
        composite, mask, real = triplet.read()[:3]
        result = np.asarray(harmonize(model, composite, mask, snap=False))
        before, after = (score(image, real, mask).psnr for image in (composite, result))
        results[triplet.name] = [composite, result, real], mask, [f"{before:.1f} dB", f"{after:.1f} dB", ""]
        gains.setdefault(triplet.photo, {})[triplet.name] = after - before
    worst = [min(names, key=names.get) for names in gains.values()]
    for names, file in ((SHOWN, "before_after.png"), (worst, "failures.png")):
        rows, masks, captions = zip(*(results[name] for name in names), strict=True)
        titles = ["composite", "harmonised by HDNet-lite", "real photo"]
        show_images(rows, titles, captions, masks, width=3.2).savefig(FIGURES / file)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    use_style()
    FIGURES.mkdir(exist_ok=True)
    before_after()
    composite_shifts()


if __name__ == "__main__":
    main()
