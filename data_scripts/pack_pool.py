"""Pack a pool of photos and masks into few small files, to train on a machine that takes little at a time.

    python data_scripts/pack_pool.py POOL OUT [--side 272] [--megabytes 50]

Every photo is squeezed to SIDE x SIDE (256 and 1/16 more for crops) and saved as JPEG, its masks as PNG. OUT gets
part1.tar, part2.tar, ... of at most so many megabytes, the table in the last. There, unpack all into one folder,
``for part in part*.tar; do tar xf $part -C pool; done``, and train on pool/pool.csv.
"""

import argparse
import io
import sys
import tarfile
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from hdnet_lib.composites.photo_table import read_table
from hdnet_lib.data.images import read_mask, read_rgb
from hdnet_lib.utils.arguments import at_least


def pack(table: Path, out: Path, side: int, limit: int) -> list[Path]:
    """Write the parts; returns their paths."""
    rows = read_table(table)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another folder.")
    out.mkdir(parents=True, exist_ok=True)
    parts, size, tar = [], limit, None

    def add(name: str, data: bytes) -> None:
        nonlocal size, tar
        if size + len(data) + 2048 > limit:
            if tar:
                tar.close()
            parts.append(out / f"part{len(parts) + 1}.tar")
            size, tar = 10240, tarfile.open(parts[-1], "w")  # noqa: SIM115
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
        size += -(-len(data) // 512) * 512 + 512

    for photo, masks in tqdm(rows, unit="photo", desc="packing"):
        # Names stay: they decide which photos are kept aside. A suffix may lie then, but Pillow looks inside.
        for name in (photo, *masks):
            if Path(name).is_absolute() or ".." in Path(name).parts or "," in name:
                raise ValueError(f"{table}: {name} lies outside the table's folder, or its name holds a comma.")
        add(photo, _encode(read_rgb(table.parent / photo, "photo"), side))
        for mask in masks:
            image = Image.fromarray((read_mask(table.parent / mask, "mask") * 255).astype("uint8"))
            add(mask, _encode(image, side))
    add("pool.csv", "".join(f"{line}\n" for line in ["image,masks", *(f"{p},{' '.join(m)}" for p, m in rows)]).encode())
    tar.close()
    return parts


def _encode(image: Image.Image, side: int) -> bytes:
    data = io.BytesIO()
    if image.mode == "L":
        image.resize((side, side), Image.Resampling.BILINEAR).save(data, "PNG")
    else:
        image.resize((side, side), Image.Resampling.BICUBIC).save(data, "JPEG", quality=92)
    return data.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pool", type=Path, help="CSV table")
    parser.add_argument("out", type=Path, help="folder to write the parts into")
    parser.add_argument("--side", type=at_least(16), default=272)
    parser.add_argument("--megabytes", type=at_least(1), default=50, help="largest part (%(default)s)")
    arguments = parser.parse_args()
    try:
        parts = pack(arguments.pool, arguments.out, arguments.side, arguments.megabytes * 10**6)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    for part in parts:
        print(f"{part}: {part.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
