"""Training on a CPU, a GPU or many, by Accelerate: interrupted, resumed, and the same every time."""

import copy
import csv
import json
import math
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import is_tensorboard_available
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

import hdnet_lib
from hdnet_lib.data.pool import Composites, PhotoPool, Pool, TripletPool
from hdnet_lib.errors import reason
from hdnet_lib.files import replacing
from hdnet_lib.losses import foreground_mse
from hdnet_lib.model import HDNet, initialise_as_identity, paste
from hdnet_lib.registry import create_model, fill, load_weights

MADE_TOGETHER = 256 * 128**2
"""Composites of so many pixels in all are made at once on a GPU (256 of 128 x 128)."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a run, and what the weights file records."""

    model: str = "hdnet-lite"
    overrides: dict = field(default_factory=dict)
    """Arguments of :func:`~hdnet_lib.registry.create_model` beside the name, such as ``{"k": 3}``."""
    data: str = "photos.csv"
    """A CSV table of photos and masks (:class:`~hdnet_lib.data.pool.PhotoPool`), composites made on the fly; or
    a folder in iHarmony4 layout, or "mini", whose own composites are read
    (:class:`~hdnet_lib.data.pool.TripletPool`)."""
    stages: tuple[tuple[int, int], ...] = ((128, 64_000), (256, 5_120))
    """(side in pixels, number of composites) one after the other."""
    loose_masks: float = 0.0
    """Share of the training composites whose mask misses the border (:func:`~hdnet_lib.data.pool.loosen`); the paper
    has none."""
    epochs: int = 0
    """If not 0, the counts do not matter: one stage, of the last side, goes so many times through the data."""
    batch_size: int = 16
    """Composites of one step, over all processes."""
    learning_rate: float = 3e-3
    """Peak of the schedule."""
    schedule: str = "cosine"
    """"cosine": linear warm-up over the first 2 % of the pixels, then a cosine to zero; "steps": constant, a
    tenth after 100/120 of the pixels and a hundredth after 110/120."""
    average_decay: float = 0.998
    """The weights that count are an exponential moving average over the steps, with this decay; 0 for none. Early
    on it is at most (1 + step) / (10 + step), so that a short run does not keep its random start."""
    precision: str = "bf16"
    """"bf16" (autocast) or "fp32"."""
    initialisation: str = "identity"
    """"identity": see :func:`~hdnet_lib.model.initialise_as_identity`; "normal": N(0, 0.02), the released one."""
    compile: bool = False
    """Whether `torch.compile` makes the network first, which takes a minute for each side in `stages`. On a CPU it then
    gains less than a tenth; a GPU is not measured yet. ``data_scripts/benchmark_training.py --compile`` measures it."""
    start: str = ""
    """Weights (safetensors) of the same model to start from, instead of random ones."""
    validate_every: int = 200
    """Steps between two lines of the log, each with a validation and a checkpoint."""
    seed: int = 0
    device: str = "auto"
    """"auto": the GPUs that Accelerate finds, else the CPU; or "cpu", or "cuda"."""


PRESETS = {
    "budget": TrainingConfig(),
    "paper": TrainingConfig(
        model="hdnet",
        stages=((256, 0),),
        epochs=120,
        batch_size=12,
        learning_rate=1e-3,
        schedule="steps",
        average_decay=0.0,
        initialisation="normal",
        precision="fp32",
    ),
}
"""Named settings: "paper" is section 4.1 of the paper; "budget" trades its long run for a short one."""


