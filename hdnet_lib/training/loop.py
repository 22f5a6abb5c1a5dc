"""Training on a CPU, a GPU or many, by Accelerate: interrupted, resumed, and the same every time."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import is_tensorboard_available
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from hdnet_lib.composites.mini import find_data
from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.data.careless import CONDITIONS, EXACT
from hdnet_lib.data.dataset import CompositeDataset, TripletDataset
from hdnet_lib.data.samples import Batch, Sample, to_batch, to_samples
from hdnet_lib.model.global_dynamic import GlobalDynamic
from hdnet_lib.model.hdnet import HDNet, paste
from hdnet_lib.model.initialization import initialize_as_identity
from hdnet_lib.model.losses import foreground_mse
from hdnet_lib.model.rain import RAIN
from hdnet_lib.peers.base import Peer
from hdnet_lib.registry import Network, create_model, load_state, load_weights
from hdnet_lib.training.adversary import Adversary
from hdnet_lib.training.checkpoint import Run
from hdnet_lib.training.config import TrainingConfig, check_config, learning_rate_factor
from hdnet_lib.utils.device import choose_device, synthesis_device
from hdnet_lib.utils.files import first_line

GPU_SYNTHESIS_PIXELS = 256 * 128**2
"""Composites of so many pixels in all are made at once on a GPU (256 of 128 x 128)."""


def memory_format(device: torch.device) -> torch.memory_format:
    """Order of images and weights in memory: on a CPU, channels last takes 5 to 45 % longer; on a GPU it is what NVIDIA
    advises for bf16, and not compared here yet."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def compile_network(network: nn.Module, device: torch.device) -> Callable[..., Tensor]:
    """The network made faster by ``torch.compile``: the whole on a GPU, in place RAIN and MGD alone on a CPU.

    On a CPU half of a step are the many passes over memory of these two, which the compiler makes into few; of
    convolutions and instance norms it makes slower code than PyTorch's own.
    """
    if device.type != "cpu":
        return torch.compile(network)
    slow = [module for module in network.modules() if isinstance(module, (RAIN, GlobalDynamic))]
    if not slow:
        raise ValueError("on a CPU RAIN and MGD alone are compiled, and this network has neither; train without it.")
    for module in slow:
        module.compile(dynamic=True)  # one code for all sizes
    return network


