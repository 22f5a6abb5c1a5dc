"""Compare the composites that training makes with real ones: how far do they move the foreground's colours?

    python data_scripts/compare_shifts.py POOL [--count 1000] [--figure shifts.png]
    python data_scripts/compare_shifts.py --record ROOT

The first form sets composites made on the fly from POOL (a CSV table) beside the 30 real triplets of
hdnet_lib/composites/real_shifts.csv and beside assumed retouches. The second measures the triplets of ROOT and writes
that file anew.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.composites.shifts import REAL_SHIFTS, Shift, coverage, measure_shift, sample_shifts
from hdnet_lib.course.plots import plot_shifts, use_style
from hdnet_lib.data import list_triplets
from hdnet_lib.data.images import to_tensor
from hdnet_lib.utils.arguments import at_least
from hdnet_lib.utils.files import atomic_write


def record(root: str) -> None:
    rows = []
    for triplet in list_triplets(root):
        images = triplet.read(256, background="real")
        shift = measure_shift(*(to_tensor(image) for image in (images.composite, images.real, images.mask)))
        rows.append(
            {"name": triplet.name, "ratio": images.ratio} | {k: value.item() for k, value in shift._asdict().items()}
        )
    with atomic_write(REAL_SHIFTS) as part:
        pd.DataFrame(rows).to_csv(part, index=False, float_format="%.4g")
    print(f"{len(rows)} triplets measured: {REAL_SHIFTS}")


def compare(pool: Path, count: int, figure: Path | None) -> None:
    real = pd.read_csv(REAL_SHIFTS)
    made, retouched = sample_shifts(PhotoDataset(pool, "train"), count)
    tables = {"real recaptures": real, "training composites": made, "assumed retouches": retouched}
    for field in Shift._fields:
        rows = {name: table[field].quantile([0.05, 0.25, 0.5, 0.75, 0.95]) for name, table in tables.items()}
        print(f"\n{field}\n{pd.DataFrame(rows).T.round(1).to_string()}")
    print("\nreal recaptures within the central 95 % of the training composites")
    print(coverage(real, made).round(2).to_string())
    if figure:
        use_style()
        plot_shifts(tables).savefig(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pool", type=Path, nargs="?", help="CSV table of photos and masks")
    parser.add_argument("--count", type=at_least(16), default=1000, help="composites to make (%(default)s)")
    parser.add_argument("--figure", type=Path, help="picture to write")
    parser.add_argument("--record", metavar="ROOT", help="measure these triplets instead and write real_shifts.csv")
    arguments = parser.parse_args()
    if (arguments.pool is None) == (arguments.record is None):
        parser.error("give a pool, or --record and a folder of triplets.")
    if arguments.figure and not arguments.figure.parent.is_dir():
        parser.error(f"--figure {arguments.figure}: the folder {arguments.figure.parent} does not exist.")
    try:
        record(arguments.record) if arguments.record else compare(arguments.pool, arguments.count, arguments.figure)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
