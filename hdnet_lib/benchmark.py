"""How fast a network is, and how much memory it takes, beside the machine's own limit and the released formulation.

Every line is measured in a process of its own, so that its peak of memory is its own, and holds what it is compared
with: the rate of a large matrix product, measured in the same process, and the time of the same network with the
authors' formulation, which compares all pairs of positions.
"""

import json
import math
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from hdnet_lib.allocator import keep_freed_memory
from hdnet_lib.evaluation import choose_device
from hdnet_lib.registry import create_model

LARGEST_REFERENCE = 1024
"""Side in pixels up to which the released formulation is timed: at 2048 it takes 17 GB."""
FOREGROUND = 0.25
"""Share of the image that the mask covers, a square in the middle."""


def seconds(function: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Times of a call after a first one that does not count."""
    times = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return times[1:]


def peak_of_process() -> float:
    """Most memory that this process has held, in bytes; NaN where the system does not tell (it is Linux that does)."""
    status = Path("/proc/self/status")  # getrusage would count the parent's memory, too
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return int(found[1]) * 1024 if found else math.nan


@torch.inference_mode()
def measure(model: str, size: int, device: str, repeats: int) -> dict:
    """One line of the benchmark, measured in this process; see :func:`benchmark`."""
    keep_freed_memory()
    where = torch.device(device)
    one, other = torch.randn(2, 2048, 2048, device=where)
    rate = 2 * 2048**3 / min(seconds(lambda: one @ other, where, 10))
    composite = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(where) * 2 - 1
    mask = torch.zeros(1, 1, size, size, device=where)
    side = round(size * FOREGROUND**0.5)
    mask[..., (size - side) // 2 :, (size - side) // 2 :][..., :side, :side] = 1
    network = create_model(model).to(where).eval()
    times = seconds(lambda: network(composite, mask), where, repeats)
    peak = torch.cuda.max_memory_allocated(where) if where.type == "cuda" else peak_of_process()
    # The arithmetic that grows with the pixels: at 256, where matching is nothing beside it.
    with FlopCounterMode(display=False) as counter:
        network(composite[..., :256, :256], mask[..., :256, :256])
    floor = counter.get_total_flops() * (size / 256) ** 2 / rate
    line = {
        "model": model, "size": size, "device": device, "threads": torch.get_num_threads(),
        "seconds": statistics.median(times), "gflops_of_products": rate / 1e9, "floor_seconds": floor,
        "times_floor": statistics.median(times) / floor, "peak_gb": peak / 1e9,
    }  # fmt: skip
    if size <= LARGEST_REFERENCE:
        released = create_model(model, local_dynamic="released").to(where).eval()
        line["released_seconds"] = statistics.median(seconds(lambda: released(composite, mask), where, repeats))
        line["times_released"] = line["released_seconds"] / line["seconds"]
    return line


def benchmark(models: list[str], sizes: list[int], device: str = "auto", repeats: int = 7) -> pd.DataFrame:
    """Time networks on one random image with a square foreground, in float32.

    Args:
        models: names of :func:`~hdnet_lib.registry.create_model`.
        sizes: sides in pixels, multiples of 8, at least 256.
        device: "auto", "cpu" or "cuda".
        repeats: timed calls each; the median counts.

    Returns:
        A line for each model and size: seconds; gflops_of_products (rate of a matrix product of 2048 x 2048);
        floor_seconds (the convolutions' arithmetic by that rate) and times_floor; peak_gb (of the whole process, or of
        the GPU's memory); released_seconds and times_released (how many times as long the released formulation takes).

    Raises:
        ValueError: a name, a size or the device cannot be used, or a measurement fails, perhaps for want of memory.
    """
    if wrong := [size for size in sizes if size < 256 or size % 8]:
        raise ValueError(f"a size must be a multiple of 8 and at least 256, not {wrong[0]}.")
    device = choose_device(device)
    for model in models:
        create_model(model)
    lines = []
    for model, size in tqdm([(model, size) for model in models for size in sizes], unit="measurement"):
        command = [sys.executable, "-m", "hdnet_lib.benchmark", json.dumps([model, size, device, repeats])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            what = (done.stderr.strip().splitlines() or ["it was ended from outside, perhaps for want of memory"])[-1]
            raise ValueError(f"{model} at {size} pixels cannot be measured: {what}")
        lines.append(json.loads(done.stdout))
    return pd.DataFrame(lines)


if __name__ == "__main__":  # one line, for benchmark()
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
