"""Score methods on composites whose real photo is known: one row for each composite, method and protocol.

:func:`evaluate` is the whole way from a data set and names of models to a table on disk; :func:`score_methods` is its
core, for methods that are at hand. :mod:`hdnet_lib.statistics` makes means and intervals of such a table.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset
from tqdm import tqdm

from hdnet_lib.data.iharmony4 import Triplet, list_triplets
from hdnet_lib.data.masks import feather
from hdnet_lib.data.parallel import ahead
from hdnet_lib.data.pool import PhotoPool
from hdnet_lib.data.recipes import match_histograms, reinhard, xiao
from hdnet_lib.errors import reason
from hdnet_lib.export import OnnxModel
from hdnet_lib.files import replacing
from hdnet_lib.images import open_image, save_image, to_pixels, to_tensor
from hdnet_lib.metrics import PROTOCOLS, Protocol, Scores, score, to_eight_bits
from hdnet_lib.model import STRIDE, HDNet, paste
from hdnet_lib.registry import list_pretrained, load_model

VALIDATION_SEED = 1
"""Training draws the validation composites that choose its weights with seed 0."""
PART = 64
"""Composites between two files on disk: what a stopped evaluation loses at most, and what shards share out."""
COMPOSITE = "composite"
"""The method that changes nothing; every evaluation holds it, to compare with."""


class Example(NamedTuple):
    """A composite with what it should look like."""

    name: str
    subset: str
    photo: str
    """Name of the real photo; several composites share one."""
    composite: np.ndarray
    """(H, W, 3) uint8."""
    mask: np.ndarray
    """(H, W) bool, not empty."""
    real: np.ndarray
    """(H, W, 3) uint8."""
    original: tuple[int, int] = (0, 0)
    """Width and height of the composite's file, before it was squeezed to a square."""


Method = Callable[[Sequence[Example]], Sequence[np.ndarray]]
"""Examples of one size -> the harmonised image of each: (H, W, 3), uint8, or float on the scale 0 to 255."""


# --- what is scored


class Triplets(Sequence[Example]):
    """The triplets of a list, each once, read when asked for and squeezed to a square.

    Args:
        root, split, partial: see :func:`~hdnet_lib.data.iharmony4.list_triplets`.
        size: side of the square, in pixels.
        limit: at most so many, spread evenly over the list; 0 for all.

    Raises:
        ValueError: the list or a file is missing. Reading one raises it, too: a file is damaged, or a mask is empty
            or full at this size.
    """

    def __init__(
        self, root: str | Path, split: str = "test", size: int = 256, partial: bool = False, limit: int = 0
    ) -> None:
        triplets = list(dict.fromkeys(list_triplets(root, split, partial)))
        self.triplets: list[Triplet] = [triplets[index] for index in spread(len(triplets), limit)]
        self.names = [triplet.name for triplet in self.triplets]
        self.size = size

    def sources(self) -> list:
        """What changes when a composite does: its name, and size and date of its three files."""
        files = ((triplet.composite, triplet.mask, triplet.real) for triplet in self.triplets)
        return [(name, *map(_stamp, paths)) for name, paths in zip(self.names, files, strict=True)]

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, index: int) -> Example:
        triplet = self.triplets[index]
        images = triplet.read(self.size)
        if images.mask.all() or not images.mask.any():
            state = "full" if images.mask.all() else "empty"
            raise ValueError(f"{triplet.name}: its mask is {state}; check_dataset.py finds all such faults.")
        with Image.open(triplet.composite) as file:
            original = file.size
        # By name alone: subsets that were made from the same photos share their clusters.
        return Example(triplet.name, triplet.subset, triplet.photo, *images, original)


