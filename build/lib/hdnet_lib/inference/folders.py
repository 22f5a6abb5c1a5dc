"""Harmonise a folder of photos, or the frames of a video."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from hdnet_lib.data.images import FORMATS, ImageError, save_image
from hdnet_lib.inference.harmonize import WORKING_SIZE, harmonize
from hdnet_lib.utils.parallel import bounded_map

MAX_WORKERS = 8
"""Photos that are worked on at a time: one of 24 megapixels takes half a gigabyte."""


def harmonize_folder(
    model: nn.Module,
    photos: str | Path,
    masks: str | Path,
    output: str | Path,
    working_size: int = WORKING_SIZE,
    suffix: str = ".png",
) -> int:
    """Harmonise every photo of a folder; see :func:`~hdnet_lib.inference.harmonize.harmonize`.

    Each processor core takes a photo from file to file; that is faster than all cores on one photo. A photo that cannot
    be used is left out, with a sentence on standard error. A result that is there already stays, so a stopped run goes
    on when it is started again.

    Args:
        model: the network.
        photos: folder.
        masks: folder, in which a mask is named as its photo, or as its photo without the last ``_...`` (as iHarmony4
            names composites); or one mask for all photos, such as the frames of a camera that stands still.
        output: folder for the results, named as their photos; made if it is missing.
        working_size: see :func:`~hdnet_lib.inference.harmonize.harmonize`.
        suffix: format of the results, one of :data:`~hdnet_lib.data.images.FORMATS`.

    Returns:
        How many photos were left out.

    Raises:
        ValueError: a folder is missing or holds no photo, photos would share a result, or ``suffix`` is unknown.
    """
    photos, masks, output = Path(photos), Path(masks), Path(output)
    if suffix not in FORMATS:
        raise ValueError(f"results can be {', '.join(FORMATS)}, not {suffix!r}.")
    targets = _targets(photos, output, suffix)
    if not masks.exists():
        raise ValueError(f"{masks}: there is no such folder or file.")
    known = {path.stem: path for path in _images(masks)} if masks.is_dir() else None
    output.mkdir(parents=True, exist_ok=True)
    if any(output.samefile(folder) for folder in (photos, masks)):
        raise ValueError(f"{output} is a folder of inputs: choose another one for the results.")

    def work(target: Path) -> str:
        """Returns what is wrong with a photo, or nothing."""
        photo = targets[target]
        mask = masks if known is None else known.get(photo.stem) or known.get(photo.stem.rpartition("_")[0])
        if mask is None:
            return f"composite {photo}: {masks} holds no mask named {photo.stem}."
        try:
            save_image(harmonize(model, photo, mask, working_size), target)
        except ImageError as error:
            return str(error) if str(photo) in str(error) else f"composite {photo}: {error}"
        return ""

    missing = [target for target in targets if not target.exists()]
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    left_out = 0
    torch.set_num_threads(1)
    try:
        with (
            ThreadPoolExecutor(min(cores, MAX_WORKERS), initializer=torch.set_num_threads, initargs=(1,)) as executor,
            tqdm(total=len(targets), initial=len(targets) - len(missing), unit="photo") as bar,
        ):
            for problem in bounded_map(executor, work, missing, 2 * cores):
                if problem:
                    left_out += 1
                    tqdm.write(f"left out: {problem}", file=sys.stderr)
                bar.update()
    finally:
        torch.set_num_threads(threads)
    tqdm.write(
        f"{len(targets) - left_out} results in {output}, {len(targets) - len(missing)} of them from before.",
        file=sys.stderr,
    )
    return left_out


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in FORMATS and not path.name.startswith("."))


def _targets(photos: Path, output: Path, suffix: str) -> dict[Path, Path]:
    """Photo by result."""
    if not photos.is_dir():
        raise ValueError(f"{photos}: there is no such folder.")
    targets: dict[Path, Path] = {}
    for photo in _images(photos):
        target = output / f"{photo.stem}{suffix}"
        if target in targets:
            raise ValueError(f"{photos}: {targets[target].name} and {photo.name} share a name: rename one.")
        targets[target] = photo
    if not targets:
        raise ValueError(f"{photos}: there is no photo whose name ends with {', '.join(FORMATS)}.")
    return targets
