"""Score weights, and classical baselines, on composites whose real photo is known: the numbers of the model card.

    python data_scripts/score_weights.py [DATA ...] [--models NAME or FILE.safetensors ...] [--table scores.csv]

DATA is "mini", a folder in iHarmony4 layout, or a pool's CSV table, of whose validation photos composites are made. At
256 px, under the paper's protocol. Intervals (95 %) come from resampling real photos, not composites.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from hdnet_lib.cli import at_least
from hdnet_lib.evaluation import (
    BASELINES,
    compare_entries,
    make_validation,
    network,
    read_triplets,
    score_methods,
    summarise,
)
from hdnet_lib.files import replacing
from hdnet_lib.model import STRIDE
from hdnet_lib.registry import load_model


def markdown(summary: pd.DataFrame) -> str:
    """The summary of one data set as a table to read and to paste."""
    lines = [
        "| method | PSNR (dB) | gain (dB) | made worse | MSE | fMSE | SSIM |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method, row in summary.iterrows():
        lines.append(
            f"| {method} | {row.psnr:.2f} [{row.psnr_low:.2f}, {row.psnr_high:.2f}] "
            f"| {row.gain:+.2f} [{row.gain_low:+.2f}, {row.gain_high:+.2f}] | {row.worse:.0f} "
            f"| {row.mse:.1f} | {row.fmse:.1f} | {row.ssim:.4f} |"
        )
    return "\n".join(lines)


def groups(table: pd.DataFrame, method: str, reference: str) -> pd.DataFrame:
    """How the gain of a method depends on how wrong the reference method is, and on the size of the foreground."""
    given = table[table.method == reference].set_index("name")
    gain = table[table.method == method].set_index("name").psnr - given.psnr
    parts = []
    for name, values, edges in (
        ("fMSE before", given.fmse, [0, 300, 1000, float("inf")]),
        ("foreground ratio", given.ratio, [0, 0.01, 0.05, 0.15, 1]),
    ):
        bins = pd.cut(values.reindex(gain.index), edges).rename(name)
        part = gain.groupby(bins, observed=True).agg(
            composites="count", mean_gain="mean", made_worse=lambda gains: (gains < 0).sum()
        )
        parts.append(part.set_axis([f"{name} {interval}" for interval in part.index]))
    return pd.concat(parts).round({"mean_gain": 2})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="*", default=["mini"], help='"mini", folders, or CSV tables (default: mini)')
    parser.add_argument("--models", nargs="+", default=["hdnet-lite"], help="names or .safetensors files (%(default)s)")
    parser.add_argument("--split", default="test", help="name of the list of a folder (%(default)s)")
    parser.add_argument("--partial", action="store_true", help="leave out composites of which a file is missing")
    parser.add_argument("--size", type=at_least(16), default=256, help="side in pixels (%(default)s)")
    parser.add_argument("--reference", help="the method that gains are over (default: the composite as it is)")
    parser.add_argument(
        "--groups", action="store_true", help="also each model's gain by error and size of the foreground"
    )
    parser.add_argument("--entries", metavar="ENTRY",
                        help="also compare models named <entry>-s<seed> with this entry")  # fmt: skip
    parser.add_argument("--table", type=Path, help="CSV file for the score of every composite")
    arguments = parser.parse_args()
    try:
        report(arguments)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


def report(arguments: argparse.Namespace) -> None:
    """Score and print."""
    names = [Path(model).stem if model.endswith(".safetensors") else model for model in arguments.models]
    if twice := {name for name in names if [*names, *BASELINES].count(name) > 1}:
        raise ValueError(f"two methods are called {', '.join(sorted(twice))}: rename a file.")
    if arguments.size % STRIDE:
        raise ValueError(f"--size must be a multiple of {STRIDE}, not {arguments.size}.")
    if arguments.table and not arguments.table.parent.is_dir():
        raise ValueError(f"--table: the folder {arguments.table.parent} does not exist.")
    methods = BASELINES | {
        name: network(load_model(model)) for name, model in zip(names, arguments.models, strict=True)
    }
    reference = arguments.reference or next(iter(BASELINES))
    if reference not in methods:
        raise ValueError(f"--reference must be one of {', '.join(methods)}, not {reference!r}.")
    tables = []
    for data in arguments.data:
        if data.endswith(".csv"):
            examples, photos = make_validation(data, arguments.size), "validation photos"
        else:
            examples = read_triplets(data, arguments.split, arguments.size, arguments.partial)
            photos = f"{arguments.split} list"
        table = score_methods(examples, methods)
        tables.append(table.assign(data=data))
        counts = f"{table.name.nunique()} composites of {table.photo.nunique()} photos"
        print(f"\n{data}, {photos}: {counts}; gain over: {reference}\n")
        print(markdown(summarise(table, reference)))
        if arguments.entries:
            trained = table[~table.method.isin(BASELINES)]
            for metric in ("fmse", "psnr"):
                compared = compare_entries(trained, arguments.entries, metric).round(
                    dict.fromkeys(("mean", "spread", "difference", "low", "high"), 3)
                )
                print(f"\n{metric} over all seeds, and the difference from {arguments.entries}")
                print(compared.to_string())
        for model in [name for name in methods if name not in BASELINES] if arguments.groups else []:
            print(f"\n{model}, gain over: {reference}\n{groups(table, model, reference).to_string()}")
    if arguments.table:
        with replacing(arguments.table) as part:
            pd.concat(tables).to_csv(part, index=False, float_format="%.6g")


if __name__ == "__main__":
    sys.exit(main())
