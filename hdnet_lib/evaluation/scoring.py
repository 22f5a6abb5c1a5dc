"""Score methods on composites whose real photo is known: one row for each composite, method and protocol.

:func:`evaluate` is the whole way from a data set and names of models to a table on disk; :func:`score_methods` is its
core, for methods that are at hand. :mod:`~hdnet_lib.evaluation.summary` makes means and intervals of such a table.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from PIL import Image
from torch.utils.data import Subset
from tqdm import tqdm

from hdnet_lib.data.careless import CONDITIONS
from hdnet_lib.data.iharmony4 import Triplets
from hdnet_lib.data.samples import Sample
from hdnet_lib.data.save import save_image
from hdnet_lib.evaluation import chunks
from hdnet_lib.evaluation.chunks import Chunks
from hdnet_lib.evaluation.examples import Validation, open_examples
from hdnet_lib.evaluation.methods import COMPOSITE, Method, fingerprint, load_methods, method_name
from hdnet_lib.evaluation.metrics import PROTOCOLS, Protocol, score, to_eight_bits
from hdnet_lib.evaluation.robustness import SNAPPED, under_conditions, with_snapped_masks
from hdnet_lib.model.hdnet import STRIDE
from hdnet_lib.utils.parallel import bounded_map


def score_methods(
    samples: Sequence[Sample],
    methods: Mapping[str, Method],
    protocols: Sequence[str] | Mapping[str, Protocol] = tuple(PROTOCOLS),
    batch_size: int = 8,
    images: Path | None = None,
    bar: tqdm | None = None,
) -> pd.DataFrame:
    """Score methods that are at hand.

    Reading, the methods and the metrics go on side by side; only a few batches are in memory.

    Args:
        samples: all of one size.
        methods: by name.
        protocols: names of :data:`~hdnet_lib.evaluation.metrics.PROTOCOLS`, or protocols of your own by name.
        batch_size: composites that a method gets at once.
        images: folder for the results, as ``<method>/<sample>.png``, in the 8 bits of the first protocol.
        bar: a progress bar to move on; by default one of its own.

    Returns:
        One row for each sample, method and protocol, in that order. The columns are name, subset, photo, ratio (of the
        mask), method, protocol, mse, fmse, psnr, ssim, seconds (that the method took for one sample of the batch, while
        reading and scoring went on beside it: more than it takes alone).

    Raises:
        ValueError: a protocol is unknown, a sample cannot be read, or an output cannot be scored.
    """
    if not isinstance(protocols, Mapping):
        if unknown := set(protocols) - set(PROTOCOLS):
            raise ValueError(f"there is no protocol called {', '.join(sorted(unknown))}, only {', '.join(PROTOCOLS)}.")
        protocols = {name: PROTOCOLS[name] for name in protocols}
    own_bar = tqdm(total=len(samples), desc="evaluating", unit="composite") if bar is None else nullcontext(bar)
    with own_bar as bar, ThreadPoolExecutor(os.cpu_count()) as executor:
        outputs = _outputs(executor, samples, methods, batch_size, bar)
        score_one = partial(_score_one, protocols=protocols, images=images)
        scored = bounded_map(executor, score_one, outputs, 2 * batch_size * len(methods))
        return pd.DataFrame([row for rows in scored for row in rows])


class _Output(NamedTuple):
    """What a method made of a sample."""

    sample: Sample
    method: str
    image: np.ndarray
    seconds: float


def _outputs(
    executor: Executor, samples: Sequence[Sample], methods: Mapping[str, Method], batch_size: int, bar: tqdm
) -> Iterator[_Output]:
    """Run every method on batches of samples, which the executor reads ahead."""
    read = bounded_map(executor, samples.__getitem__, range(len(samples)), 2 * batch_size)
    while batch := list(islice(read, batch_size)):
        results = []
        for name, method in methods.items():
            started = time.perf_counter()
            images = method(batch)
            results.append((name, images, (time.perf_counter() - started) / len(batch)))
        for index, sample in enumerate(batch):
            yield from (_Output(sample, name, images[index], seconds) for name, images, seconds in results)
        bar.update(len(batch))


def _score_one(output: _Output, protocols: Mapping[str, Protocol], images: Path | None) -> list[dict]:
    """The rows of one output, one for each protocol; writes the image, too, where a folder is given."""
    sample, method, image, seconds = output
    row = {"name": sample.name, "subset": sample.subset, "photo": sample.photo, "ratio": sample.mask.mean()}
    try:
        if images:
            rounding = next(iter(protocols.values())).rounding
            pixels = to_eight_bits(image, "round" if rounding == "none" else rounding)
            target = images / method / f"{sample.name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            save_image(Image.fromarray(pixels.astype(np.uint8)), target)
        rows = []
        for name, protocol in protocols.items():
            scores = score(image, sample.real, sample.mask, sample.composite, protocol)
            rows.append(row | {"method": method, "protocol": name} | scores._asdict() | {"seconds": seconds})
        return rows
    except ValueError as error:
        raise ValueError(f"{method}, {sample.name}: {error}") from None


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
    masks: bool = False,
    snap: bool = False,
) -> pd.DataFrame:
    """Score models on a data set, composite by composite.

    >>> table = evaluate("mini", ["hdnet-lite"], limit=4, device="cpu")
    >>> table.groupby(["method", "protocol"]).psnr.size().to_dict()[("hdnet-lite", "hdnet")]
    4

    With a ``table``, every 64 composites go to a file in ``<table>.parts/``. A stopped evaluation goes on there when
    it is called again, several shards share the folder, and whoever finds all parts done writes the table.

    Args:
        data: a folder in iHarmony4 layout, "mini", or a CSV table of photos and masks (:func:`open_examples`).
        models: see :func:`~hdnet_lib.evaluation.methods.load_method`; the composite as it is, is always scored, too.
        table: CSV file to write; None to keep the scores in memory.
        protocols: names of :data:`~hdnet_lib.evaluation.metrics.PROTOCOLS`; all by default.
        split, partial: see :func:`~hdnet_lib.data.iharmony4.list_triplets`.
        size: side in pixels, a multiple of 8. The paper's is 256.
        limit: at most this many composites, spread evenly over the list; 0 for all.
        batch_size: composites that a network gets at once.
        device: "auto", "cpu", "cuda", ...
        shard: "k/n" scores the k-th of n shares only.
        images: folder for the results as PNG, see :func:`score_methods`.
        precision: of networks, "fp32" or "bf16", see :func:`~hdnet_lib.inference.load.load_model`.
        masks: every method also with careless masks (:data:`~hdnet_lib.data.careless.CONDITIONS`), for
            :func:`~hdnet_lib.evaluation.robustness.robust_gains`.
        snap: every method also with snapped masks, as ``<method>+snap``.

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
    if snap:
        methods |= {
            f"{name}{SNAPPED}": with_snapped_masks(method) for name, method in methods.items() if name != COMPOSITE
        }
    if masks:
        methods = under_conditions(methods)
    examples: Any = open_examples(data, split, size, partial, limit)
    starts = range(0, len(examples), chunks.CHUNK_SIZE)
    mine = starts[share - 1 :: shares]
    if not mine:
        raise ValueError(
            f"the share {shard} is empty: {len(examples)} composites are shared out by {chunks.CHUNK_SIZE}."
        )
    files = Chunks(Path(table), _settings(data, models, protocols, examples, precision, masks, snap)) if table else None
    rows = len(methods) * len(protocols)  # for each composite
    tables = []
    with tqdm(total=sum(min(chunks.CHUNK_SIZE, len(examples) - start) for start in mine), unit="composite") as bar:
        for start in mine:
            stop = min(start + chunks.CHUNK_SIZE, len(examples))
            # Images are written anew: nobody knows which of them are there.
            scores = files.read(start, stop, rows) if files and not images else None
            if scores is None:
                images = Path(images) if images else None
                some = cast(Sequence[Sample], Subset(examples, range(start, stop)))
                scores = score_methods(some, methods, protocols, batch_size, images, bar)
                if files:
                    files.write(start, scores)
            else:
                bar.update(stop - start)
            tables.append(scores)
    if files:
        files.finish(starts)
    return pd.concat(tables, ignore_index=True)


def _parse_shard(shard: str) -> tuple[int, int]:
    share, _, shares = shard.partition("/")
    if not (share.isdecimal() and shares.isdecimal() and 1 <= int(share) <= int(shares)):
        raise ValueError(f"a shard is k/n with k from 1 to n, such as 2/4, not {shard!r}.")
    return int(share), int(shares)


def _settings(
    data: str | Path,
    models: Sequence[str],
    protocols: Sequence[str],
    examples: Triplets | Validation,
    precision: str,
    masks: bool,
    snap: bool,
) -> dict:
    """What decides a table of scores, and tells its reader how it was made."""
    settings = {
        "data": Path(data).name,
        "composites": len(examples),
        "images": hashlib.sha256(repr(examples.sources()).encode()).hexdigest(),
        "size": examples.size,
        "protocols": list(protocols),
        "methods": {
            method_name(model): fingerprint(model) + (f" in {precision}" if precision != "fp32" else "")
            for model in models
            if model != COMPOSITE
        },
    }
    if masks:
        settings["masks"] = list(CONDITIONS)
    if snap:
        settings["snap"] = True
    return settings
