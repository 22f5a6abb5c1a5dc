"""Training on composites made on the fly."""

import csv
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from hdnet_lib.data.pool import Composites, PhotoPool
from hdnet_lib.errors import reason
from hdnet_lib.files import replacing
from hdnet_lib.losses import foreground_mse
from hdnet_lib.model import HDNet, paste
from hdnet_lib.registry import create_model, fill


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a run, and what the weights file records."""

    model: str = "hdnet-lite"
    pool: str = "photos.csv"
    """The CSV table of :class:`~hdnet_lib.data.pool.PhotoPool`."""
    stages: tuple[tuple[int, int], ...] = ((128, 64_000), (256, 5_120))
    """(side in pixels, number of composites) one after the other; the last side is the largest."""
    batch_size: int = 16
    learning_rate: float = 3e-3
    """Peak of the schedule: linear warm-up over the first 2 % of the pixels, then a cosine to zero."""
    average_decay: float = 0.998
    """The weights that ship are an exponential moving average over the steps, with this decay."""
    start: str = ""
    """Weights (safetensors) of the same model to start from, instead of random ones."""
    seed: int = 0
    device: str = "cpu"


def learning_rate_factor(progress: float, warm_up: float = 0.02) -> float:
    """Share of the peak learning rate at ``progress`` in [0, 1] of the pixels seen."""
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def train(config: TrainingConfig, output: str | Path) -> HDNet:
    """Train a model and write ``output`` (safetensors, with the config as its header) and a CSV log.

    The log lies beside the weights, with the suffix ``.csv``. Every 200 steps both are written anew, with
    the training loss and the PSNR of 128 fixed composites of the validation photos, so that a run that is
    stopped leaves its last state. The last weights are kept, not the best.

    Raises:
        ValueError: the config or the pool cannot be used.
        FloatingPointError: the loss is no longer a number; the files keep the last good state.
    """
    output = Path(output)
    if not output.parent.is_dir():
        raise ValueError(f"{output}: the folder {output.parent} does not exist.")
    if output.suffix != ".safetensors" or output.is_dir():
        raise ValueError(f"{output}: the output must be a file name that ends with .safetensors.")
    for path in (output, output.with_suffix(".csv")):
        if path.resolve() in (Path(config.pool).resolve(), Path(config.start).resolve()):
            raise ValueError(f"{output}: training would overwrite {path}, which it reads; choose another name.")
    if config.batch_size < 1:
        raise ValueError(f"the batch needs at least one photo, not {config.batch_size}.")
    if any(count < config.batch_size for _, count in config.stages):
        raise ValueError(
            f"every stage needs at least one batch of {config.batch_size} composites, not {config.stages}."
        )
    sides = [side for side, _ in config.stages]
    if any(side % 16 for side in sides):
        raise ValueError(f"the sides of the stages must be multiples of 16, not {config.stages}.")

    torch.manual_seed(config.seed)
    device = _device(config.device)
    model = create_model(config.model)
    if config.start:
        fill(model, config.start)
    model.to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.average_decay))
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)

    validation = PhotoPool(config.pool, "validation", sides[0], device).composites(range(128))

    plan = [side for side, count in config.stages for _ in range(count // config.batch_size)]
    total_pixels = sum(config.batch_size * side**2 for side in plan)
    log, pixels, started = [], 0, time.monotonic()
    batches = _batches(config, device)
    progress = tqdm(plan, desc=f"training {config.model}", unit="step")
    for step, side in enumerate(progress, start=1):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(pixels / total_pixels)
        composite, mask, real = next(batches)
        with torch.autocast(device.type, torch.bfloat16):
            raw = model(composite, mask)
        loss = foreground_mse(paste(raw.float(), composite, mask), real, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.update_parameters(model)
        pixels += config.batch_size * side**2

        if step % 200 == 0 or step == len(plan):
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"The loss became {loss.item()} at step {step}; try a lower learning rate.")
            psnr = _psnr(average.module, *validation)
            seconds = round(time.monotonic() - started)
            log.append([step, side, seconds, loss.item(), psnr])
            progress.set_postfix(loss=f"{loss.item():.4f}", psnr=f"{psnr:.2f} dB")
            _write(average.module, output, config, log)
    return average.module.cpu().eval()


def _batches(config: TrainingConfig, device: torch.device) -> Iterator[Composites]:
    """The composites of all stages, numbered through, so that no stage repeats those of another."""
    first = 0
    for side, count in config.stages:
        count -= count % config.batch_size
        pool = PhotoPool(config.pool, "train", side, device)
        yield from pool.batches(config.batch_size, range(first, first + count), config.seed)
        first += count


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"the device {name!r} cannot be used here: {reason(error)}.") from None
    return device


def _write(model: HDNet, output: Path, config: TrainingConfig, log: list[list]) -> None:
    """Write weights and log, each to a temporary name first, so that neither is ever half-written."""
    header = {"config": json.dumps(asdict(config)), "steps": str(log[-1][0]), "seconds": str(log[-1][2])}
    with replacing(output) as part:
        save_file(model.state_dict(), part, metadata=header)
    with replacing(output.with_suffix(".csv")) as part, part.open("w", newline="") as file:
        csv.writer(file).writerows([["step", "side", "seconds", "loss", "validation_psnr"], *log])


@torch.inference_mode()
def _psnr(model: HDNet, composite: Tensor, mask: Tensor, real: Tensor) -> float:
    """Mean PSNR in dB over the whole image, peak 255, no rounding."""
    errors = []
    for c, m, r in zip(composite.split(16), mask.split(16), real.split(16), strict=True):
        errors.append((paste(model(c, m), c, m) - r).square().mean(dim=(1, 2, 3)) / 4)
    return (-10 * torch.cat(errors).clamp(min=1e-10).log10()).mean().item()
