"""Put trained weights into the package: half precision, listed in index.json, with their logs.

    python data_scripts/ship_weights.py --data "3,030 photos of ..." RUN.safetensors[=NAME] [...]

Each RUN is what `hdnet train` or train_zoo.py wrote. Without a NAME, ``w8-base-s0.safetensors`` is shipped as
``w8-base``; of several runs with one name, the seeds of an entry, the first gives its weights and all give their
logs. What index.json says of a run comes from its header and its log; only the photos are described here.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import pandas as pd
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hdnet_lib.files import replacing
from hdnet_lib.registry import WEIGHTS, list_pretrained, load_weights


def pack(run: Path, target: Path) -> dict:
    """Write a finished run's weights in half precision and its log, TARGET.csv; returns the run's config.

    Raises:
        ValueError: the files cannot be read, or the run has not made all its steps.
    """
    load_weights(run)  # refuses what is not whole
    with safe_open(run, "pt") as file:
        header = file.metadata()
    log = run.with_suffix(".csv")
    if not log.is_file() or str(pd.read_csv(log).step.iloc[-1]) != header["steps"]:
        raise ValueError(f"{run}: this run has not made all its {header['steps']} steps, or its log is not beside it.")
    config = json.loads(header["config"])
    # Paths tell of the machine, not of the weights.
    config |= {"data": Path(config["data"]).name, "start": Path(config["start"]).name}
    tensors = {key: value.half() for key, value in load_file(run).items()}
    if not all(value.isfinite().all() for value in tensors.values()):
        raise ValueError(f"{run}: its weights do not fit into half precision.")
    with replacing(target) as part:
        save_file(tensors, part, metadata=header | {"config": json.dumps(config)})
    pack_log(run, target.with_suffix(".csv"))
    return config


def pack_log(run: Path, target: Path) -> None:
    """Write the log of a run, with five digits."""
    with replacing(target) as part:
        pd.read_csv(run.with_suffix(".csv")).to_csv(part, index=False, float_format="%.5g")


def ship(run: Path, name: str, data: str, folder: Path) -> dict:
    """Write one file of weights and its log into the folder; returns its entry of the index."""
    weights, log = folder / f"{name}.safetensors", folder / "logs" / f"{run.stem}.csv"
    log.parent.mkdir(exist_ok=True)
    config = pack(run, weights)
    weights.with_suffix(".csv").replace(log)
    composites = " + ".join(f"{count:,} composites at {side} px" for side, count in config["stages"])
    start = f"from {config['start']}, " if config["start"] else ""
    return {
        "model": config["model"],
        "overrides": config["overrides"],
        "file": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "trained_on": f"{data}; {composites}, batch {config['batch_size']}, {start}seed {config['seed']}, "
        f"{pd.read_csv(log).seconds.iloc[-1] / 60:.0f} minutes",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN[=NAME]")
    parser.add_argument("--data", required=True, help="which photos, in words")
    arguments = parser.parse_args()
    index, shipped = {name: vars(entry) for name, entry in list_pretrained().items()}, set()
    try:
        for text in arguments.runs:
            run, _, name = text.partition("=")
            name = name or Path(run).stem.rpartition("-s")[0] or Path(run).stem
            if name in shipped:
                pack_log(Path(run), WEIGHTS / "logs" / f"{Path(run).stem}.csv")
                continue
            shipped.add(name)
            index[name] = ship(Path(run), name, arguments.data, WEIGHTS)
            print(f"{name}: {index[name]['trained_on']}")
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    with replacing(WEIGHTS / "index.json") as part:
        part.write_text(json.dumps(index, indent=2) + "\n")
    size = sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file())
    print(f"{WEIGHTS}: {size / 1e6:.1f} MB in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
