"""Draw the README's picture from the mini data set and the shipped weights: figures/before_after.png."""

from pathlib import Path

import numpy as np

from hdnet_lib import harmonize, load_pretrained
from hdnet_lib.data import list_triplets
from hdnet_lib.metrics import score
from hdnet_lib.plots import show_images, use_style

FIGURES = Path(__file__).parents[1] / "figures"
SHOWN = ("MiniPhotometric/china_1_2", "MiniTransfer/chelsea_4_2", "MiniPhotometric/coffee_1_1")


def main() -> None:
    use_style()
    model = load_pretrained("hdnet-lite")
    triplets = {triplet.name: triplet for triplet in list_triplets("mini", "test")}
    rows, captions, masks = [], [], []
    for name in SHOWN:
        composite, mask, real = triplets[name].read()
        result = np.asarray(harmonize(model, composite, mask))
        before, after = (score(image, real, mask).psnr for image in (composite, result))
        rows.append([composite, result, real])
        captions.append([f"{before:.1f} dB", f"{after:.1f} dB", ""])
        masks.append(mask)
    figure = show_images(rows, ["composite", "harmonised by HDNet-lite", "real photo"], captions, masks, width=3.2)
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / "before_after.png")


if __name__ == "__main__":
    main()
