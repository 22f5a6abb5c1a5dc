"""Measure how fast training composites are made, beside how fast the models train on them.

    python data_scripts/benchmark_data.py [POOL] [--device cuda] [--batch-size 16] [--size 256]

Everything in one run, on one device. "share" is the part of a training step, data included, that making its
composites takes.
"""

import argparse
import sys
import time
from collections.abc import Callable

import pandas as pd
import torch

from hdnet_lib import create_model, list_models, paste
from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.composites.recipes import RECIPES
from hdnet_lib.data.iharmony4 import MINI
from hdnet_lib.data.samples import Batch
from hdnet_lib.model.losses import foreground_mse
from hdnet_lib.training.loop import compile_network, memory_format
from hdnet_lib.utils.arguments import at_least


def seconds(function: Callable[[int], object], device: torch.device, repeats: int) -> float:
    """Median time of a call, after two to warm up."""
    times = []
    for number in range(repeats + 2):
        started = time.perf_counter()
        function(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return sorted(times[2:])[repeats // 2]


def training_step(
    name: str,
    batch: Batch,
    device: torch.device,
    layout: torch.memory_format | None = None,
    compiled: bool = False,
) -> Callable[[int], object]:
    """A step as in ``hdnet train``, without the average: bf16 autocast, loss of Eq. 1, fused Adam.

    ``layout`` is that of images and weights, by default the one that training takes; ``compiled`` as by ``--compile``.
    """
    layout = layout or memory_format(device)
    model = create_model(name).to(device, memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    network = compile_network(model, device) if compiled else model

    def step(_: int) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            raw = network(batch.composite.contiguous(memory_format=layout), batch.mask)
        loss = foreground_mse(paste(raw.float(), batch.composite, batch.mask), batch.real, batch.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def add_options(parser: argparse.ArgumentParser) -> None:
    """What both benchmarks can be told."""
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--size", type=at_least(16), default=256)
    parser.add_argument("--batch-size", type=at_least(1), default=16)
    parser.add_argument("--models", nargs="+", choices=list_models(), default=["hdnet-lite", "hdnet"])
    parser.add_argument("--repeats", type=at_least(1), default=5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pool", nargs="?", default=MINI / "pool.csv", help="CSV table (default: the mini set's)")
    add_options(parser)
    arguments = parser.parse_args()
    device, count = torch.device(arguments.device), arguments.batch_size
    try:
        resident, streaming = (
            PhotoDataset(arguments.pool, "train", arguments.size, device, resident=choice) for choice in (True, False)
        )
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")

    def take(pool: PhotoDataset) -> Callable[[int], object]:
        batches = pool.batches(range(first, first + count) for first in range(0, 10**9, count))
        return lambda _: next(batches)

    rows = []
    for recipe in (*RECIPES, "mix"):
        resident.recipe = recipe
        rows.append((recipe, seconds(take(resident), device, arguments.repeats)))
    rows.append(("mix, pool on disk", seconds(take(streaming), device, arguments.repeats)))
    table = pd.DataFrame(rows, columns=["composites", "time"]).set_index("composites")
    table["composites/s"] = count / table.time
    for name in arguments.models:
        step = seconds(training_step(name, resident.composites(range(count)), device), device, arguments.repeats)
        print(f"{name}: {count / step:.1f} images/s in training without data")
        table[f"share, {name}"] = (table.time / (table.time + step)).map("{:.1%}".format)
    print(f"\n{arguments.size} px, batches of {count}, {device}, {torch.get_num_threads()} threads\n")
    print(table.drop(columns="time").round(1).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main())