def memory_format(device: torch.device) -> torch.memory_format:
    """Order of images and weights in memory: on a CPU, channels last takes 5 to 45 % longer; on a GPU it is what NVIDIA
    advises for bf16, and not measured here yet."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def learning_rate_factor(progress: float, schedule: str = "cosine", warm_up: float = 0.02) -> float:
    """Share of the peak learning rate at ``progress`` in [0, 1] of the pixels seen."""
    if schedule == "steps":
        return 1.0 if progress < 100 / 120 else 0.1 if progress < 110 / 120 else 0.01
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def train(config: TrainingConfig, output: str | Path, minutes: float = math.inf) -> HDNet | None:
    """Train a model and write ``output`` (safetensors with a JSON header), and beside it a log and a checkpoint.

    The log is a CSV file (suffix ``.csv``): at every validation the mean loss since the last one, and the loss and
    the PSNR of 128 fixed composites of the validation photos at the last side. ``output`` holds the weights of the
    lowest validation loss. (The mean PSNR would not do: composites that are nearly right decide it, and a network
    that starts near the identity does best on them before it has learned anything.) The checkpoint (suffix
    ``.checkpoint``) holds all that the run needs to go on: call again with the same config and it does, to the bit
    where the hardware repeats itself (one CPU process does).

    Under ``accelerate launch`` or ``notebook_launcher`` each process makes its part of every batch. Where TensorBoard
    is installed, the log goes to a folder ``<name>.tensorboard`` beside ``output``, too.

    Args:
        config: what to train on what, and how.
        output: file to write; its name ends with ``.safetensors``.
        minutes: stop at the first validation after so long; the run can be continued.

    Returns:
        The model with the best weights, in evaluation mode on the CPU; None if the time ran out first.

    Raises:
        ValueError: the config or the data cannot be used, or the files cannot be written.
        FloatingPointError: the loss is no longer a number; the files keep the last good state.
    """
    output, started = Path(output), time.monotonic()
    _check(config, output)
    accelerator = _accelerator(config, output)
    torch.manual_seed(config.seed)
    model = create_model(config.model, **config.overrides)
    if config.initialisation == "identity":
        initialise_as_identity(model)
    if config.start:
        fill(model, config.start)
    model.to(accelerator.device, memory_format=memory_format(accelerator.device))
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)

    last_side = config.stages[-1][0]
    stages = config.stages
    if config.epochs:
        stages = ((last_side, config.epochs * len(_pool(config, "train", last_side, accelerator.device))),)
    plan = [side for side, count in stages for _ in range(count // config.batch_size)]
    total_pixels = sum(side**2 for side in plan)
    if not plan:
        raise ValueError(f"the data give no whole batch of {config.batch_size}: choose a smaller batch or more epochs.")
    # At the last side: the weights that are best there are the ones to keep.
    validation = _pool(config, "validation", last_side, accelerator.device).composites(range(128))

    run = _Run(config, output, len(plan), model, average, optimiser)
    run.resume()
    accelerator.init_trackers(f"{output.stem}.tensorboard")  # only where TensorBoard is installed
    prepared, prepared_optimiser = accelerator.prepare(model, optimiser)
    network = torch.compile(prepared) if config.compile else prepared
    batches = _batches(config, plan, run.step, accelerator)
    pixels = sum(side**2 for side in plan[: run.step])
    earlier = run.log[-1]["seconds"] if run.log else 0
    total, counted = torch.zeros((), device=accelerator.device), 0
    progress = tqdm(
        initial=run.step, total=len(plan), desc=f"training {config.model}", unit="step",
        disable=not accelerator.is_main_process)  # fmt: skip
    step = run.step
    for step, side in enumerate(plan[run.step :], start=run.step + 1):
        for group in prepared_optimiser.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(pixels / total_pixels, config.schedule)
        composite, mask, real = next(batches)
        try:
            raw = network(composite.contiguous(memory_format=memory_format(accelerator.device)), mask)
        except TorchDynamoException as error:
            raise ValueError(f"torch.compile cannot be used here: {reason(error)}; train without it.") from None
        loss = foreground_mse(paste(raw.float(), composite, mask), real, mask)
        prepared_optimiser.zero_grad()
        accelerator.backward(loss)
        prepared_optimiser.step()
        decay = min(config.average_decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)([*average.parameters()], [*model.parameters()], step)
        pixels += side**2
        total += loss.detach()
        counted += 1
        progress.update()

        if step % config.validate_every == 0 or step == len(plan):
            mean = accelerator.reduce(total / counted, reduction="mean").item()
            total, counted = torch.zeros_like(total), 0
            held_out, psnr = validate(average, validation)  # in every process, so that all see the same failure
            if not math.isfinite(mean) or not math.isfinite(held_out):
                raise FloatingPointError(
                    f"The loss became {mean} in training and {held_out} in validation at step {step}; try a lower "
                    "learning rate."
                )
            if accelerator.is_main_process:
                progress.set_postfix(loss=f"{mean:.4f}", psnr=f"{psnr:.2f} dB")
                seconds = round(earlier + time.monotonic() - started)
                scores = {"loss": mean, "validation_loss": held_out, "validation_psnr": psnr}
                run.save({"step": step, "side": side, "seconds": seconds, **scores})
                accelerator.log(scores, step=step)
            late = torch.tensor(float(time.monotonic() - started > minutes * 60), device=accelerator.device)
            if step < len(plan) and accelerator.reduce(late, reduction="sum").item():
                break
    progress.close()
    for tracker in accelerator.trackers:
        tracker.finish()
    if step < len(plan):
        return None
    accelerator.wait_for_everyone()
    return load_weights(output)


def read_log(output: str | Path) -> list[dict]:
    """The lines of the log of the run that writes ``output``, numbers as numbers; none before its first validation."""
    state = _state(Path(output).with_suffix(".checkpoint"))
    return state["log"] if state else []


def load_last(output: str | Path) -> HDNet:
    """The model of the last validation of the run that writes ``output``, better or not, in evaluation mode.

    Raises:
        ValueError: there is no checkpoint, or it cannot be read.
    """
    checkpoint = Path(output).with_suffix(".checkpoint")
    state = _state(checkpoint)
    if not state:
        raise ValueError(f"{checkpoint}: there is no such checkpoint.")
    model = create_model(state["config"]["model"], **state["config"]["overrides"])
    model.load_state_dict(_part(load_file(checkpoint), "average."))
    return model.eval()


def finished(output: str | Path) -> bool:
    """Whether the run that writes ``output`` has made all its steps."""
    output = Path(output)
    state = _state(output.with_suffix(".checkpoint"))
    return bool(state) and state["log"][-1]["step"] == state["steps"] and output.is_file()


def _state(checkpoint: Path) -> dict | None:
    if not checkpoint.is_file():
        return None
    try:
        with safe_open(checkpoint, "pt") as file:
            return json.loads(file.metadata()["state"])
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{checkpoint}: the checkpoint cannot be read: {reason(error)}.") from None


class _Run:
    """What a run has reached, and its three files."""

    def __init__(
        self,
        config: TrainingConfig,
        output: Path,
        steps: int,
        model: HDNet,
        average: HDNet,
        optimiser: torch.optim.Adam,
    ) -> None:
        self.config, self.output = config, output
        self.checkpoint = output.with_suffix(".checkpoint")
        self.model, self.average, self.optimiser = model, average, optimiser
        self.steps, self.step, self.log = steps, 0, []

    def resume(self) -> None:
        """Go to where the checkpoint is, if there is one."""
        if not self.checkpoint.is_file():
            # Weights without a checkpoint are this run's own if it was ended between writing the two.
            if self.output.exists() and not self._wrote(self.output):
                raise ValueError(f"{self.output} exists and has no checkpoint to go on from: choose another name.")
            return
        state = _state(self.checkpoint)
        mine, theirs = (json.loads(json.dumps(x)) for x in (_deciding(self.config), state["config"]))
        if different := sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)):
            raise ValueError(
                f"{self.checkpoint}: this run had another {', '.join(different)}: give the same again to go on with "
                "it, or another output."
            )
        if state["steps"] != self.steps:
            raise ValueError(
                f"{self.checkpoint}: this run had {state['steps']} steps, now there are {self.steps}: its data changed."
            )
        self.step, self.log = state["log"][-1]["step"], state["log"]
        try:
            self._load(load_file(self.checkpoint))
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            raise ValueError(f"{self.checkpoint}: the checkpoint does not fit the model: {reason(error)}.") from None

    def _wrote(self, output: Path) -> bool:
        try:
            with safe_open(output, "pt") as file:
                config = json.loads(file.metadata()["config"])
        except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
            return False
        return {**config, "device": ""} == json.loads(json.dumps(_deciding(self.config)))

    def _load(self, tensors: dict[str, Tensor]) -> None:
        self.model.load_state_dict(_part(tensors, "model."))
        self.average.load_state_dict(_part(tensors, "average."))
        for name, parameter in self.model.named_parameters():
            self.optimiser.state[parameter] = {
                "step": torch.tensor(float(self.step), device=parameter.device),
                # In the parameter's own memory format, which the fused optimiser takes for granted.
                "exp_avg": torch.empty_like(parameter).copy_(tensors[f"first.{name}"]),
                "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"second.{name}"]),
            }

    def save(self, row: dict) -> None:
        """Write log, best weights and checkpoint, each whole or not at all, the checkpoint last."""
        best = min((earlier["validation_loss"] for earlier in self.log), default=math.inf)
        better = row["validation_loss"] < best or not self.output.is_file()
        step = self.step = row["step"]
        self.log = [*self.log, row]
        try:
            if better:
                header = {
                    "config": json.dumps(asdict(self.config)),
                    "steps": str(self.steps),
                    **{name: str(row[name]) for name in ("step", "seconds", "validation_loss", "validation_psnr")},
                    "version": hdnet_lib.__version__,
                    "revision": _revision(),
                }
                with replacing(self.output) as part:
                    save_file(_contiguous(self.average.state_dict()), part, metadata=header)
            with replacing(self.output.with_suffix(".csv")) as part, part.open("w", newline="") as file:
                writer = csv.DictWriter(file, row.keys())
                writer.writeheader()
                writer.writerows(self.log)
            with replacing(self.checkpoint) as part:
                state = json.dumps({"config": _deciding(self.config), "steps": self.steps, "log": self.log})
                save_file(_contiguous(self._tensors()), part, metadata={"state": state})
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{self.output.parent}: step {step} cannot be written, the state before it is kept: {reason(error)}."
            ) from None

    def _tensors(self) -> dict[str, Tensor]:
        moments = {name: self.optimiser.state[parameter] for name, parameter in self.model.named_parameters()}
        return (
            {f"model.{name}": value for name, value in self.model.state_dict().items()}
            | {f"average.{name}": value for name, value in self.average.state_dict().items()}
            | {f"first.{name}": state["exp_avg"] for name, state in moments.items()}
            | {f"second.{name}": state["exp_avg_sq"] for name, state in moments.items()}
        )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in tensors.items()}


def _deciding(config: TrainingConfig) -> dict:
    """The settings that decide the result; a run may go on on another device."""
    return asdict(replace(config, device=""))


def _revision() -> str:
    """The git revision of the library's folder, or "" where it is no checkout."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def _check(config: TrainingConfig, output: Path) -> None:
    """Refuse what cannot work before anything is read."""
    if not output.parent.is_dir():
        raise ValueError(f"{output}: the folder {output.parent} does not exist.")
    if output.suffix != ".safetensors" or output.is_dir():
        raise ValueError(f"{output}: the output must be a file name that ends with .safetensors.")
    for path in (output, output.with_suffix(".csv"), output.with_suffix(".checkpoint")):
        if path.resolve() in (Path(config.data).resolve(), Path(config.start).resolve()):
            raise ValueError(f"{output}: training would overwrite {path}, which it reads; choose another name.")
    for name, allowed in (
        ("schedule", ("cosine", "steps")),
        ("precision", ("bf16", "fp32")),
        ("initialisation", ("identity", "normal")),
        ("device", ("auto", "cpu", "cuda")),
    ):
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} must be {' or '.join(allowed)}, not {getattr(config, name)!r}.")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("the device cuda cannot be used here: PyTorch finds no GPU; use auto or cpu.")
    if config.batch_size < 1:
        raise ValueError(f"the batch needs at least one photo, not {config.batch_size}.")
    if config.epochs < 0 or config.validate_every < 1 or not 0 <= config.average_decay < 1 or config.learning_rate <= 0:
        raise ValueError(
            "epochs must be at least 0, validate_every at least 1, average_decay from 0 to below 1, learning_rate "
            f"above 0, not {config.epochs}, {config.validate_every}, {config.average_decay}, {config.learning_rate}."
        )
    if not 0 <= config.loose_masks <= 1:
        raise ValueError(f"loose_masks must be a share from 0 to 1, not {config.loose_masks}.")
    if not config.epochs and any(count < config.batch_size for _, count in config.stages):
        raise ValueError(
            f"every stage needs at least one batch of {config.batch_size} composites, not {config.stages}."
        )
    if any(side % 16 or side < 16 for side, _ in config.stages):
        raise ValueError(f"the sides of the stages must be multiples of 16, not {config.stages}.")


