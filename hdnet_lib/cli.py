"""The command ``hdnet``."""

import argparse
import sys

from hdnet_lib.harmonize import WORKING_SIZE, harmonize
from hdnet_lib.images import check_output, save_image
from hdnet_lib.registry import list_models, list_pretrained, load_pretrained, load_weights
from hdnet_lib.training import TrainingConfig, train


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or 2 after one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="hdnet", description="Image harmonisation with HDNet.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("harmonize", help="make the pasted foreground of one photo fit its background")
    command.add_argument("composite", help="the photo")
    command.add_argument("mask", help="an image of the same size, white on the foreground")
    command.add_argument("-o", "--output", required=True, help="file to write; .png keeps the background exactly")
    command.add_argument(
        "--model",
        default="hdnet-lite",
        help=f"{', '.join(list_pretrained())}, or a .safetensors file that `hdnet train` wrote",
    )
    command.add_argument("--working-size", type=int, default=WORKING_SIZE, metavar="PIXELS",
                         help=f"longer side that the network sees (default {WORKING_SIZE})")  # fmt: skip
    command.set_defaults(run=_harmonize)

    command = commands.add_parser("train", help="train a model on photos and masks, composites made on the fly")
    command.add_argument("pool", help="CSV table with the columns image and masks (paths relative to it)")
    command.add_argument("-o", "--output", required=True, help="weights to write (.safetensors); a .csv log beside it")
    default = TrainingConfig()
    stages = ",".join(f"{side}:{count}" for side, count in default.stages)
    command.add_argument("--model", default=default.model, help=f"one of {', '.join(list_models())}")
    command.add_argument("--stages", default=stages, metavar="SIDE:COUNT,...",
                         help=f"sides in pixels and numbers of composites, one after the other ({stages})")  # fmt: skip
    command.add_argument(
        "--start", default=default.start, metavar="WEIGHTS", help="weights (.safetensors) to start from"
    )
    command.add_argument("--batch-size", type=int, default=default.batch_size)
    command.add_argument("--learning-rate", type=float, default=default.learning_rate)
    command.add_argument("--seed", type=int, default=default.seed)
    command.add_argument("--device", default=default.device)
    command.set_defaults(run=_train)

    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except (ValueError, FloatingPointError) as error:
        print(f"hdnet: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hdnet: stopped.", file=sys.stderr)
        return 130
    return 0


def _harmonize(parsed: argparse.Namespace) -> None:
    check_output(parsed.output, (parsed.composite, parsed.mask))
    model = load_weights(parsed.model) if parsed.model.endswith(".safetensors") else load_pretrained(parsed.model)
    save_image(harmonize(model, parsed.composite, parsed.mask, parsed.working_size), parsed.output)


def _train(parsed: argparse.Namespace) -> None:
    try:
        stages = tuple(tuple(int(number) for number in stage.split(":")) for stage in parsed.stages.split(","))
        if any(len(stage) != 2 or min(stage) < 1 for stage in stages):
            raise ValueError
    except ValueError:
        raise ValueError(f"--stages must look like 128:64000,256:5120, not {parsed.stages!r}.") from None
    config = TrainingConfig(
        model=parsed.model,
        pool=parsed.pool,
        stages=stages,
        batch_size=parsed.batch_size,
        learning_rate=parsed.learning_rate,
        start=parsed.start,
        seed=parsed.seed,
        device=parsed.device,
    )
    train(config, parsed.output)
