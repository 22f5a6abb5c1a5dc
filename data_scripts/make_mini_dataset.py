"""Build the mini data set: real photos that scikit-image and scikit-learn ship, recoloured foregrounds.

    python data_scripts/make_mini_dataset.py [OUT] [--seed S]

The layout is iHarmony4's, with one subset for each recipe: MiniTransfer (Reinhard transfer from a region of
another photo) and MiniPhotometric (the photometric chain). The outlines are in ``foregrounds.json``, drawn for
this project. With the default seed the pixels are those of ``mini_manifest.csv``.
"""

import argparse
import csv
import hashlib
import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import skimage
import sklearn
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from hdnet_lib.data.iharmony4 import MINI
from hdnet_lib.data.recipes import draw_photometric, photometric, reinhard
from hdnet_lib.images import to_pixels, to_tensor

HERE = Path(__file__).parent
SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"

PHOTOS = {
    "train": {
        "astronaut": SKIMAGE / "astronaut.png",
        "flower": SKLEARN / "flower.jpg",
        "motorcycle": SKIMAGE / "motorcycle_left.png",
        "rocket": SKIMAGE / "rocket.jpg",
    },
    "test": {
        "chelsea": SKIMAGE / "chelsea.png",
        "china": SKLEARN / "china.jpg",
        "coffee": SKIMAGE / "coffee.png",
    },
}
VERSIONS = {"MiniTransfer": 2, "MiniPhotometric": 3}
SEED = 20231029


def draw_mask(size: tuple[int, int], outline: list[list[int]]) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([tuple(point) for point in outline], fill=255)
    return mask


def crop(photo: Image.Image, mask: Image.Image) -> tuple[Tensor, Tensor]:
    """Photo and mask inside the mask's bounding box: all that a recipe needs."""
    box = mask.getbbox()
    # Double precision, so that processors agree on every rounded pixel.
    return to_tensor(np.asarray(photo.crop(box)), torch.float64), to_tensor(np.asarray(mask.crop(box)), torch.float64)


def plausible(composite: Tensor, photo: Tensor, mask: Tensor) -> bool:
    """Neither nearly the photo nor absurd: the foreground moved by 8 to 50 grey levels (root mean square)."""
    change = ((composite - photo).square().sum() / (3 * mask.sum())).sqrt().item() * 255
    return 8 <= change <= 50


def composites(split: str, seed: int) -> Iterator[tuple[str, str, Image.Image, Image.Image, Image.Image]]:
    """Yield subset, ``<photo>_<mask>_<version>``, composite, mask and photo."""
    outlines = json.loads((HERE / "foregrounds.json").read_text())
    photos = {name: Image.open(path).convert("RGB") for name, path in PHOTOS[split].items()}
    masks = [(name, draw_mask(photos[name].size, outline)) for name in photos for outline in outlines[name].values()]
    regions = [crop(photos[name], mask) for name, mask in masks]
    for number, ((name, mask), region) in enumerate(zip(masks, regions, strict=True)):
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        others = [other for other, (photo, _) in zip(regions, masks, strict=True) if photo != name]
        order = torch.randperm(len(others), generator=generator).tolist()[:12]
        transferred = (reinhard(*region, *others[choice]) for choice in order)
        perturbed = (photometric(*region, draw_photometric(1, region[0], generator)) for _ in order)
        index = 1 + sum(other == name for other, _ in masks[:number])
        for subset, tries in (("MiniTransfer", transferred), ("MiniPhotometric", perturbed)):
            kept = islice((image for image in tries if plausible(image, *region)), VERSIONS[subset])
            for version, recoloured in enumerate(kept, start=1):
                composite = photos[name].copy()
                composite.paste(Image.fromarray(to_pixels(recoloured)), mask.getbbox()[:2])
                yield subset, f"{name}_{index}_{version}", composite, mask, photos[name]


def build(out: Path, seed: int) -> None:
    """Write the data set to ``out``, with a manifest.

    Its checksums are of pixels, not of PNG files, whose bytes depend on the version of the compressor.
    """
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    manifest: dict[str, str] = {}

    def write(image: Image.Image, relative: str) -> None:
        if relative not in manifest:
            path = part / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, compress_level=1)
            pixels = np.asarray(image)
            manifest[relative] = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()

    for split in PHOTOS:
        lines = []
        for subset, name, composite, mask, photo in tqdm(composites(split, seed), desc=f"mini data set, {split}"):
            lines.append(f"{subset}/composite_images/{name}.png")
            write(composite, lines[-1])
            write(mask, f"{subset}/masks/{name.rsplit('_', 1)[0]}.png")
            write(photo, f"{subset}/real_images/{name.rsplit('_', 2)[0]}.png")
        (part / f"IHD_{split}.txt").write_text("\n".join(sorted(lines)) + "\n")

    with (part / "manifest.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["image", "sha256_of_pixels"], *sorted(manifest.items())])
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=MINI, help="folder to write (default: data/mini)")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    if arguments.out.exists() and not (arguments.out / "manifest.csv").is_file():
        parser.error(f"{arguments.out} exists and is not a mini data set; it is left as it is.")
    torch.set_num_threads(1)  # the arrays are small: threads only get in each other's way
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    build(arguments.out, arguments.seed)
    recorded = HERE / "mini_manifest.csv"
    if arguments.seed == SEED and (arguments.out / "manifest.csv").read_text() != recorded.read_text():
        print(f"Note: some pixels differ from those of {recorded.name}, so scores may differ in the last digit.")


if __name__ == "__main__":
    main()
