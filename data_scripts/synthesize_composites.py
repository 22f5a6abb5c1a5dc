"""Make a data set in iHarmony4 layout from real photos and masks.

    python data_scripts/synthesize_composites.py PHOTOS MASKS OUT [--recipes ...] [--per-mask N] [--seed S]

A mask is named as its photo (cat.png for cat.jpg), or that and more (cat_1.png, cat_tail.png).
"""

import argparse
import sys
from pathlib import Path

from hdnet_lib.composites.recipes import RECIPES
from hdnet_lib.composites.synthesis import match_masks, synthesize
from hdnet_lib.utils.arguments import at_least


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("masks", type=Path, help="folder of masks, white on the foreground")
    parser.add_argument("out", type=Path, help="folder to write; it must not exist")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="NAME", help=f"of {', '.join(RECIPES)} (all)")
    parser.add_argument(
        "--per-mask", type=at_least(1), default=3, metavar="N", help="composites of each mask (%(default)s)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--test-share", type=float, default=0.1, help="share that goes to the test list (%(default)s)")
    parser.add_argument("--workers", type=at_least(1), help="processes (default: one for each processor)")
    arguments = parser.parse_args()
    try:
        table = synthesize(
            arguments.photos, arguments.masks, arguments.out, arguments.recipes, arguments.per_mask, arguments.seed,
            arguments.test_share, arguments.workers)  # fmt: skip
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped.\n")
    print(table.pivot_table(index="recipe", columns="split", values="composite", aggfunc="count", fill_value=0))
    wanted = arguments.per_mask * len(match_masks(arguments.photos, arguments.masks))
    print(f"{len(table)} composites in {arguments.out}; {wanted - len(table)} places empty: nothing plausible found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
