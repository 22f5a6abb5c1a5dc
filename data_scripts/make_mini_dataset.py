"""Build the mini data set: real photos that scikit-image and scikit-learn ship, recoloured foregrounds.

    python data_scripts/make_mini_dataset.py [OUT] [--seed S]

The outlines are in ``foregrounds.json``, drawn for this project; the composites are made by ``synthesize``, one of
every recipe for each mask. With the default seed the pixels are those of ``mini_manifest.csv``.
"""

import argparse
import csv
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image, ImageDraw

from hdnet_lib.data.iharmony4 import MINI
from hdnet_lib.data.recipes import RECIPES
from hdnet_lib.data.synthesis import synthesize

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
SEED = 20231029


def draw_mask(size: tuple[int, int], outline: list[list[int]]) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([tuple(point) for point in outline], fill=255)
    return mask


def build(out: Path, seed: int) -> None:
    """Write the data set to ``out``, with a manifest.

    Its checksums are of pixels, not of PNG files, whose bytes depend on the version of the compressor.
    """
    outlines = json.loads((HERE / "foregrounds.json").read_text())
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        photos, masks, made = (Path(folder) / name for name in ("photos", "masks", "made"))
        photos.mkdir()
        masks.mkdir()
        for name, path in (PHOTOS["train"] | PHOTOS["test"]).items():
            photo = Image.open(path).convert("RGB")
            photo.save(photos / f"{name}.png", compress_level=1)
            for number, outline in enumerate(outlines[name].values(), start=1):
                draw_mask(photo.size, outline).save(masks / f"{name}_{number:02}.png")
        synthesize(photos, masks, made, RECIPES, len(RECIPES), seed, test=set(PHOTOS["test"]))
        rows = []
        for path in sorted(made.rglob("*.png")):
            pixels = np.asarray(Image.open(path))
            digest = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()
            rows.append([path.relative_to(made).as_posix(), digest])
        with (made / "manifest.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["image", "sha256_of_pixels"], *rows])
        _write_pool(made)
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)


def _write_pool(made: Path) -> None:
    """The table of the train photos and their masks, for composites made on the fly."""
    with (made / "pool.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "masks"])
        for name in PHOTOS["train"]:
            masks = {path.name: path for path in sorted(made.glob(f"*/masks/{name}_*.png"))}
            paths = [path.relative_to(made).as_posix() for _, path in sorted(masks.items())]
            writer.writerow([f"Change/real_images/{name}.png", " ".join(paths)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=MINI, help="folder to write (default: data/mini)")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    if arguments.out.exists() and not (arguments.out / "manifest.csv").is_file():
        parser.error(f"{arguments.out} exists and is not a mini data set; it is left as it is.")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    build(arguments.out, arguments.seed)
    recorded = HERE / "mini_manifest.csv"
    if arguments.seed == SEED and (arguments.out / "manifest.csv").read_text() != recorded.read_text():
        print(f"Note: some pixels differ from those of {recorded.name}, so scores may differ in the last digit.")


if __name__ == "__main__":
    main()
