"""What decides a training run. The options of ``hdnet train`` are made from these fields, and from nothing else."""

import math
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from hdnet_lib.composites.recipes import RECIPES
from hdnet_lib.utils.device import choose_device
from hdnet_lib.utils.files import check_writable, first_line


def _option(default: Any, text: str, *choices: str) -> Any:
    """A field with a default, a sentence for the reader of ``--help``, and, of words, the choices."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a run, and what the weights file records; ``hdnet train --help`` lists the fields."""

    model: str = _option("hdnet-lite", "a name of create_model, such as hdnet-lite")
    overrides: dict = field(default_factory=dict)
    """Arguments of :func:`create_model` beside the name, such as ``{"k": 3}``."""
    data: str = "photos.csv"
    """A CSV table of photos and masks (:class:`~hdnet_lib.composites.photo_dataset.PhotoDataset`), composites made on
    the fly; or a folder in iHarmony4 layout, or "mini", whose own composites are read
    (:class:`~hdnet_lib.data.dataset.TripletDataset`)."""
    stages: tuple[tuple[int, int], ...] = _option(
        ((128, 64_000), (256, 5_120)),
        "sides in pixels and numbers of composites, one after the other, such as 128:64000,256:5120",
    )
    recipe: str = _option(
        "mix",
        f"how a table of photos becomes composites: mix (six recipes, drawn at random), or {', '.join(RECIPES)}",
        "mix",
        *RECIPES,
    )
    mask_jitter: float = _option(
        0.0, "share of composites whose mask misses the border a little, against reading the border; the paper has none"
    )
    epochs: int = _option(
        0, "rounds through the data at the last side, instead of the stages' counts; 0 for the counts"
    )
    batch_size: int = _option(16, "composites of one step, over all processes")
    learning_rate: float = _option(3e-3, "peak of the schedule")
    schedule: str = _option(
        "cosine",
        "cosine: linear warm-up over the first 2 percent of the pixels, then a cosine to zero; steps: constant, a "
        "tenth after 100/120 of the pixels and a hundredth after 110/120",
        "cosine",
        "steps",
    )
    ema_decay: float = _option(
        0.998,
        "of the exponential moving average of the weights, over the steps; the average is what counts; 0 for none",
    )
    precision: str = _option("bf16", "bf16 (autocast) or fp32", "bf16", "fp32")
    initialization: str = _option(
        "identity",
        "of HDNet; identity: the network starts near it; normal: N(0, 0.02), the released one",
        "identity",
        "normal",
    )
    loss: str = _option(
        "common",
        "of the training; common: Eq. 1 of the pasted image, for every network; own: that of the system's authors "
        "but for a few parts, DoveNet's and RainNet's with its discriminator (HDNet's own is Eq. 1); validations go by "
        "Eq. 1",
        "common",
        "own",
    )
    compile: bool = _option(
        False, "let torch.compile make the network, or on a CPU RAIN and MGD; takes a minute and pays in long runs"
    )
    start: str = _option("", "weights (.safetensors) of the same model to start from, instead of random ones")
    validate_every: int = _option(200, "steps between two lines of the log, each with a validation and a checkpoint")
    seed: int = _option(0, "of weights and data")
    device: str = _option("auto", "auto, cpu, cuda or mps", "auto", "cpu", "cuda", "mps")


def options() -> list[Field]:
    """The fields of :class:`TrainingConfig` that are options of the command."""
    return [option for option in fields(TrainingConfig) if "help" in option.metadata]


def parse_stages(text: str) -> tuple[tuple[int, int], ...]:
    """``128:64000,256:5120`` as ((128, 64000), (256, 5120)).

    Raises:
        ValueError: it does not look like that.
    """
    try:
        stages = [tuple(int(number) for number in stage.split(":")) for stage in text.split(",")]
        if any(len(stage) != 2 or min(stage) < 1 for stage in stages):
            raise ValueError
    except ValueError:
        raise ValueError(f"--stages must look like 128:64000,256:5120, not {text!r}.") from None
    return tuple((side, count) for side, count in stages)


PRESETS = {
    "budget": TrainingConfig(),
    "paper": TrainingConfig(
        model="hdnet",
        stages=((256, 0),),
        epochs=120,
        batch_size=12,
        learning_rate=1e-3,
        schedule="steps",
        ema_decay=0.0,
        initialization="normal",
        precision="fp32",
    ),
}
"""Named settings: "paper" is section 4.1 of the paper; "budget" trades its long run for a short one."""


def learning_rate_factor(progress: float, schedule: str = "cosine", warm_up: float = 0.02) -> float:
    """Share of the peak learning rate at ``progress`` in [0, 1] of the pixels seen."""
    if schedule == "steps":
        return 1.0 if progress < 100 / 120 else 0.1 if progress < 110 / 120 else 0.01
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def check_config(config: TrainingConfig, output: Path) -> None:
    """Refuse what cannot work before anything is read."""
    if not output.parent.is_dir():
        raise ValueError(f"{output}: the folder {output.parent} does not exist.")
    if output.suffix != ".safetensors" or output.is_dir():
        raise ValueError(f"{output}: the output must be a file name that ends with .safetensors.")
    try:
        check_writable(output.with_suffix(".checkpoint"))
    except OSError as error:
        raise ValueError(f"{output}: its folder cannot be written: {first_line(error)}.") from None
    for path in (output, output.with_suffix(".csv"), output.with_suffix(".checkpoint")):
        if path.resolve() in (Path(config.data).resolve(), Path(config.start).resolve()):
            raise ValueError(f"{output}: training would overwrite {path}, which it reads; choose another name.")
    for option in fields(config):
        value, allowed = getattr(config, option.name), option.metadata.get("choices")
        if allowed and value not in allowed:
            raise ValueError(f"{option.name} must be {' or '.join(allowed)}, not {value!r}.")
    choose_device(config.device)
    if config.batch_size < 1:
        raise ValueError(f"the batch needs at least one photo, not {config.batch_size}.")
    if config.epochs < 0 or config.validate_every < 1 or not 0 <= config.ema_decay < 1 or config.learning_rate <= 0:
        raise ValueError(
            "epochs must be at least 0, validate_every at least 1, ema_decay from 0 to below 1, learning_rate "
            f"above 0, not {config.epochs}, {config.validate_every}, {config.ema_decay}, {config.learning_rate}."
        )
    if not 0 <= config.mask_jitter <= 1:
        raise ValueError(f"mask_jitter must be a share from 0 to 1, not {config.mask_jitter}.")
    if not config.epochs and any(count < config.batch_size for _, count in config.stages):
        raise ValueError(
            f"every stage needs at least one batch of {config.batch_size} composites, not {config.stages}."
        )
    if any(side % 16 or side < 16 for side, _ in config.stages):
        raise ValueError(f"the sides of the stages must be multiples of 16, not {config.stages}.")