class Validation(Sequence[Example]):
    """Composites of the validation photos of a pool; those that equal the photo are left out.

    Others than those that choose the weights in training, but of the same photos: a comparison of runs, no test.

    Args:
        table: see :class:`~hdnet_lib.data.pool.PhotoPool`.
        size: side in pixels.
        limit: at most so many, spread evenly; 0 for all.
        rounds: composites of each mask.

    Raises:
        ValueError: see :class:`~hdnet_lib.data.pool.PhotoPool`.
    """

    def __init__(self, table: str | Path, size: int = 256, limit: int = 0, rounds: int = 2) -> None:
        self.table, self.size, self.pool = Path(table), size, PhotoPool(table, "validation", size)
        samples = range(rounds * len(self.pool))
        photos = self.pool.photos(samples, VALIDATION_SEED)
        changed = [number for number in samples if self._images(number) is not None]
        self.samples = [changed[index] for index in spread(len(changed), limit)]
        self.names = [str(number) for number in self.samples]
        self.photos = [photos[number] for number in self.samples]

    def sources(self) -> list:
        """What changes when a composite does: its number and photo, and size and date of the table."""
        return [_stamp(self.table), *zip(self.names, self.photos, strict=True)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Example:
        return Example(self.names[index], "validation", self.photos[index], *self._images(self.samples[index]))

    def _images(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        made = self.pool.composites([number], VALIDATION_SEED)
        composite, real = (to_pixels(image / 2 + 0.5) for image in (made.composite, made.real))
        return None if np.array_equal(composite, real) else (composite, made.mask[0, 0].numpy() > 0.5, real)


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


def spread(length: int, limit: int) -> list[int]:
    """At most ``limit`` of the numbers 0 to length - 1, evenly spread; all for a limit of 0."""
    return list(range(length)) if not 0 < limit < length else [index * length // limit for index in range(limit)]


def open_examples(
    data: str | Path, split: str = "test", size: int = 256, partial: bool = False, limit: int = 0
) -> Triplets | Validation:
    """A pool's CSV table gives its :class:`Validation` composites, a folder or "mini" its :class:`Triplets`."""
    if str(data).endswith(".csv"):
        return Validation(data, size, limit)
    return Triplets(data, split, size, partial, limit)


def calibration_composites(data: str | Path, count: int = 32) -> list[tuple[Tensor, Tensor]]:
    """Composites and masks of the training list, as :func:`~hdnet_lib.export.export_onnx` takes them.

    Raises:
        ValueError: see :func:`open_examples`.
    """
    examples = open_examples(data, "train", limit=count)
    return [(to_tensor(example.composite) * 2 - 1, to_tensor(example.mask)) for example in examples]


# --- methods


class Network:
    """A model as a method; the result is pasted on the composite."""

    def __init__(self, model: HDNet | OnnxModel, device: str | torch.device = "cpu") -> None:
        self.model, self.device = model.to(device).eval(), device

    @torch.inference_mode()
    def __call__(self, examples: Sequence[Example]) -> list[np.ndarray]:
        """The harmonised images, float on the scale 0 to 255."""
        composites, masks = (
            torch.cat([to_tensor(image) for image in images]).to(self.device)
            for images in ([e.composite for e in examples], [e.mask for e in examples])
        )
        output = paste(self.model(composites * 2 - 1, masks) / 2 + 0.5, composites, masks)
        return list((output * 255).permute(0, 2, 3, 1).cpu().numpy())


class ResultFolder:
    """Images that another program made of the composites: PNG or JPEG, named as the composites are.

    Looked for as ``<folder>/<subset>/<name>``, ``<folder>/<subset>/composite_images/<name>`` and ``<folder>/<name>``.
    An image of the composite's own size is squeezed as the composite is; one of the size of the evaluation stays.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __call__(self, examples: Sequence[Example]) -> list[np.ndarray]:
        """The images, uint8.

        Raises:
            ValueError: an image is missing, is damaged or has another size.
        """
        return [self._read(example) for example in examples]

    def _read(self, example: Example) -> np.ndarray:
        subset, _, stem = example.name.rpartition("/")
        folders = (self.folder / subset, self.folder / subset / "composite_images", self.folder)
        paths = [folder / f"{stem}{suffix}" for folder in folders for suffix in (".png", ".jpg", ".jpeg")]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            raise ValueError(f"{self.folder}: there is no result for {example.name}: {paths[0]} is missing.")
        image = open_image(found, "result").convert("RGB")
        height, width = example.mask.shape
        if image.size != (width, height):
            if image.size != example.original:
                sizes = " or ".join(f"{w}x{h}" for w, h in ((width, height), example.original) if w)
                raise ValueError(f"{found}: the result is {image.width}x{image.height} pixels, not {sizes}.")
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)


def _transfer(recipe: Callable[..., Tensor], examples: Sequence[Example]) -> list[np.ndarray]:
    """Give the foreground the colours of its own background."""
    pairs = [(to_tensor(example.composite), to_tensor(example.mask)) for example in examples]
    results = [recipe(composite, mask, composite, 1 - mask) if mask.any() else composite for composite, mask in pairs]
    return [result[0].permute(1, 2, 0).numpy() * 255 for result in results]


BASELINES: dict[str, Method] = {
    COMPOSITE: lambda examples: [example.composite for example in examples],
    "reinhard": partial(_transfer, reinhard),
    "xiao": partial(_transfer, xiao),
    "histogram": partial(_transfer, match_histograms),
}
"""Methods without a network; three transfer the colours of the background to the foreground."""


def with_masks(method: Method, change: Callable[[np.ndarray], np.ndarray]) -> Method:
    """A method that is given changed masks; the score still takes the true ones."""
    return lambda examples: method([example._replace(mask=change(example.mask)) for example in examples])


def fade(example: Example, pixels: int) -> Example:
    """The same with a foreground that fades into the real photo over so many pixels inside its border, as a soft brush
    leaves it; the mask stays."""
    opacity = feather(to_tensor(example.mask), pixels)[0, 0, :, :, None].numpy()
    composite = example.real + opacity * (example.composite.astype(np.float32) - example.real)
    return example._replace(composite=np.rint(composite).astype(np.uint8))


def method_name(model: str) -> str:
    """What a method is called in a table: a model's own name, or a file's or folder's without path and ending."""
    return Path(model).name.removesuffix(".safetensors").removesuffix(".onnx")


def load_method(model: str, device: str = "auto", precision: str = "fp32") -> Method:
    """A method by name.

    Args:
        model: one of :data:`BASELINES`, weights that come with the package, a ``.safetensors`` or ``.onnx`` file, or
            a folder of results (:class:`ResultFolder`).
        device: of a network: "auto" (a GPU where there is one), or as PyTorch names it.
        precision: of a network, see :func:`~hdnet_lib.registry.load_model`.

    Raises:
        ValueError: there is nothing of that name, or it cannot be read.
    """
    if not model:
        raise ValueError("a model has an empty name.")
    if model in BASELINES:
        return BASELINES[model]
    if model.endswith(".onnx"):
        return Network(load_model(model, precision))
    if model in list_pretrained() or model.endswith(".safetensors"):
        return Network(load_model(model, precision), choose_device(device))
    if Path(model).is_dir():
        return ResultFolder(model)
    known = ", ".join([*BASELINES, *list_pretrained()])
    raise ValueError(f"{model}: neither a folder of results, nor a .safetensors or .onnx file, nor one of {known}.")


def parse_models(text: str) -> list[str]:
    """Names separated by commas, as a notebook's parameter holds them; ``zoo/*.safetensors`` stands for its files.

    Raises:
        ValueError: a pattern matches no file.
    """
    models = []
    for name in filter(None, map(str.strip, text.split(","))):
        found = sorted(map(str, Path(name).parent.glob(Path(name).name))) if "*" in name else [name]
        if not found:
            raise ValueError(f"{name}: there is no such file.")
        models += found
    return models


def choose_device(device: str) -> str:
    """Turn "auto" into "cuda" where there is a GPU and else into "cpu"; other names stay.

    Raises:
        ValueError: PyTorch cannot use the device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"the device {device} cannot be used here; use auto or cpu.") from None
    return device


def load_methods(models: Iterable[str], device: str = "auto", precision: str = "fp32") -> dict[str, Method]:
    """Methods by their names in a table, first of all the composite as it is.

    Raises:
        ValueError: two have the same name; and see :func:`load_method`.
    """
    methods: dict[str, Method] = {COMPOSITE: BASELINES[COMPOSITE]}
    for model in models:
        name = method_name(model)
        if name in methods and model != COMPOSITE:
            raise ValueError(f"two methods are called {name}: rename a file.")
        methods[name] = load_method(model, device, precision)
    return methods


# --- scores

COLUMNS = ["name", "subset", "photo", "ratio", "method", "protocol", *Scores._fields, "seconds"]
"""Of a table of scores."""


def score_methods(
    examples: Sequence[Example],
    methods: Mapping[str, Method],
    protocols: Sequence[str] | Mapping[str, Protocol] = tuple(PROTOCOLS),
    batch_size: int = 8,
    images: Path | None = None,
    bar: tqdm | None = None,
) -> pd.DataFrame:
    """Score methods that are at hand.

    Reading, the methods and the metrics go on side by side; only a few batches are in memory.

    Args:
        examples: all of one size.
        methods: by name.
        protocols: names of :data:`~hdnet_lib.metrics.PROTOCOLS`, or protocols of your own by name.
        batch_size: composites that a method gets at once.
        images: folder for the results, as ``<method>/<example>.png``, in the 8 bits of the first protocol.
        bar: a progress bar to move on; by default one of its own.

    Returns:
        One row for each example, method and protocol, in that order: name, subset, photo, ratio (of the mask), method,
        protocol, mse, fmse, psnr, ssim, seconds (that the method took for one example of the batch, while reading
        and scoring went on beside it: more than it takes alone).

    Raises:
        ValueError: a protocol is unknown, an example cannot be read, or an output cannot be scored.
    """
    if not isinstance(protocols, Mapping):
        if unknown := set(protocols) - set(PROTOCOLS):
            raise ValueError(f"there is no protocol called {', '.join(sorted(unknown))}, only {', '.join(PROTOCOLS)}.")
        protocols = {name: PROTOCOLS[name] for name in protocols}
    first = next(iter(protocols.values()))

    def rate(job: tuple[Example, str, np.ndarray, float]) -> list[dict]:
        example, method, output, seconds = job
        row = {"name": example.name, "subset": example.subset, "photo": example.photo, "ratio": example.mask.mean()}
        try:
            if images:
                target = images / method / f"{example.name}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                pixels = to_eight_bits(output, "round" if first.rounding == "none" else first.rounding)
                save_image(Image.fromarray(pixels.astype(np.uint8)), target)
            return [
                {**row, "method": method, "protocol": name,
                 **score(output, example.real, example.mask, example.composite, protocol)._asdict(),
                 "seconds": seconds}
                for name, protocol in protocols.items()
            ]  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{method}, {example.name}: {error}") from None

    def outputs(executor: Executor) -> Iterator[tuple[Example, str, np.ndarray, float]]:
        read = ahead(executor, examples.__getitem__, range(len(examples)), 2 * batch_size)
        while batch := [example for _, example in zip(range(batch_size), read, strict=False)]:
            results = []
            for name, method in methods.items():
                started = time.perf_counter()
                result = method(batch)
                results.append((name, result, (time.perf_counter() - started) / len(batch)))
            for index, example in enumerate(batch):
                yield from ((example, name, result[index], seconds) for name, result, seconds in results)
            if bar is not None:
                bar.update(len(batch))

    if bar is None:
        with tqdm(total=len(examples), desc="evaluating", unit="composite") as bar:
            return score_methods(examples, methods, protocols, batch_size, images, bar)
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        rated = ahead(executor, rate, outputs(executor), 2 * batch_size * len(methods))
        return pd.DataFrame([row for rows in rated for row in rows])


def evaluate(
    data: str | Path,
    models: Sequence[str],
    table: str | Path | None = None,
    protocols: Sequence[str] = tuple(PROTOCOLS),
    split: str = "test",
    size: int = 256,
    partial: bool = False,
    limit: int = 0,
    batch_size: int = 8,
    device: str = "auto",
    shard: str = "1/1",
    images: str | Path | None = None,
    precision: str = "fp32",
) -> pd.DataFrame:
    """Score models on a data set, composite by composite.

    With a ``table``, every 64 composites go to a file in ``<table>.parts/``. A stopped evaluation goes on there when
    it is called again, several shards share the folder, and whoever finds all parts done writes the table.

    Args:
        data: a folder in iHarmony4 layout, "mini", or a pool's CSV table (:func:`open_examples`).
        models: see :func:`load_method`; the composite as it is, is always scored, too.
        table: CSV file to write; None to keep the scores in memory.
        protocols: names of :data:`~hdnet_lib.metrics.PROTOCOLS`; all by default.
        split, partial: see :func:`~hdnet_lib.data.iharmony4.list_triplets`.
        size: side in pixels, a multiple of 8. The paper's is 256.
        limit: at most so many composites, spread evenly over the list; 0 for all.
        batch_size: composites that a network gets at once.
        device: "auto", "cpu", "cuda", ...
        shard: "k/n" scores the k-th of n shares only.
        images: folder for the results as PNG, see :func:`score_methods`.
        precision: of networks, "fp32" or "bf16", see :func:`~hdnet_lib.registry.load_model`.

    Returns:
        See :func:`score_methods`; with shards the rows of this share.

    Raises:
        ValueError: an argument or a file cannot be used, or the parts on disk are of another evaluation.
    """
    if size < 16 or size % STRIDE:
        raise ValueError(f"size must be a multiple of {STRIDE} and at least 16, not {size}.")
    if batch_size < 1 or limit < 0:
        raise ValueError(f"batch size must be at least 1 and limit at least 0, not {batch_size} and {limit}.")
    share, shares = _parse_shard(shard)
    protocols = list(dict.fromkeys(protocols))
    methods = load_methods(models, device, precision)
    examples = open_examples(data, split, size, partial, limit)
    starts = range(0, len(examples), PART)
    mine = starts[share - 1 :: shares]
    if not mine:
        raise ValueError(f"the share {shard} is empty: {len(examples)} composites are shared out by {PART}.")
    parts = _Parts(Path(table), _settings(data, models, protocols, examples, precision)) if table else None
    rows = len(methods) * len(protocols)  # for each composite
    tables = []
    with tqdm(total=sum(min(PART, len(examples) - start) for start in mine), unit="composite") as bar:
        for start in mine:
            stop = min(start + PART, len(examples))
            # Images are written anew: nobody knows which of them are there.
            scores = parts.read(start, stop, rows) if parts and not images else None
            if scores is None:
                images = Path(images) if images else None
                scores = score_methods(
                    Subset(examples, range(start, stop)), methods, protocols, batch_size, images, bar
                )
                if parts:
                    parts.write(start, scores)
            else:
                bar.update(stop - start)
            tables.append(scores)
    if parts:
        parts.finish(starts)
    return pd.concat(tables, ignore_index=True)


def _parse_shard(shard: str) -> tuple[int, int]:
    share, _, shares = shard.partition("/")
    if not (share.isdecimal() and shares.isdecimal() and 1 <= int(share) <= int(shares)):
        raise ValueError(f"a shard is k/n with k from 1 to n, such as 2/4, not {shard!r}.")
    return int(share), int(shares)


def read_scores(path: str | Path) -> pd.DataFrame:
    """A table that :func:`evaluate` wrote, to the last bit.

    Raises:
        ValueError: it cannot be read, or is no such table.
    """
    try:
        # As text first: the readers of older pandas lose a last bit.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[COLUMNS]
        return table.astype(dict.fromkeys(("ratio", *Scores._fields, "seconds"), float))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: this is no table of scores: {reason(error)}.") from None


class _Parts:
    """Files of an evaluation: the table, what it was made from (.json) and, until it is whole, its parts."""

    def __init__(self, table: Path, settings: dict) -> None:
        if table.suffix != ".csv":
            raise ValueError(f"{table}: the name of a table of scores ends with .csv.")
        if not table.parent.is_dir():
            raise ValueError(f"{table}: the folder {table.parent} does not exist.")
        self.table, self.folder = table, table.with_name(f"{table.name}.parts")
        self.composites, self.whole = settings["composites"], None
        made_from = table.with_suffix(".json")
        if made_from.exists():
            try:
                earlier = dict(json.loads(made_from.read_text()))
            except (OSError, ValueError, TypeError) as error:
                raise ValueError(f"{made_from}: this does not tell how a table was made: {reason(error)}.") from None
            if different := [key for key in settings if settings[key] != earlier.get(key)]:
                raise ValueError(
                    f"{table} belongs to an evaluation with other {', '.join(different)}: choose another name, or "
                    f"delete {made_from.name}, the table and {self.folder.name}."
                )
        elif table.exists():
            raise ValueError(f"{table} exists, and {made_from.name}, which tells how it was made, does not: delete it.")
        self.folder.mkdir(exist_ok=True)
        if not made_from.exists():
            with replacing(made_from) as part:
                part.write_text(json.dumps(settings, indent=2) + "\n")

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:06d}.csv"

    def read(self, start: int, stop: int, rows: int) -> pd.DataFrame | None:
        """The part of these composites, from the whole table if that is there; None if it is not done."""
        if self.whole is None and self.table.is_file():
            self.whole = read_scores(self.table)
        if self.whole is not None:
            scores, path = self.whole.iloc[start * rows : stop * rows], self.table
            complete = len(self.whole) == self.composites * rows
        elif (path := self._path(start)).is_file():
            scores = read_scores(path)
            complete = len(scores) == (stop - start) * rows
        else:
            return None
        if not complete:
            raise ValueError(f"{path}: lines are missing or too many: delete it, and what is lost is scored again.")
        return scores

    def write(self, start: int, scores: pd.DataFrame) -> None:
        """Keep a part, unless the whole table is there."""
        try:
            with replacing(self._path(start)) as part:
                scores.to_csv(part, index=False)
        except FileNotFoundError:  # another run of the same share was faster, and removed the parts
            if not self.table.is_file():
                raise

    def finish(self, starts: range) -> None:
        """Write the table if all parts are done, and remove them."""
        if not self.table.is_file() and all(self._path(start).is_file() for start in starts):
            try:
                whole = pd.concat([read_scores(self._path(start)) for start in starts])
            except ValueError:  # another shard was faster, and removes the parts
                if not self.table.is_file():
                    raise
                return
            with replacing(self.table) as part:
                whole.to_csv(part, index=False)
        if self.table.is_file():
            shutil.rmtree(self.folder, ignore_errors=True)


def _settings(
    data: str | Path, models: Sequence[str], protocols: Sequence[str], examples: Triplets | Validation, precision: str
) -> dict:
    """What decides a table of scores, and tells its reader how it was made."""
    return {
        "data": Path(data).name,
        "composites": len(examples),
        "images": hashlib.sha256(repr(examples.sources()).encode()).hexdigest(),
        "size": examples.size,
        "protocols": list(protocols),
        "methods": {
            method_name(model): _fingerprint(model) + (f" in {precision}" if precision != "fp32" else "")
            for model in models
            if model != COMPOSITE
        },
    }


def _fingerprint(model: str) -> str:
    """What changes when a method does."""
    if model in BASELINES:
        return model
    if model in list_pretrained():
        return list_pretrained()[model].sha256
    path = Path(model)
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    return f"{len(files)} files, the newest of {max((file.st_mtime_ns for file in files), default=0)}"
