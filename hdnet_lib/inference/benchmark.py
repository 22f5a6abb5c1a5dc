"""How fast a network is, and how much memory it takes, beside the machine's own limit and the released formulation.

Every line is measured in a process of its own, so that its peak of memory is its own, and holds what it is compared
with: the rate of a large matrix product, measured in the same process, and the time of the same network with the
authors' formulation, which compares all pairs of positions.
"""

import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from hdnet_lib.data.images import to_pixels, to_unit
from hdnet_lib.inference.harmonize import WORKING_SIZE, harmonize
from hdnet_lib.inference.load import Autocast
from hdnet_lib.inference.onnx import OnnxModel, export_onnx
from hdnet_lib.model.architecture import count_flops, layer_table, random_inputs
from hdnet_lib.model.hdnet import HDNet
from hdnet_lib.peers.base import Peer
from hdnet_lib.registry import Network, create_model
from hdnet_lib.utils.allocator import keep_freed_memory
from hdnet_lib.utils.device import choose_device

RECORDED = Path(__file__).with_name("benchmark.csv")
"""A table of :func:`benchmark`, measured once; its column "machine" says where."""
SYSTEMS = Path(__file__).with_name("systems.csv")
"""The same for the systems that the paper compares with, beside HDNet and HDNet-lite; the column "run" tells which were
measured together. (PCT-Net's ViT at 256 pixels was measured again some minutes after the others of the first run: the
first measurement fell into a busy moment.)"""
UPSAMPLING = Path(__file__).with_name("upsampling.csv")
"""What ``data_scripts/compare_upsampling.py`` found on composites of large photos: those of Debian 12's packages
mate-backgrounds, lxqt-themes and plasma-workspace-wallpapers that are photos, at most 2,048 pixels wide, each with two
masks of :func:`~hdnet_lib.data.masks.make_mask`, recoloured by ``synthesize_composites.py --per-mask 2``."""
BACKENDS = ("fp32", "bf16", "compiled", "onnx", "int8", "photo")
"""How a network runs: by PyTorch in float32, or in bfloat16, or compiled by ``torch.compile``; by ONNX Runtime on the
CPU in float32, or in int8; or in :func:`~hdnet_lib.inference.harmonize.harmonize`, which shows it a small copy and
changes the image at full size by one map of colours (the mask is not snapped)."""

LARGEST_REFERENCE = 1024
"""Side in pixels up to which the released formulation is timed: at 2048 it takes 17 GB."""