def _accelerator(config: TrainingConfig, output: Path) -> Accelerator:
    cpu = config.device == "cpu" or not torch.cuda.is_available()
    if (
        PartialState(cpu=cpu).num_processes == 1
    ):  # a second run in one process, as in a notebook, may have another device
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with="tensorboard" if is_tensorboard_available() else None,
        project_dir=output.parent,
    )
    if config.batch_size % accelerator.num_processes:
        raise ValueError(
            f"a batch of {config.batch_size} cannot be shared by {accelerator.num_processes} processes equally."
        )
    return accelerator


def _pool(config: TrainingConfig, part: str, side: int, device: torch.device) -> Pool:
    kind = TripletPool if config.data == "mini" or Path(config.data).is_dir() else PhotoPool
    return kind(config.data, part, side, device, loose=config.loose_masks if part == "train" else 0.0)


def _batches(config: TrainingConfig, plan: list[int], first: int, accelerator: Accelerator) -> Iterator[Composites]:
    """This process's part of every batch from step ``first`` on; the composites are numbered through all stages."""
    share = config.batch_size // accelerator.num_processes
    offset = accelerator.process_index * share
    while first < len(plan):
        side = plan[first]
        last = next((step for step in range(first, len(plan)) if plan[step] != side), len(plan))
        pool = _pool(config, "train", side, accelerator.device)
        # Small batches leave a GPU waiting for its next order: there the composites of several steps are made at once.
        at_once = accelerator.device.type == "cuda" and pool.resident
        together = max(1, MADE_TOGETHER // (share * side**2)) if at_once else 1
        starts = [step * config.batch_size + offset for step in range(first, last)]
        groups = (starts[at : at + together] for at in range(0, len(starts), together))
        samples = ([start + number for start in group for number in range(share)] for group in groups)
        for made in pool.batches(samples, config.seed):
            yield from map(Composites._make, zip(*(images.split(share) for images in made), strict=True))
        del pool  # before the next is read
        first = last


@torch.inference_mode()
def validate(model: nn.Module, batch: Composites) -> tuple[float, float]:
    """Loss of Eq. 1, and mean PSNR in dB over the whole image (peak 255, no rounding, 100 dB at most)."""
    losses, errors = [], []
    for composite, mask, real in zip(*(images.split(16) for images in batch), strict=True):
        output = paste(model(composite, mask), composite, mask)
        losses.append(foreground_mse(output, real, mask) * len(mask))
        errors.append((output - real).square().mean(dim=(1, 2, 3)) / 4)
    psnr = -10 * torch.cat(errors).clamp(min=1e-10).log10().mean()
    return (sum(losses) / len(batch.mask)).item(), psnr.item()