class OwnLoss(nn.Module):
    """A network called for the loss of its authors: autocast and DDP act on what is called, not on other methods."""

    def __init__(self, network: Peer, adversary: Adversary | None) -> None:
        super().__init__()
        self.network, self.adversary = network, adversary

    def forward(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`~hdnet_lib.peers.base.Peer.own_loss`."""
        if self.adversary:
            return self.network.own_loss(composite, mask, real, self.adversary)
        return self.network.own_loss(composite, mask, real)


def train(config: TrainingConfig, output: str | Path, minutes: float = math.inf) -> Network | None:
    """Train a model and write ``output`` (safetensors with a JSON header), and next to it a log and a checkpoint.

    The log is a CSV file (suffix ``.csv``): at every validation the mean loss since the last one; Eq. 1 and the
    PSNR of 128 fixed composites of the validation photos at the last side; and of 32 of them the mean gain in dB with
    exact masks, and the robust one, the mean over :data:`~hdnet_lib.data.careless.CONDITIONS`. ``output`` holds the
    weights of the lowest validation loss. (The mean PSNR would not do: composites that are nearly right decide it, and
    a network that starts near the identity does best on them before it has learned anything.) The checkpoint (suffix
    ``.checkpoint``) holds all that the run needs to be resumed: call again with the same config and it is, to the bit
    where the hardware repeats itself (one CPU process does).

    Under ``accelerate launch`` or ``notebook_launcher`` each process makes its part of every batch. Where TensorBoard
    is installed, the log goes to a folder ``<name>.tensorboard`` next to ``output``, too.

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
    check_config(config, output)
    accelerator = _accelerator(config, output)
    model = _new_model(config).to(accelerator.device)
    if isinstance(model, Peer) and (wrong := [side for side, _ in config.stages if not model.takes(side)]):
        raise ValueError(f"{config.model} takes sides that are {model.sizes}, not {wrong[0]}: choose other stages.")
    own = config.loss == "own" and isinstance(model, Peer)
    if own and model.adversarial and accelerator.num_processes > 1:
        raise ValueError(
            f"with --loss own {config.model} learns beside a discriminator, which works in one process only: start "
            "one, or give --loss common."
        )
    model = model.to(memory_format=memory_format(accelerator.device))  # type: ignore[call-overload]
    averages = AveragedModel(model).requires_grad_(False)
    averages.n_averaged.fill_(1)  # or else the first update would copy
    ema_model = cast(Network, averages.module).eval()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, fused=accelerator.device.type in ("cpu", "cuda")
    )
    plan = _sides_of_steps(config)
    total_pixels = sum(side**2 for side in plan)
    # At the last side: the weights that are best there are the ones to keep.
    validation = _to(accelerator.device, _dataset(config, "validation", plan[-1], accelerator).composites(range(128)))
    # Of a composite that equals its photo a change of one grey level would outweigh all others.
    samples = to_samples(validation)
    changed = [sample for sample in samples if (sample.composite != sample.real).any()]
    examples = (changed or samples)[:32]
    told = {name: [change(example) for example in examples] for name, change in CONDITIONS.items()}

    adversary = Adversary(accelerator.device, config.learning_rate) if own and model.adversarial else None
    run = Run(config, output, len(plan), model, ema_model, optimizer, adversary)
    run.resume()
    accelerator.init_trackers(f"{output.stem}.tensorboard")  # only where TensorBoard is installed
    prepared, prepared_optimizer = accelerator.prepare(OwnLoss(model, adversary) if own else model, optimizer)
    groups = prepared_optimizer.param_groups + (adversary.optimizer.param_groups if adversary else [])
    network = compile_network(prepared, accelerator.device) if config.compile else prepared
    batches = _batches(config, plan, run.step, accelerator)
    pixels = sum(side**2 for side in plan[: run.step])
    earlier = run.log[-1]["seconds"] if run.log else 0
    losses = torch.zeros((), device=accelerator.device)  # sum since the last validation
    bar = tqdm(
        initial=run.step,
        total=len(plan),
        desc=f"training {config.model}",
        unit="step",
        disable=not accelerator.is_main_process,
    )
    step = last_validated = run.step
    for step, side in enumerate(plan[run.step :], start=run.step + 1):
        for group in groups:
            group["lr"] = config.learning_rate * learning_rate_factor(pixels / total_pixels, config.schedule)
        composite, mask, real = next(batches)
        # Dropout draws the same after a resume, and no two runs or processes draw alike.
        draw = (config.seed << 32) + step * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(draw % 2**64)  # of any seed, however large
        try:
            inputs = composite.contiguous(memory_format=memory_format(accelerator.device)), mask
            result = network(*inputs, real) if own else network(*inputs)
        except TorchDynamoException as error:
            raise ValueError(f"torch.compile cannot be used here: {first_line(error)}; train without it.") from None
        loss = result if own else foreground_mse(paste(result.float(), composite, mask), real, mask)
        prepared_optimizer.zero_grad()
        accelerator.backward(loss)
        prepared_optimizer.step()
        # Early on the average forgets faster, so that a short run does not keep its random start.
        averages.multi_avg_fn = get_ema_multi_avg_fn(min(config.ema_decay, (1 + step) / (10 + step)))
        averages.update_parameters(model)
        pixels += side**2
        losses += loss.detach()
        bar.update()

        if step % config.validate_every == 0 or step == len(plan):
            scores = _validated(losses / (step - last_validated), ema_model, validation, step, accelerator)
            losses, last_validated = torch.zeros_like(losses), step
            if accelerator.is_main_process:
                gained = gains(ema_model, told)
                scores |= {"gain": gained[EXACT], "robust_gain": sum(gained.values()) / len(gained)}
                bar.set_postfix(loss=f"{scores['loss']:.4f}", psnr=f"{scores['validation_psnr']:.2f} dB")
                seconds = round(earlier + time.monotonic() - started)
                run.save({"step": step, "side": side, "seconds": seconds, **scores})
                accelerator.log(scores, step=step)
            late = torch.tensor(float(time.monotonic() - started > minutes * 60), device=accelerator.device)
            if step < len(plan) and accelerator.reduce(late, reduction="sum").item():
                break
    bar.close()
    for tracker in accelerator.trackers:
        tracker.finish()
    if step < len(plan):
        return None
    accelerator.wait_for_everyone()
    return load_weights(output)


def _new_model(config: TrainingConfig) -> Network:
    torch.manual_seed(config.seed)
    model = create_model(config.model, **config.overrides)
    if config.initialization == "identity" and isinstance(model, HDNet):
        initialize_as_identity(model)
    if config.start:
        load_state(model, config.start)
    return model


def _validated(
    loss: Tensor, model: Network, validation: Batch, step: int, accelerator: Accelerator
) -> dict[str, float]:
    """Mean training loss over all processes, and the scores of the validation, or an error where one is no number."""
    mean = accelerator.reduce(loss, reduction="mean").item()
    held_out, psnr = validate(model, validation)  # in every process, so that all see the same failure
    if not math.isfinite(mean) or not math.isfinite(held_out):
        raise FloatingPointError(
            f"The loss became {mean} in training and {held_out} in validation at step {step}; try a lower "
            "learning rate."
        )
    return {"loss": mean, "validation_loss": held_out, "validation_psnr": psnr}