def seconds(function: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Times of a first call and of ``repeats`` more."""
    synchronize = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type, lambda: None)
    times = []
    for _ in range(1 + repeats):
        synchronize()
        started = time.perf_counter()
        function()
        synchronize()
        times.append(time.perf_counter() - started)
    return times


def peak_of_process() -> float:
    """Most memory that this process has held, in bytes; NaN where the system does not tell (it is Linux that does)."""
    status = Path("/proc/self/status")  # getrusage would count the parent's memory, too
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return int(found[1]) * 1024 if found else math.nan


def machine(device: torch.device) -> str:
    """The processor that computes, and the version of PyTorch."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "mps":
        name = f"Apple GPU, {platform.machine()}"
    else:
        cpu = Path("/proc/cpuinfo")
        found = re.search(r"model name\s*:\s*(.+)", cpu.read_text()) if cpu.is_file() else None
        name = f"{found[1] if found else platform.machine()}, {torch.get_num_threads()} threads"
    return f"{name}, PyTorch {torch.__version__.partition('+')[0]}"


@torch.inference_mode()
def measure(model: str, backend: str, size: int, device: str, repeats: int, onnx: str) -> dict:
    """One line of :func:`benchmark`, measured in this process; ``onnx``: the file of the backends "onnx" and "int8"."""
    keep_freed_memory()
    where = torch.device(device)
    one, other = torch.randn(2, 2048, 2048, device=where)
    rate = 2 * 2048**3 / min(seconds(lambda: one @ other, where, 10)[1:])
    composite, mask = (tensor.to(where) for tensor in random_inputs(size))
    eager = create_model(model).to(where).eval()
    network: Callable[[Tensor, Tensor], object]
    if backend == "compiled":
        network = torch.compile(eager)
    elif backend in ("onnx", "int8"):
        network = OnnxModel(onnx)
    elif backend == "photo":
        photo, inside = to_pixels(to_unit(composite.cpu())), mask[0, 0].cpu().numpy() > 0

        def network(composite: Tensor, mask: Tensor) -> object:
            return harmonize(eager, photo, inside, snap=False)
    else:
        network = Autocast(eager) if backend == "bf16" else eager
    first = seconds(lambda: network(composite, mask), where, 0)[0]
    times = seconds(lambda: network(composite, mask), where, repeats)[1:]
    peak = torch.cuda.max_memory_allocated(where) if where.type == "cuda" else peak_of_process()
    seen = min(size, WORKING_SIZE) if backend == "photo" else size
    # Of HDNet the arithmetic that grows with the pixels: at 256, where matching is nothing beside it.
    if isinstance(eager, HDNet):
        flops = float(layer_table(cast(HDNet, create_model(model))).flops.sum()) * (seen / 256) ** 2
    else:
        flops = float(count_flops(eager, seen if eager.takes(seen) else eager.square))
    line: dict = {
        "model": model, "backend": backend, "size": size, "device": device, "machine": machine(where),
        "seconds": statistics.median(times), "first_seconds": first, "gflops_of_products": rate / 1e9,
        "parameters": sum(parameter.numel() for parameter in eager.parameters()), "gflop": flops / 1e9,
        "roofline_seconds": flops / rate, "roofline_ratio": statistics.median(times) / flops * rate,
        "peak_gb": peak / 1e9,
    }  # fmt: skip
    if isinstance(eager, HDNet) and backend == "fp32" and size <= LARGEST_REFERENCE:
        released = create_model(model, local_dynamic="released").to(where).eval()
        reference = seconds(lambda: released(composite, mask), where, repeats)[1:]
        line["released_seconds"] = statistics.median(reference)
        line["times_released"] = line["released_seconds"] / line["seconds"]
    return line


def benchmark(
    models: Sequence[str],
    sizes: Sequence[int],
    device: str = "auto",
    repeats: int = 7,
    backends: Sequence[str] = ("fp32",),
) -> pd.DataFrame:
    """Time networks with random weights on one random image with a square foreground.

    Args:
        models: names of :func:`create_model`.
        sizes: sides in pixels, multiples of 8, at least 256. A network that cannot take a size is left out there.
        device: "auto", "cpu", "cuda" or "mps".
        repeats: timed calls each; the median counts.
        backends: of :data:`BACKENDS`.

    Returns:
        A line for each model, backend and size. The columns are machine; seconds; first_seconds (of the first call,
        compilation included); gflops_of_products (rate of a matrix product of 2048 x 2048); parameters; gflop (of
        convolutions and matrix products, for one image; of HDNet at 256 pixels and scaled by them; of "photo" at the
        size that the network sees); roofline_seconds (that arithmetic by that rate) and roofline_ratio; peak_gb (of the
        whole process, or of the GPU's memory); for HDNet in float32 released_seconds and times_released (how many times
        as long the released formulation takes).

    Raises:
        ValueError: a name, a size or the device cannot be used, or a measurement fails, perhaps for want of memory.
    """
    if wrong := [size for size in sizes if size < 256 or size % 8]:
        raise ValueError(f"a size must be a multiple of 8 and at least 256, not {wrong[0]}.")
    device = choose_device(device)
    if unknown := [backend for backend in backends if backend not in BACKENDS]:
        raise ValueError(f"a backend is one of {', '.join(BACKENDS)}, not {unknown[0]!r}.")
    networks = {model: create_model(model) for model in models}
    exported = {"onnx", "int8"} & set(backends)
    if exported and (others := [model for model, network in networks.items() if not isinstance(network, HDNet)]):
        raise ValueError(f"the backend {min(exported)} is for HDNet alone, not for {others[0]}.")
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            (model, backend, size)
            for model in models
            for backend in backends
            for size in sizes
            if backend == "photo" or _fits(networks[model], size)
        ]
        if not jobs:
            asked = "; ".join(
                f"{model}: {network.sizes}" for model, network in networks.items() if isinstance(network, Peer)
            )
            raise ValueError(f"none of the networks takes one of these sizes ({asked}).")
        for model, backend, size in tqdm(jobs, unit="measurement"):
            onnx = Path(folder) / f"{model}-{backend}.onnx"
            if backend in ("onnx", "int8") and not onnx.exists():
                export_onnx(networks[model], onnx, [random_inputs(256)] if backend == "int8" else None)
            job = [model, backend, size, "cpu" if backend in ("onnx", "int8") else device, repeats, str(onnx)]
            command = [sys.executable, "-m", "hdnet_lib.inference.benchmark", json.dumps(job)]
            # The first call of a compiled network is to compile, also where an earlier run left its code.
            environment = os.environ | {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                ended = ["it was ended from outside, perhaps for want of memory"]
                what = (done.stderr.strip().splitlines() or ended)[-1]
                raise ValueError(f"{model} at {size} pixels, {backend}, cannot be measured: {what}")
            lines.append(json.loads(done.stdout))
    return pd.DataFrame(lines)


def _fits(network: Network, size: int) -> bool:
    return isinstance(network, HDNet) or network.takes(size)


def as_markdown(table: pd.DataFrame) -> str:
    """A benchmark as a table to read: seconds, times the roofline, peak of memory."""
    cells = [f"{line.seconds:.3f} s, {line.roofline_ratio:.2f}x, {line.peak_gb:.1f} GB" for line in table.itertuples()]
    wide = table.assign(cell=cells).pivot(index=["model", "backend"], columns="size", values="cell").fillna("")
    wide = wide.loc[list(dict.fromkeys(zip(table.model, table.backend, strict=True)))]
    lines = [["model", "backend", *(f"{size} px" for size in wide)], ["---"] * (2 + wide.shape[1])]
    lines += [[*names, *row] for names, row in zip(wide.index, wide.to_numpy(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":  # one line, for benchmark()
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
