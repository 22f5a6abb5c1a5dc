"""Harmonise a folder of photos, or the frames of a video."""

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from hdnet_lib.data.decode import ImageError, list_images, suffixes
from hdnet_lib.data.masks import photo_of_mask
from hdnet_lib.data.save import FORMATS, check_transparency
from hdnet_lib.inference.harmonize import WORKING_SIZE, finish, predict, prepare
from hdnet_lib.inference.onnx import OnnxModel
from hdnet_lib.utils.files import check_writable, first_line, fold, stamp
from hdnet_lib.utils.parallel import bounded_map
from hdnet_lib.version import __version__

MAX_WORKERS = 8
"""Photos that are worked on at a time: one of 24 megapixels takes half a gigabyte."""
MANIFEST = "harmonized.jsonl"
"""File beside the results that says what each was made from."""
SYSTEM_FILES = ("thumbs.db", "desktop.ini")


def harmonize_folder(
    model: nn.Module,
    photos: str | Path,
    masks: str | Path,
    output: str | Path,
    working_size: int = WORKING_SIZE,
    suffix: str = ".png",
    mask_threshold: int | None = None,
    recursive: bool = False,
    snap: bool = True,
) -> int:
    """Harmonise every photo of a folder; see :func:`~hdnet_lib.inference.harmonize.harmonize`.

    Each processor core takes a photo from file to file; that is faster than all cores on one photo. Whatever lies in
    the folder and is not done is left out with a sentence on standard error: photos that cannot be used, other files,
    folders (unless ``recursive``). Hidden files do not count.

    A stopped run goes on when it is started again. A result is made again when its photo, its mask, the model or an
    option has changed; ``harmonized.jsonl`` in the output folder knows. A file that it does not know, or that was
    edited, is left alone.

    Args:
        model: the network.
        photos: folder.
        masks: folder, in which a mask is named as its photo, as it and more (``cat_mask.png`` for ``cat.jpg``), or as
            the photo without the last ``_...`` (as iHarmony4 names composites), whatever the case of letters; or one
            mask for all photos, such as the frames of a camera that stands still.
        output: folder for the results, named as their photos; made if it is missing.
        working_size, mask_threshold, snap: see :func:`~hdnet_lib.inference.harmonize.harmonize`.
        suffix: format of the results, one of :data:`~hdnet_lib.data.save.FORMATS`.
        recursive: photos in folders within ``photos``, too; their masks and results lie in folders of the same names.

    Returns:
        How many were left out.

    Raises:
        ValueError: a folder is missing or holds no photo, photos would share a result, the output cannot be written,
            or ``suffix`` is unknown.
    """
    photos, masks, output = Path(photos), Path(masks), Path(output)
    if suffix not in FORMATS:
        raise ValueError(f"results can be {', '.join(FORMATS)}, not {suffix!r}.")
    if not photos.is_dir():
        raise ValueError(f"{photos}: there is no such folder.")
    if not masks.exists():
        raise ValueError(f"{masks}: there is no such folder or file.")
    targets, others = _targets(photos, output, suffix, recursive)
    find_mask: Callable[[Path], Path] = (
        (lambda photo: masks) if masks.is_file() else _MaskFinder(photos, masks, targets.values())
    )
    _make_folder(output, {target.parent for target in targets})
    if any(output.samefile(folder) for folder in (photos, masks)):
        raise ValueError(f"{output} is a folder of inputs: choose another one for the results.")
    options = {"model": digest_of(model), "working_size": working_size, "mask_threshold": mask_threshold, "snap": snap}
    manifest = _Manifest(output)

    def work(target: Path) -> str:
        """Returns what is wrong with a photo, or nothing."""
        photo = targets[target]
        try:
            mask = find_mask(photo)
            made_from = {"photo": _described(photo), "mask": _described(mask), **options}
            if manifest.is_current(target, made_from):
                return ""
            job = prepare(photo, mask, working_size, mask_threshold, snap)
            check_transparency(target, job.photo.alpha is not None)
            finish(job, predict(model, job)).save(target)
            manifest.add(target, made_from)
        except Exception as error:  # of whatever type: the other photos go on
            text = f"{first_line(error)}."
            return text if str(photo) in text else f"composite {photo}: {text}"
        return ""

    problems = [f"{path} {why}." for path, why in others]
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            ThreadPoolExecutor(min(cores, MAX_WORKERS), initializer=torch.set_num_threads, initargs=(1,)) as executor,
            tqdm(total=len(targets), unit="photo") as bar,
        ):
            for problem in bounded_map(executor, work, targets, 2 * cores):
                if problem:
                    problems.append(problem)
                    tqdm.write(f"left out: {problem}", file=sys.stderr)
                bar.update()
    finally:
        torch.set_num_threads(threads)
    for path, why in others:
        tqdm.write(f"left out: {path} {why}.", file=sys.stderr)
    done = len(targets) - (len(problems) - len(others))
    tqdm.write(f"{done} results in {output}, {manifest.kept} of them from before.", file=sys.stderr)
    return len(problems)


