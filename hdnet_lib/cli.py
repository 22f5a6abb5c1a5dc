"""The command ``hdnet``."""

import argparse
import math
import os
import sys
from dataclasses import Field, replace
from pathlib import Path

import pandas as pd
from PIL import Image

from hdnet_lib.data.careless import CONDITIONS
from hdnet_lib.data.save import FORMATS, check_output, check_transparency
from hdnet_lib.evaluation.examples import calibration_composites
from hdnet_lib.evaluation.methods import BASELINES, COMPOSITE, method_name
from hdnet_lib.evaluation.metrics import PROTOCOLS
from hdnet_lib.evaluation.robustness import ROBUST, SEPARATOR, SNAPPED, robust_gains
from hdnet_lib.evaluation.scoring import evaluate
from hdnet_lib.evaluation.summary import (
    choose_protocol,
    compare,
    entry_name,
    fmse_bins,
    gains_by_group,
    interval,
    ratio_bins,
    summarize,
)
from hdnet_lib.inference.benchmark import BACKENDS, as_markdown, benchmark
from hdnet_lib.inference.folders import harmonize_folder
from hdnet_lib.inference.harmonize import WORKING_SIZE, finish, predict, prepare
from hdnet_lib.inference.load import PRECISIONS, load_model
from hdnet_lib.inference.onnx import export_onnx
from hdnet_lib.registry import list_models, list_pretrained
from hdnet_lib.training.checkpoint import read_log
from hdnet_lib.training.config import PRESETS, options, parse_stages
from hdnet_lib.training.loop import train
from hdnet_lib.utils.allocator import keep_freed_memory
from hdnet_lib.utils.arguments import at_least
from hdnet_lib.utils.device import choose_device
from hdnet_lib.utils.files import atomic_write, check_writable, first_line

DEVICES = "auto (CUDA, else Apple's MPS, else the CPU), cpu, cuda or mps"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or 2 after one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="hdnet", description="Image harmonisation with HDNet.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for add in (_add_harmonize, _add_train, _add_evaluate, _add_bench, _add_export):
        add(commands)
    parsed = parser.parse_args(arguments)
    keep_freed_memory()
    try:
        parsed.run(parsed)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        print(f"hdnet: {named}{first_line(error)}.", file=sys.stderr)
        return 2
    except (ValueError, FloatingPointError) as error:
        print(f"hdnet: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hdnet: stopped.", file=sys.stderr)
        return 130
    return 0