def _sides_of_steps(config: TrainingConfig) -> list[int]:
    """The side of the images of every step."""
    stages, last_side = config.stages, config.stages[-1][0]
    if config.epochs:
        counted = _open(config.data)(find_data(config.data), "train", last_side, resident=False)
        stages = ((last_side, config.epochs * len(counted)),)
    plan = [side for side, count in stages for _ in range(count // config.batch_size)]
    if not plan:
        raise ValueError(f"the data give no whole batch of {config.batch_size}: choose a smaller batch or more epochs.")
    return plan


def _accelerator(config: TrainingConfig, output: Path) -> Accelerator:
    device = choose_device(config.device)
    cpu = device == "cpu"
    if PartialState(cpu=cpu).num_processes == 1:
        # A second run in one process, as in a notebook, may have another device.
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if config.precision == "bf16" and device != "mps" else "no",
        log_with="tensorboard" if is_tensorboard_available() else None,
        project_dir=output.parent,
    )
    if config.batch_size % accelerator.num_processes:
        raise ValueError(
            f"a batch of {config.batch_size} cannot be shared by {accelerator.num_processes} processes equally."
        )
    return accelerator


def _open(data: str) -> type[TripletDataset] | type[PhotoDataset]:
    return TripletDataset if data == "mini" or Path(data).is_dir() else PhotoDataset


def _dataset(config: TrainingConfig, split: str, side: int, accelerator: Accelerator) -> CompositeDataset:
    jitter = config.mask_jitter if split == "train" else 0.0
    device = synthesis_device(accelerator.device)
    kind = _open(config.data)
    if kind is PhotoDataset:
        return PhotoDataset(config.data, split, side, device, mask_jitter=jitter, recipe=config.recipe)
    if config.recipe != "mix":
        raise ValueError(f"{config.data} has composites of its own: leave out --recipe {config.recipe}.")
    return TripletDataset(find_data(config.data), split, side, device, mask_jitter=jitter)


def _to(device: torch.device, batch: Batch) -> Batch:
    return Batch(*(images.to(device) for images in batch))


def _batches(config: TrainingConfig, plan: list[int], first: int, accelerator: Accelerator) -> Iterator[Batch]:
    """This process's part of every batch from step ``first`` on; the composites are numbered through all stages."""
    share = config.batch_size // accelerator.num_processes
    offset = accelerator.process_index * share
    while first < len(plan):
        side = plan[first]
        last = next((step for step in range(first, len(plan)) if plan[step] != side), len(plan))
        dataset = _dataset(config, "train", side, accelerator)
        # Small batches leave a GPU waiting for its next order: there the composites of several steps are made at once.
        at_once = accelerator.device.type == "cuda" and dataset.resident
        together = max(1, GPU_SYNTHESIS_PIXELS // (share * side**2)) if at_once else 1
        starts = [step * config.batch_size + offset for step in range(first, last)]
        groups = (starts[at : at + together] for at in range(0, len(starts), together))
        numbers = ([start + number for start in group for number in range(share)] for group in groups)
        for made in dataset.batches(numbers, config.seed):
            for images in zip(*(images.split(share) for images in made), strict=True):
                yield _to(accelerator.device, Batch(*images))
        del dataset  # before the next is read
        first = last


@torch.inference_mode()
def validate(model: Callable[[Tensor, Tensor], Tensor], batch: Batch) -> tuple[float, float]:
    """Loss of Eq. 1, and mean PSNR in dB over the whole image (peak 255, no rounding, 100 dB at most)."""
    losses, errors = [], []
    for composite, mask, real in zip(*(images.split(16) for images in batch), strict=True):
        output = paste(model(composite, mask), composite, mask)
        losses.append(foreground_mse(output, real, mask) * len(mask))
        errors.append((output - real).square().mean(dim=(1, 2, 3)) / 4)
    psnr = -10 * torch.cat(errors).clamp(min=1e-10).log10().mean()
    return float(sum(losses) / len(batch.mask)), psnr.item()


def gains(model: nn.Module, told: Mapping[str, Sequence[Sample]]) -> dict[str, float]:
    """Mean gain in PSNR in dB over the composites that the model is given, under each condition."""
    device = next(model.parameters()).device
    found = {}
    for condition, samples in told.items():
        batch = _to(device, to_batch(*samples))
        found[condition] = validate(model, batch)[1] - validate(lambda composite, mask: composite, batch)[1]
    return found
