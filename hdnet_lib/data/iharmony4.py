"""Triplets in the layout of iHarmony4: composite, mask of its foreground, real photo.

::

    ROOT/IHD_train.txt, ROOT/IHD_test.txt      lines such as HCOCO/composite_images/x_1_1.jpg
    ROOT/HCOCO/composite_images/<photo>_<mask>_<version>.jpg
    ROOT/HCOCO/masks/<photo>_<mask>.png
    ROOT/HCOCO/real_images/<photo>.jpg
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hdnet_lib.images import open_image

MINI = Path(__file__).parents[2] / "data" / "mini"
"""Where ``make data`` builds the mini data set."""


class Images(NamedTuple):
    """The three images of a triplet."""

    composite: np.ndarray
    """(H, W, 3) uint8."""
    mask: np.ndarray
    """(H, W) bool, True on the foreground."""
    real: np.ndarray
    """(H, W, 3) uint8."""


@dataclass(frozen=True)
class Triplet:
    """Where the three images of one composite lie."""

    composite: Path
    mask: Path
    real: Path
    subset: str

    @property
    def name(self) -> str:
        """``subset/photo_mask_version``, unique in a data set."""
        return f"{self.subset}/{self.composite.stem}"

    @property
    def photo(self) -> str:
        """Identifier of the real photo; several composites share one."""
        return self.real.stem

    def read(self, size: int | None = None) -> Images:
        """Read the images; with ``size``, squeeze them to a square of that side, as the paper does (256).

        Resizing is bilinear with antialiasing; the mask is cut at one half after it.

        Raises:
            ValueError: a file cannot be read, or the three differ in size.
        """
        composite = open_image(self.composite, "composite").convert("RGB")
        mask = open_image(self.mask, "mask").convert("L")
        real = open_image(self.real, "real photo").convert("RGB")
        if not composite.size == mask.size == real.size:
            sizes = ", ".join(f"{image.width}x{image.height}" for image in (composite, mask, real))
            raise ValueError(f"{self.name}: composite, mask and real photo differ in size: {sizes}.")
        if size is not None:
            composite, mask, real = (
                image.resize((size, size), Image.Resampling.BILINEAR) for image in (composite, mask, real)
            )
        return Images(np.asarray(composite), np.asarray(mask) >= 128, np.asarray(real))


def list_triplets(root: str | Path = "mini", split: str = "test") -> list[Triplet]:
    """The triplets of one split, in the order of its list.

    Args:
        root: a folder in iHarmony4 layout, or "mini" for the mini data set.
        split: "train" or "test". The list is ``IHD_<split>.txt`` or ``<split>.txt`` in the root, else
            every ``<subset>/<subset>_<split>.txt``.

    Raises:
        ValueError: there is no such list, or it names a file that is missing; the sentence says which.
    """
    if root == "mini":
        root = MINI
        if not root.is_dir():
            raise ValueError("The mini data set is not built yet: run `make data` in the repository.")
    root = Path(root).expanduser()
    triplets = [_resolve(root, line) for line in _lines(root, split)]
    for triplet in triplets:
        for path in (triplet.composite, triplet.mask, triplet.real):
            if not path.is_file():
                raise ValueError(f"{root}: the {split} list needs {path.relative_to(root)}, which does not exist.")
    return triplets


def _lines(root: Path, split: str) -> list[str]:
    for name in (f"IHD_{split}.txt", f"{split}.txt"):
        if (root / name).is_file():
            lines = (root / name).read_text().split("\n")
            lines = [line.strip() for line in lines if line.strip()]
            if not lines:
                raise ValueError(f"{root / name}: the list is empty.")
            return lines
    lines = []
    for path in sorted(root.glob(f"*/*_{split}.txt")):
        if path.name == f"{path.parent.name}_{split}.txt":
            names = path.read_text().split("\n")
            lines += [
                f"{path.parent.name}/composite_images/{Path(name.strip()).name}" for name in names if name.strip()
            ]
    if not lines:
        found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) if root.is_dir() else "no such folder"
        raise ValueError(
            f"{root}: no list for the {split} split. Expected IHD_{split}.txt beside the folders of the subsets "
            f"(HCOCO, HAdobe5k, ...), found: {found or 'nothing'}."
        )
    return lines


def _resolve(root: Path, line: str) -> Triplet:
    """Basename rule, read from the right: ``<photo>_<mask>_<version>``; photo names may contain hyphens."""
    composite = root / line
    parts = composite.stem.rsplit("_", 2)
    if len(parts) != 3 or composite.parent.name != "composite_images":
        raise ValueError(f"{root}: the line {line!r} is not like HCOCO/composite_images/<photo>_<mask>_<version>.jpg.")
    photo, mask, _ = parts
    subset = composite.parent.parent
    reals = [subset / "real_images" / f"{photo}{suffix}" for suffix in (composite.suffix, ".jpg", ".png")]
    real = next((path for path in reals if path.is_file()), reals[0])
    return Triplet(composite, subset / "masks" / f"{photo}_{mask}.png", real, subset.name)