def _add_harmonize(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("harmonize", help="make the pasted foreground of photos fit their backgrounds")
    command.add_argument("composite", help="the photo, or a folder of photos")
    command.add_argument("mask", help="an image of the same size, white on the foreground; of a folder, one for all "
                         "photos, or a folder of masks named like the photos")  # fmt: skip
    command.add_argument("-o", "--output", required=True, help="file to write (.png keeps the background exactly), or "
                         "folder; results that are up to date stay")  # fmt: skip
    command.add_argument(
        "--model",
        default="hdnet-lite-loose",
        help=f"{', '.join(list_pretrained())}, or a .safetensors file of `hdnet train` or .onnx file of `hdnet export` "
        "(%(default)s)",
    )
    command.add_argument("--working-size", type=int, default=WORKING_SIZE, metavar="PIXELS",
                         help=f"longest side that the network sees (default {WORKING_SIZE})")  # fmt: skip
    command.add_argument("--suffix", default=".png", choices=FORMATS, help="format of a folder's results (%(default)s)")
    command.add_argument("--recursive", action="store_true", help="of a folder, the photos in folders within it, too")
    command.add_argument("--mask", dest="mask_use", default="snapped", choices=("snapped", "as-given"), help="snapped: "
                         "moved to the border of the paste that the photo shows (%(default)s)")  # fmt: skip
    command.add_argument("--mask-threshold", type=int, metavar="GREY", help="1 to 255: pixels of the mask that are at "
                         "least this bright are foreground (default: grey pixels blend)")  # fmt: skip
    command.add_argument("--max-megapixels", type=at_least(1), metavar="N", help="largest photo (default 179); "
                         "it takes about 20 MB of memory a megapixel, 35 with 16 bits")  # fmt: skip
    command.add_argument("--precision", default="fp32", choices=PRECISIONS, help="of the network (%(default)s)")
    command.add_argument("--device", default="auto", help=DEVICES)
    command.set_defaults(run=_harmonize)


def _add_train(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("train", help="train a model; the same command again resumes a stopped run")
    command.add_argument(
        "data", help="CSV table with the columns image and masks, composites made on the fly; or a folder in iHarmony4 "
        "layout (or mini), whose composites are read"
    )  # fmt: skip
    command.add_argument("-o", "--output", required=True,
                         help="weights to write (.safetensors); a .csv log and a .checkpoint next to it")  # fmt: skip
    command.add_argument("--preset", default="budget", choices=PRESETS, help="settings to start from (%(default)s)")
    for option in options():
        _add_setting(command, option)
    command.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after this many minutes; run it again to resume"
    )
    command.set_defaults(run=_train)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("evaluate", help="score models on composites whose real photo is known")
    command.add_argument("data", help='a folder in iHarmony4 layout, "mini", or a CSV table of photos and masks, '
                         "from whose validation photos composites are made")  # fmt: skip
    command.add_argument(
        "--models", nargs="+", default=["hdnet-lite"], metavar="MODEL",
        help=f"{', '.join([*BASELINES, *list_pretrained()])}, .safetensors or .onnx files, or folders of results that "
        "another program made (%(default)s)"
    )  # fmt: skip
    command.add_argument(
        "-o", "--output", metavar="TABLE.csv", help="table of all scores; a stopped evaluation is resumed there"
    )
    command.add_argument(
        "--protocols", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS, metavar="PROTOCOL",
        help=f"of the table; the first is printed ({' '.join(PROTOCOLS)})"
    )  # fmt: skip
    command.add_argument("--split", default="test", help="name of the list of a folder (%(default)s)")
    command.add_argument("--partial", action="store_true", help="leave out composites with a missing file")
    for name, lowest, default, text in (
        ("size", 16, 256, "side in pixels"),
        ("limit", 0, 0, "at most this many composites, spread over the list; 0 for all"),
        ("batch-size", 1, 8, "composites that a network gets at once"),
    ):
        command.add_argument(f"--{name}", type=at_least(lowest), default=default, help=f"{text} (%(default)s)")
    command.add_argument("--device", default="auto", help=DEVICES)
    command.add_argument("--precision", default="fp32", choices=PRECISIONS, help="of networks (%(default)s)")
    command.add_argument("--shard", default="1/1", metavar="K/N", help="score the K-th of N shares; needs --output")
    command.add_argument("--images", metavar="FOLDER", help="write the results there, as PNG")
    command.add_argument("--reference", default=COMPOSITE, help="baseline of the gains (%(default)s)")
    command.add_argument("--groups", action="store_true", help="also print the gains by subset, size and error")
    command.add_argument("--masks", action="store_true", help="also score every model with masks that miss the "
                         "object's border, and print its gain with each")  # fmt: skip
    command.add_argument("--snap", action="store_true", help="also score every model, as MODEL+snap, with masks moved "
                         "to the border of the paste, as `harmonize` does")  # fmt: skip
    command.add_argument("--compare", metavar="ENTRY", help="also compare with this method, or with all its seeds "
                         "(<entry>-s<seed>)")  # fmt: skip
    command.set_defaults(run=_evaluate)


def _add_bench(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("bench", help="time networks, beside the rate of a large matrix product")
    command.add_argument("--models", nargs="+", default=["hdnet-lite", "hdnet"], choices=list_models(), metavar="MODEL",
                         help="(%(default)s)")  # fmt: skip
    command.add_argument("--sizes", nargs="+", type=at_least(256), default=[256, 512, 1024], metavar="PIXELS",
                         help="sides of the image (%(default)s)")  # fmt: skip
    command.add_argument("--backends", nargs="+", default=["fp32"], choices=BACKENDS, metavar="BACKEND",
                         help=f"how they run: {', '.join(BACKENDS)} (%(default)s)")  # fmt: skip
    command.add_argument("--device", default="auto", help=DEVICES)
    command.add_argument("--repeats", type=at_least(1), default=7, help="timed calls each (%(default)s)")
    command.add_argument("-o", "--output", type=Path, metavar="TABLE.csv")
    command.set_defaults(run=_bench)


def _add_export(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("export", help="write a model as ONNX, of any batch and size")
    command.add_argument("model", help=f"{', '.join(list_pretrained())}, or a .safetensors file")
    command.add_argument("output", help="file to write (.onnx)")
    command.add_argument("--int8", action="store_true", help="convolutions in int8, for processors with VNNI")
    command.add_argument("--calibration", default="mini", metavar="DATA", help="real composites that set the scales of "
                         "int8: a folder (its training list) or a table, as of `evaluate` (%(default)s)")  # fmt: skip
    command.set_defaults(run=_export)


def _add_setting(command: argparse.ArgumentParser, option: Field) -> None:
    """An option for a field of :class:`~hdnet_lib.training.config.TrainingConfig`; its default is the preset's."""
    name, text = f"--{option.name.replace('_', '-')}", option.metadata["help"]
    if option.name == "stages":
        command.add_argument(name, metavar="SIDE:COUNT,...", help=text)
    elif option.type is bool:
        command.add_argument(name, action="store_true", default=None, help=text)
    else:
        command.add_argument(name, type=option.type, help=text)


def _harmonize(parsed: argparse.Namespace) -> None:
    if parsed.max_megapixels:
        Image.MAX_IMAGE_PIXELS = parsed.max_megapixels * 500_000  # Pillow refuses twice as many
    if not os.path.lexists(parsed.composite):
        raise ValueError(f"composite {parsed.composite}: there is no such file or folder.")
    device = choose_device(parsed.device)
    snap = parsed.mask_use == "snapped"
    if Path(parsed.composite).is_dir():
        model = load_model(parsed.model, parsed.precision).to(device)
        left_out = harmonize_folder(
            model, parsed.composite, parsed.mask, parsed.output, parsed.working_size, parsed.suffix,
            parsed.mask_threshold, parsed.recursive, snap
        )  # fmt: skip
        if left_out:
            raise ValueError(f"{left_out} were left out; the lines above say why.")
        return
    check_output(parsed.output, (parsed.composite, parsed.mask))
    job = prepare(parsed.composite, parsed.mask, parsed.working_size, parsed.mask_threshold, snap)
    check_transparency(parsed.output, job.photo.alpha is not None)
    model = load_model(parsed.model, parsed.precision).to(device)
    finish(job, predict(model, job)).save(parsed.output)


def _evaluate(parsed: argparse.Namespace) -> None:
    models = set(map(method_name, parsed.models))
    names = {COMPOSITE, *models} | ({f"{name}{SNAPPED}" for name in models - {COMPOSITE}} if parsed.snap else set())
    if parsed.reference not in names:
        raise ValueError(f"--reference must be one of {', '.join(sorted(names))}, not {parsed.reference!r}.")
    if parsed.compare and parsed.compare not in entry_name(pd.Series(sorted(names))).to_numpy():
        raise ValueError(f"--compare must be one of {', '.join(sorted(names))}, or such a name without its seed.")
    if parsed.shard != "1/1" and not parsed.output:
        raise ValueError("--shard needs --output: the shares meet in the table's folder.")
    table = evaluate(
        parsed.data,
        parsed.models,
        parsed.output,
        parsed.protocols,
        split=parsed.split,
        size=parsed.size,
        partial=parsed.partial,
        limit=parsed.limit,
        batch_size=parsed.batch_size,
        device=parsed.device,
        shard=parsed.shard,
        images=parsed.images,
        precision=parsed.precision,
        masks=parsed.masks,
        snap=parsed.snap,
    )
    scores = choose_protocol(table, parsed.protocols[0])
    counts = f"{scores.name.nunique()} composites of {scores.photo.nunique()} photos"
    print(
        f"\n{parsed.data}: {counts}, {parsed.size} px, protocol {parsed.protocols[0]}; gain over: {parsed.reference}\n"
    )
    with_all_masks, scores = scores, scores[~scores.method.str.contains(SEPARATOR)]
    print(markdown(summarize(scores, parsed.reference)))
    if parsed.masks:
        print(
            f"\nGain in dB over the composite that was given, by mask\n\n{masks_markdown(robust_gains(with_all_masks))}"
        )
    if parsed.groups:
        for groups in (scores.subset, ratio_bins(scores), fmse_bins(scores, parsed.reference)):
            print(f"\nGain in dB and number made worse, by {groups.name}\n")
            print(gains_by_group(scores, groups, parsed.reference).round(2).to_string())
    for metric in ("fmse", "psnr") if parsed.compare else ():
        compared = compare(scores, parsed.compare, metric).round(4)
        print(f"\n{metric} over all seeds, and the difference from {parsed.compare}\n{compared.to_string()}")


def _export(parsed: argparse.Namespace) -> None:
    if parsed.model.endswith(".onnx"):
        raise ValueError(f"{parsed.model} is ONNX already.")
    calibration = calibration_composites(parsed.calibration) if parsed.int8 else None
    export_onnx(load_model(parsed.model), parsed.output, calibration)


def _bench(parsed: argparse.Namespace) -> None:
    if parsed.output and not parsed.output.parent.is_dir():
        raise ValueError(f"{parsed.output}: the folder {parsed.output.parent} does not exist.")
    if parsed.output:
        check_writable(parsed.output)
    table = benchmark(parsed.models, parsed.sizes, parsed.device, parsed.repeats, parsed.backends)
    print(f"{table.machine[0]}; seconds, times the roofline, peak of memory\n\n{as_markdown(table)}")
    if parsed.output:
        with atomic_write(parsed.output) as part:
            table.to_csv(part, index=False, float_format="%.4g")


def markdown(summary: pd.DataFrame) -> str:
    """What :func:`~hdnet_lib.evaluation.summary.summarize` found, as a table to read and to paste."""
    lines = [
        "| method | PSNR (dB) | gain (dB) | made worse | MSE | fMSE | SSIM |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method, row in summary.iterrows():
        lines.append(
            f"| {method} | {row.psnr:.2f}{interval(row.psnr_low, row.psnr_high, '{:.2f}'.format)} "
            f"| {row.gain:+.2f}{interval(row.gain_low, row.gain_high, '{:+.2f}'.format)} | {row.worse:.0f} "
            f"| {row.mse:.1f} | {row.fmse:.1f} | {row.ssim:.4f} |"
        )
    return "\n".join(lines)


def masks_markdown(gains: pd.DataFrame) -> str:
    """What :func:`~hdnet_lib.evaluation.robustness.robust_gains` found, a row for each method."""
    conditions = [*CONDITIONS, ROBUST]
    lines = [f"| method | {' | '.join(conditions)} |", "| --- " * (1 + len(conditions)) + "|"]
    for method in dict.fromkeys(gains.index.get_level_values("method")):
        cells = [
            f"{row.gain:+.2f}{interval(row.low, row.high, '{:+.2f}'.format)}"
            for row in (gains.loc[(method, condition)] for condition in conditions)
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _train(parsed: argparse.Namespace) -> None:
    given = {option.name: getattr(parsed, option.name) for option in options()}
    given = {name: value for name, value in given.items() if value is not None} | {"data": parsed.data}
    if parsed.stages:
        given["stages"] = parse_stages(parsed.stages)
    model = train(replace(PRESETS[parsed.preset], **given), parsed.output, parsed.minutes)
    if os.environ.get("RANK", "0") != "0":  # one of several processes says what became of it
        return
    if model is None:
        print(f"Stopped after {parsed.minutes:g} minutes; give the same command again to resume.")
        return
    log = read_log(parsed.output)
    best = min(log, key=lambda row: row["validation_loss"])
    print(f"{parsed.output}: all {log[-1]['step']} steps are made; the weights are those of step {best['step']}.")


if __name__ == "__main__":  # for `accelerate launch -m hdnet_lib.cli train ...`
    sys.exit(main())
