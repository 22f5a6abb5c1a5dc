"""Make lists and a manifest for a copy of iHarmony4 that lost them, or a split that does not leak.

    python data_scripts/make_lists.py ROOT [--name NAME] [--test-share 0.1] [--seed 0]

Every composite under ROOT/<subset>/composite_images goes to train or test, all of one real photo to the same side,
balanced over subsets and foreground ratios. Writes IHD_train.txt and IHD_test.txt, or with --name NAME
NAME_train.txt and NAME_test.txt (read with split="NAME_test"), and NAME_manifest.csv, into ROOT, and never over
a file that is there. A new split is not the published one: scores on it compare with nothing published.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from hdnet_lib.data.decode import list_images
from hdnet_lib.data.iharmony4 import Triplet, file_finder, find_root, group_by_photo, missing_files, read_list, resolve
from hdnet_lib.data.images import ImageError, read_gray
from hdnet_lib.data.samples import ratio_bin
from hdnet_lib.data.splits import split_by_photo
from hdnet_lib.utils.arguments import at_least
from hdnet_lib.utils.files import atomic_write, first_line
from hdnet_lib.utils.parallel import parallel


def make_lists(root: Path, name: str, test_share: float, seed: int, workers: int | None) -> pd.DataFrame:
    """Write the lists and the manifest; returns the manifest."""
    outputs = {split: root / f"{name}_{split}.txt" for split in ("train", "test")}
    manifest = root / f"{name}_manifest.csv"
    for path in (*outputs.values(), manifest):
        if path.exists():
            raise ValueError(f"{path} exists and is left as it is: choose another name (--name).")
    if Path(name).name != name:
        raise ValueError(f"the name {name!r} must be one without folders.")
    for split in outputs:
        try:
            read_list(root, split)
        except ValueError:
            continue
        if name == "IHD":
            raise ValueError(f"{root} has a {split} list, which is left as it is: choose another name (--name).")
    has_file = file_finder()
    lines = [
        path.relative_to(root).as_posix()
        for folder in sorted(path for path in root.glob("*/composite_images") if path.is_dir())
        for path in list_images(folder)
    ]
    triplets = [resolve(root, line, has_file) for line in lines]
    complete = [triplet for triplet in triplets if not missing_files(triplet, has_file)]
    if not complete:
        raise ValueError(f"{root}: no composite with its mask and real photo in any <subset>/composite_images.")
    if len(complete) < len(triplets):
        print(f"Left out {len(triplets) - len(complete)} composites without mask or real photo.", file=sys.stderr)
    rows = [
        row for rows in parallel(_measure, group_by_photo(complete), "reading masks", "photo", workers) for row in rows
    ]
    table = pd.DataFrame(rows).sort_values("composite", ignore_index=True)
    empty = ~table.ratio.between(0, 1, inclusive="neither")
    if empty.any():
        print(f"Left out {empty.sum()} composites whose mask is empty, full or unreadable.", file=sys.stderr)
        table = table[~empty].reset_index(drop=True)
    table["bin"] = table.ratio.map(ratio_bin)
    # A photo of the same name in two subsets counts as one: it may be the same.
    testing = split_by_photo(list(table.photo), list(table.subset.str.cat(table.bin, sep=" ")), test_share, seed)
    table["split"] = np.where(testing, "test", "train")
    try:
        for split, path in outputs.items():
            with atomic_write(path) as part:
                part.write_text("".join(f"{line}\n" for line in table.composite[table.split == split]), "utf-8")
        with atomic_write(manifest) as part:
            table.to_csv(part, index=False, float_format="%.6f")
    except OSError as error:
        raise ValueError(f"{root} cannot be written: {first_line(error)}.") from None
    return table


def _measure(group: list[Triplet]) -> list[dict]:
    ratios = {}
    for path in {triplet.mask for triplet in group}:
        try:
            ratios[path] = (np.asarray(read_gray(path)) >= 128).mean()
        except ImageError:
            ratios[path] = np.nan
    return [
        {"composite": t.line, "subset": t.subset, "photo": t.photo, "mask": t.mask.stem, "ratio": ratios[t.mask]}
        for t in group
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", help="folder that holds the subsets")
    parser.add_argument("--name", default="IHD", help="of the lists (default: IHD, the official name)")
    parser.add_argument(
        "--test-share", type=float, default=0.1, help="share of the composites to test on (%(default)s)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--workers", type=at_least(1), help="processes (default: one for each processor)")
    arguments = parser.parse_args()
    try:
        table = make_lists(
            find_root(arguments.root), arguments.name, arguments.test_share, arguments.seed, arguments.workers
        )
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped.\n")
    counts = table.groupby(["subset", "bin", "split"]).agg(
        composites=("composite", "size"), photos=("photo", "nunique")
    )
    print(counts.unstack(fill_value=0).to_string())
    print(f"Written: {arguments.name}_train.txt, {arguments.name}_test.txt and {arguments.name}_manifest.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
