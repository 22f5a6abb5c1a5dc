"""The mini data set: real photos that scikit-image and scikit-learn ship, with recoloured foregrounds.

``python -m hdnet_lib.composites.mini`` builds it; so does every command that is given "mini" and does not find it. The
outlines are in ``foregrounds.json``, drawn for this project; the composites are made by
:func:`~hdnet_lib.composites.synthesis.synthesize`, one of every recipe for each mask. The pixels are those
of ``mini_manifest.csv``.
"""

import csv
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image, ImageDraw

from hdnet_lib.composites.recipes import RECIPES
from hdnet_lib.composites.synthesis import synthesize
from hdnet_lib.data.iharmony4 import MINI
from hdnet_lib.data.images import read_rgb
from hdnet_lib.utils.files import first_line

HERE = Path(__file__).parent
MANIFEST = HERE / "mini_manifest.csv"
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


def find_data(data: str | Path) -> Path:
    """Where data lie that a command is given: a path, or "mini", which is built if it is not there.

    Raises:
        ValueError: the mini data set cannot be built.
    """
    if data != "mini":
        return Path(data)
    if not MINI.is_dir():
        try:
            MINI.parent.mkdir(parents=True, exist_ok=True)
            build(MINI, workers=1)  # more would need a guard in the script that asks
        except OSError as error:
            raise ValueError(f"the mini data set cannot be built in {MINI}: {first_line(error)}.") from None
    return MINI


def draw_mask(size: tuple[int, int], outline: list[list[int]]) -> Image.Image:
    """A mask of this size (width, height), 255 inside the outline."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([tuple(point) for point in outline], fill=255)
    return mask


def build(out: Path, workers: int | None = None) -> None:
    """Write the data set to ``out``, with a manifest, in place of what was there.

    Its checksums are of pixels, not of PNG files, whose bytes depend on the version of the compressor.
    """
    outlines = json.loads((HERE / "foregrounds.json").read_text())
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        photos, masks, made = (Path(folder) / name for name in ("photos", "masks", "made"))
        photos.mkdir()
        masks.mkdir()
        for name, path in (PHOTOS["train"] | PHOTOS["test"]).items():
            photo = read_rgb(path, "photo", stored=True)  # one has a profile, and the recorded scores do not know it
            photo.save(photos / f"{name}.png", compress_level=1)
            for number, outline in enumerate(outlines[name].values(), start=1):
                draw_mask(photo.size, outline).save(masks / f"{name}_{number:02}.png")
        synthesize(photos, masks, made, RECIPES, len(RECIPES), SEED, set(PHOTOS["test"]), workers)
        rows = []
        for path in sorted(made.rglob("*.png")):
            pixels = np.asarray(Image.open(path))
            digest = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()
            rows.append([path.relative_to(made).as_posix(), digest])
        with (made / "manifest.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["image", "sha256_of_pixels"], *rows])
        _write_table(made)
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
    if (out / "manifest.csv").read_text() != MANIFEST.read_text():
        print(
            f"Note: some pixels differ from those of {MANIFEST.name}, so scores may differ in the last digit.",
            file=sys.stderr,
        )


def _write_table(made: Path) -> None:
    """The table of the train photos and their masks, for composites made on the fly."""
    with (made / "pool.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "masks"])
        for name in PHOTOS["train"]:
            masks = {path.name: path for path in sorted(made.glob(f"*/masks/{name}_*.png"))}
            paths = [path.relative_to(made).as_posix() for _, path in sorted(masks.items())]
            writer.writerow([f"Change/real_images/{name}.png", " ".join(paths)])


if __name__ == "__main__":
    if MINI.exists() and not (MINI / "manifest.csv").is_file():
        sys.exit(f"{MINI} exists and is not a mini data set; it is left as it is.")
    MINI.parent.mkdir(parents=True, exist_ok=True)
    build(MINI)
