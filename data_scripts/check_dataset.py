"""Check a data set in iHarmony4 layout: is every file there and whole, does every mask fit, do the lists leak?

    python data_scripts/check_dataset.py ROOT [--csv problems.csv]

Reads every image and changes nothing. Prints counts and a table of problems, writes one line for each problem
to a CSV file, and exits with 1 if there are errors, 0 if there are none or only warnings, 2 if it cannot run.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import maximum_filter, uniform_filter

from hdnet_lib.data.decode import list_images
from hdnet_lib.data.iharmony4 import (
    FOLDERS,
    PUBLISHED,
    MissingListError,
    Triplet,
    file_finder,
    find_root,
    group_by_photo,
    missing_files,
    read_list,
    resolve,
)
from hdnet_lib.data.images import ImageError, read_gray, read_rgb
from hdnet_lib.utils.arguments import at_least
from hdnet_lib.utils.files import atomic_write, check_writable, first_line
from hdnet_lib.utils.parallel import parallel

ERRORS = {
    "malformed line": "does not follow the naming rule",
    "duplicate line": "stands in a list more than once",
    "in both lists": "a test composite that is trained on",
    "unusable list": "is empty or cannot be read",
    "missing file": "a list needs it",
    "unreadable file": "is no image, is cut off, or has no faithful RGB form",
    "size differs": "composite, mask and real photo must agree",
    "empty mask": "marks no foreground",
    "full mask": "leaves no background",
    "inverted mask": "the composite differs from the real photo outside the mask only",
    "background differs": "the composite differs from the real photo outside the mask too",
}
WARNINGS = {
    "missing list": "one of the splits cannot be used",
    "soft mask": "grey pixels, which are cut at one half",
    "unchanged foreground": "the composite equals the real photo",
    "leak": "composites of this real photo are in both lists",
    "count differs": "from the published number",
    "not in a list": "a composite that no list names",
}

# JPEG compresses composite and real photo apart. That moves single pixels by 20 grey levels and more, but hardly
# the mean of a neighbourhood; and near the mask, in blocks of 16 pixels, the foreground's new colours leak out.
NEAR = {True: 16, False: 3}  # with JPEG, without: pixels around the mask that belong to neither region
BOX = 9  # side of the neighbourhood, in pixels of the photo
MOVED = {True: 10, False: 3}  # with JPEG, without: grey levels that are more than compression
MOVED_SHARE = 0.001  # of a region's neighbourhoods
STILL = {True: 3, False: 1}  # grey levels: a foreground that moved less, nearly everywhere, is the real photo's
LARGEST = 320  # larger photos are shrunk by a whole factor for this comparison, which is a mean too
GRAY_SHARE = 0.01  # grey pixels of a mask, as a share of its area


class Problem(NamedTuple):
    problem: str
    subset: str
    file: str
    detail: str = ""


def check(root: Path, workers: int | None = None) -> tuple[list[Problem], pd.DataFrame]:
    """All problems of a data set, and its counts for each split and subset."""
    problems, splits, absent = [], {}, []
    has_file = file_finder()
    for split in ("train", "test"):
        try:
            lines = read_list(root, split)
        except ValueError as error:
            absent.append(error)
            kind = "missing list" if isinstance(error, MissingListError) else "unusable list"
            problems.append(Problem(kind, "", f"{split} list", str(error).splitlines()[0]))
            continue
        splits[split] = {}
        for line, count in Counter(lines).items():
            if count > 1:
                problems.append(Problem("duplicate line", line.split("/")[0], line, f"{count} times in {split}"))
            try:
                splits[split][line] = resolve(root, line, has_file)
            except ValueError:
                problems.append(Problem("malformed line", line.split("/")[0], line, f"in the {split} list"))

    if not splits:
        raise absent[-1]
    both = {line: triplet for triplets in splits.values() for line, triplet in triplets.items()}
    missing = {triplet.line: missing_files(triplet, has_file) for triplet in both.values()}
    needed = Counter(path for paths in missing.values() for path in paths)
    for path, count in needed.items():
        detail = f"needed by {count} composites" if count > 1 else "needed by 1 composite"
        problems.append(Problem("missing file", path.parts[-3], path.relative_to(root).as_posix(), detail))
    problems += _list_problems(root, splits)
    # A photo of the same name in two subsets counts as one: it may be the same.
    uses = {split: Counter(triplet.photo for triplet in triplets.values()) for split, triplets in splits.items()}
    for triplet in {triplet.photo: triplet for triplet in splits.get("test", {}).values()}.values():
        if trained := uses.get("train", {}).get(triplet.photo):
            detail = f"{trained} composites in train, {uses['test'][triplet.photo]} in test"
            problems.append(Problem("leak", triplet.subset, triplet.real.relative_to(root).as_posix(), detail))

    complete = [triplet for triplet in both.values() if not missing[triplet.line]]
    for found in parallel(check_photo, group_by_photo(complete), "checking", "photo", workers):
        problems += found

    rows = []
    for split, triplets in splits.items():
        subsets = Counter(triplet.subset for triplet in triplets.values())
        whole = Counter(triplet.subset for triplet in triplets.values() if not missing[triplet.line])
        expected = PUBLISHED if any(triplet.subset in PUBLISHED for triplet in both.values()) else {}
        for subset in sorted(subsets.keys() | expected.keys()):
            published = PUBLISHED.get(subset, {}).get(split, "-")
            rows.append((split, subset, subsets[subset], whole[subset], published))
            if published not in ("-", subsets[subset]):
                detail = f"the {split} list has {subsets[subset]}, published {published}"
                problems.append(Problem("count differs", subset, subset, detail))
    columns = ["list", "subset", "listed", "complete", "published"]
    return problems, pd.DataFrame(rows, columns=columns)


def _list_problems(root: Path, splits: dict[str, dict[str, Triplet]]) -> list[Problem]:
    problems = []
    if len(splits) == 2:
        for line in sorted(splits["train"].keys() & splits["test"].keys()):
            problems.append(Problem("in both lists", line.split("/")[0], line))
        named = splits["train"].keys() | splits["test"].keys()
        for folder in sorted(path for path in root.glob("*/composite_images") if path.is_dir()):
            for path in list_images(folder):
                line = f"{folder.parent.name}/{FOLDERS[0]}/{path.name}"
                if line not in named:
                    problems.append(Problem("not in a list", folder.parent.name, line))
    return problems


def check_photo(group: list[Triplet]) -> list[Problem]:
    """Problems of the images of one real photo: it, its masks and its composites."""
    problems = []

    def read(path: Path, mode: str) -> Image.Image | None:
        try:
            return read_gray(path, "it") if mode == "L" else read_rgb(path, "it", stored=True)
        except ImageError as error:
            detail = str(error).removeprefix(f"it {path} ")
            problems.append(Problem("unreadable file", group[0].subset, _relative(path), detail))

    def note(problem: str, path: Path, detail: str = "") -> None:
        problems.append(Problem(problem, group[0].subset, _relative(path), detail))

    real = read(group[0].real, "RGB")
    for path in dict.fromkeys(triplet.mask for triplet in group):
        mask = read(path, "L")
        if mask is not None and real is not None and mask.size != real.size:
            note("size differs", path, f"{mask.width}x{mask.height}, the real photo {real.width}x{real.height}")
            mask = None
        usable = mask is not None and _check_mask(mask, path, note)
        outside_only = []
        for triplet in (triplet for triplet in group if triplet.mask == path):
            composite = read(triplet.composite, "RGB")
            if composite is None or real is None:
                continue
            if composite.size != real.size:
                sizes = f"{composite.width}x{composite.height}, the real photo {real.width}x{real.height}"
                note("size differs", triplet.composite, sizes)
            elif usable:
                jpeg = {triplet.suffix.lower(), triplet.real_suffix.lower()} & {".jpg", ".jpeg"}
                kind, detail = _compare(composite, real, mask, bool(jpeg))
                if kind == "inverted mask":
                    outside_only.append(detail)
                elif kind:
                    note(kind, triplet.composite, detail)
        if outside_only:
            note("inverted mask", path, outside_only[0])
    return problems


def _check_mask(mask: Image.Image, path: Path, note) -> bool:
    """Note what is wrong with a mask; whether its two regions can be compared."""
    values = np.asarray(mask)
    area = np.count_nonzero(values >= 128)
    gray = np.count_nonzero((values > 16) & (values < 239))
    if area == 0:
        note("empty mask", path, "its values are 0 and 1: multiply them by 255" if values.max() == 1 else "")
    elif area == values.size:
        note("full mask", path)
    elif gray > GRAY_SHARE * area:
        note("soft mask", path, f"grey pixels are {gray / area:.0%} of its area")
    return 0 < area < values.size


def _compare(composite: Image.Image, real: Image.Image, mask: Image.Image, jpeg: bool) -> tuple[str, str]:
    """What is wrong between a composite and its real photo, if anything."""
    near, moved = NEAR[jpeg], MOVED[jpeg]
    factor = max(1, max(real.size) // LARGEST)
    one, other = (np.asarray(image.reduce(factor), np.float32) for image in (composite, real))
    covered = np.asarray(mask.reduce(factor))
    inside = ~maximum_filter(covered < 128, 2 * near // factor + 1)
    outside = ~maximum_filter(covered >= 128, 2 * near // factor + 1)
    inside = inside if inside.any() else covered >= 128  # a small object may lie within its own border
    outside = outside if outside.any() else covered < 128
    box = max(1, round(BOX / factor))
    moved_inside, moved_outside = (_moved(one - other, region, box) for region in (inside, outside))
    share = (moved_outside > moved).mean()
    if share > MOVED_SHARE:
        detail = f"by {moved_outside.mean():.1f} grey levels on average, {share:.1%} of it by more than {moved}"
        if np.quantile(moved_inside, 0.9) < STILL[jpeg]:
            return "inverted mask", f"background {detail}; the foreground hardly"
        return "background differs", f"background {detail}"
    if np.quantile(moved_inside, 0.9) < STILL[jpeg]:
        return "unchanged foreground", ""
    return "", ""


def _moved(difference: np.ndarray, region: np.ndarray, box: int) -> np.ndarray:
    """How far the mean of each neighbourhood in a region moved, in the colour that moved most: (pixels,)."""
    weight = np.maximum(uniform_filter(region.astype(np.float32), box), 1e-6)
    means = [uniform_filter(difference[..., c] * region, box) / weight for c in range(3)]
    return np.abs(means).max(axis=0)[region]


def _relative(path: Path) -> str:
    return Path(*path.parts[-3:]).as_posix()


def report(problems: list[Problem], counts: pd.DataFrame, csv: Path) -> int:
    """Print the tables and write the CSV file; returns the exit status."""
    print(counts.to_string(index=False))
    table = pd.DataFrame(problems, columns=Problem._fields)
    table.insert(0, "severity", ["error" if problem in ERRORS else "warning" for problem in table.problem])
    if problems:
        print()
    for name, meaning in (ERRORS | WARNINGS).items():
        rows = table[table.problem == name]
        if len(rows):
            first = rows.iloc[0]
            example = f"{first.file}{': ' if first.detail else ''}{first.detail}"
            print(f"{rows.severity.iloc[0]:<8} {name:<21} {len(rows):>7}  {meaning}; first: {example}")
    leaks = table[table.problem == "leak"]
    if len(leaks):
        tested = leaks.detail.str.extract(r"(\d+) in test")[0].astype(int).sum()
        total = counts[counts.list == "test"].listed.sum()
        print(
            f"\nThe lists leak: {tested} of {total} test composites share their real photo with a training composite."
        )
    errors = int((table.severity == "error").sum())
    print(f"\n{errors} errors, {len(table) - errors} warnings")
    if errors:
        print("Restore what is damaged from the original, or leave it out: prepare_iharmony4.py --partial takes only")
        print("composites whose files are there, readable and of one size, with a mask that is neither empty nor full.")
    try:
        with atomic_write(csv) as part:
            table.to_csv(part, index=False, errors="backslashreplace")
    except OSError as error:
        print(f"{csv} cannot be written: {first_line(error)}; name another file by --csv.", file=sys.stderr)
        return 2
    if problems:
        print(f"Each of them is a line of {csv}.")
    return 1 if errors else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", help='folder in iHarmony4 layout, or "mini"')
    parser.add_argument("--csv", type=Path, default=Path("dataset_problems.csv"), help="file to write (%(default)s)")
    parser.add_argument("--workers", type=at_least(1), help="processes (default: one for each processor)")
    arguments = parser.parse_args()
    if not arguments.csv.parent.is_dir() or arguments.csv.is_dir():
        parser.error(f"--csv {arguments.csv}: give a file name in a folder that exists.")
    try:
        check_writable(arguments.csv)
    except OSError as error:
        why = f"{arguments.csv} cannot be written ({first_line(error)})"
        print(f"{parser.prog}: {why}, so the table below is all there will be.", file=sys.stderr)
    started = time.monotonic()
    try:
        problems, counts = check(find_root(arguments.root), arguments.workers)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped.\n")
    status = report(problems, counts, arguments.csv)
    print(f"{counts.complete.sum() / (time.monotonic() - started):.0f} composites a second")
    return status


if __name__ == "__main__":
    sys.exit(main())