def digest_of(model: nn.Module) -> str:
    """What changes when a model's weights do, or the way they are computed with."""
    digest = hashlib.sha256(f"{type(model).__name__} {__version__}".encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(model, OnnxModel):  # its weights are in its file
        digest.update(model.path.read_bytes())
    return digest.hexdigest()[:16]


def _described(path: Path) -> list:
    return [path.name, *stamp(path)]


def _targets(
    photos: Path, output: Path, suffix: str, recursive: bool
) -> tuple[dict[Path, Path], list[tuple[Path, str]]]:
    """Photo by result; and what else lies in the folder, with the reason why it is left out."""
    targets: dict[Path, Path] = {}
    others: list[tuple[Path, str]] = []
    seen: dict[Path, Path] = {}
    known = suffixes()
    for path in _walk(photos, recursive, output, {photos.resolve()}):
        if path.is_dir():
            again = (
                "is a link to a folder that is done already" if recursive else "is a folder: --recursive takes it, too"
            )
            others.append((path, again))
        elif path.suffix.lower() not in known:
            others.append((path, f"ends with {path.suffix}, which is not read as a photo" if path.suffix else
                           "has no ending that tells an image"))  # fmt: skip
        else:
            target = output / path.relative_to(photos).with_suffix(suffix)
            folded = target.with_name(fold(target.name))
            if folded in seen:
                raise ValueError(f"{photos}: {seen[folded].name} and {path.name} share a name: rename one.")
            seen[folded], targets[target] = path, path
    if not targets:
        raise ValueError(f"{photos}: there is no photo whose name ends with {', '.join(sorted(known))}.")
    return targets, others


def _walk(folder: Path, recursive: bool, output: Path, done: set[Path]) -> Iterator[Path]:
    """What lies in a folder but for hidden files and the results; folders that were met before are not entered."""
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") or path.name.lower() in SYSTEM_FILES
        if hidden or (path.is_dir() and path.resolve() == output.resolve()):
            continue
        if recursive and path.is_dir() and path.resolve() not in done:
            done.add(path.resolve())
            yield from _walk(path, recursive, output, done)
        else:
            yield path


class _MaskFinder:
    """Finds the one mask of each photo, in the folder that lies in ``masks`` as the photo's does in ``photos``."""

    def __init__(self, photos: Path, masks: Path, of: Iterable[Path]) -> None:
        self.masks = masks
        names: dict[Path, set[str]] = {}
        for photo in of:
            names.setdefault(photo.parent, set()).add(fold(photo.stem))
        self.found: dict[Path, dict[str, list[Path]]] = {
            folder: self._match(masks / folder.relative_to(photos), stems) for folder, stems in names.items()
        }

    @staticmethod
    def _match(folder: Path, photos: set[str]) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for mask in list_images(folder) if folder.is_dir() else []:
            found.setdefault(photo_of_mask(mask, photos) or fold(mask.stem), []).append(mask)
        return found

    def __call__(self, photo: Path) -> Path:
        known, name = self.found[photo.parent], fold(photo.stem)
        masks = known.get(name) or known.get(name.rpartition("_")[0]) or []
        if not masks:
            raise ImageError(f"composite {photo}: {self.masks} holds no mask named {photo.stem}.")
        if len(masks) > 1:
            raise ImageError(f"composite {photo} has two masks, {masks[0].name} and {masks[1].name}: keep one.")
        return masks[0]


def _make_folder(output: Path, folders: set[Path]) -> None:
    try:
        for folder in (output, *folders):
            folder.mkdir(parents=True, exist_ok=True)
        check_writable(output / MANIFEST)
    except OSError as error:
        raise ValueError(f"{output} cannot be written: {first_line(error)}.") from None


class _Manifest:
    """What the results were made from: a line of JSON for each, which is written after it.

    It holds size and date of the result, too, so that files of others, and results that were edited, can be told from
    our own.
    """

    def __init__(self, output: Path) -> None:
        self.output, self.path, self.lock, self.kept = output, output / MANIFEST, threading.Lock(), 0
        self.known: dict[tuple[str, int, int], dict] = {}
        try:
            lines = self.path.read_text("utf-8", "replace").splitlines() if self.path.exists() else []
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read: {first_line(error)}.") from None
        for line in lines:
            try:
                entry = json.loads(line)
                self.known[tuple(entry["result"])] = entry["made_from"]
            except (ValueError, KeyError, TypeError):  # half a line, of a run that was killed
                continue

    def _key(self, target: Path) -> tuple[str, int, int]:
        return target.relative_to(self.output).as_posix(), *stamp(target)

    def is_current(self, target: Path, made_from: dict) -> bool:
        """Whether the result is there, made from just this.

        Raises:
            ImageError: there is a file that was not made here, or was changed since.
        """
        if not target.exists():
            return False
        made = self.known.get(self._key(target))
        if made is None:
            raise ImageError(
                f"{target} is there, and was not made here or was changed since: delete it to have it made."
            )
        if made != made_from:
            return False
        with self.lock:
            self.kept += 1
        return True

    def add(self, target: Path, made_from: dict) -> None:
        """Note what a finished result was made from.

        Raises:
            ImageError: the list cannot be written.
        """
        line = json.dumps({"result": self._key(target), "made_from": made_from})
        try:
            with self.lock, self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}" if self.path.stat().st_size else line)
        except OSError as error:
            raise ImageError(f"{self.path} cannot be written: {first_line(error)}.") from None
