"""The table of photos and masks that training makes composites from."""

import csv
from pathlib import Path

from hdnet_lib.data.splits import held_out
from hdnet_lib.utils.files import first_line


def read_table(table: Path) -> list[tuple[str, list[str]]]:
    """The photos and masks of a table: paths relative to it, as they stand there.

    Raises:
        ValueError: the table cannot be used, or names a file that does not exist.
    """
    if not table.is_file():
        raise ValueError(f"{table}: there is no such file; it is a CSV file with the columns image and masks.")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{table}: the table cannot be read: {first_line(error)}.") from None
    if not rows or not {"image", "masks"} <= rows[0].keys():
        raise ValueError(f"{table}: needs the columns image and masks, separated by a comma, and at least one row.")
    if surplus := [row["image"] for row in rows if None in row]:
        raise ValueError(f"{table}: the row of {surplus[0]} has too many commas: separate masks by spaces.")
    photos = [(Path(row["image"] or "").as_posix(), (row["masks"] or "").split()) for row in rows]
    for name in dict.fromkeys(name for photo, masks in photos for name in (photo, *masks)):
        if not (table.parent / name).is_file():
            raise ValueError(f"{table}: names {table.parent / name}, which does not exist.")
    return photos


def photo_mask_pairs(table: Path, split: str) -> list[tuple[Path, Path | None]]:
    """The photos of one split, each with each of its masks, or with None."""
    photos = read_table(table)
    if len(photos) < 2:
        raise ValueError(f"{table}: needs at least two photos: one is kept aside for validation.")
    out = held_out([photo for photo, _ in photos])
    chosen = [row for row, is_out in zip(photos, out, strict=True) if is_out == (split == "validation")]
    if not chosen:
        raise ValueError(f"{table}: every photo falls into the validation split: add photos.")
    return [
        (table.parent / photo, table.parent / mask if mask else None)
        for photo, masks in chosen
        for mask in masks or [""]
    ]
