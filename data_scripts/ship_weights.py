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
from hdnet_lib.training import finished


def ship(run: Path, name: str, data: str, folder: Path) -> dict:
    """Write one file of weights and its log into the folder; returns its entry of the index."""
    load_weights(run)  # refuses what is not whole
    if not finished(run):
        raise ValueError(f"{run}: this run has not made all its steps.")
    with safe_open(run, "pt") as file:
        header = file.metadata()
    config = json.loads(header["config"])
    # Paths tell of the machine, not of the weights.
    config |= {"data": Path(config["data"]).name, "start": Path(config["start"]).name}
    tensors = {key: value.half() for key, value in load_file(run).items()}
    if not all(value.isfinite().all() for value in tensors.values()):
        raise ValueError(f"{run}: its weights do not fit into half precision.")
    with replacing(folder / f"{name}.safetensors") as part:
        save_file(tensors, part, metadata=header | {"config": json.dumps(config)})
    seconds = ship_log(run, folder)
    composites = " + ".join(f"{count:,} composites at {side} px" for side, count in config["stages"])
    return {
        "model": config["model"],
        "overrides": config["overrides"],
        "file": f"{name}.safetensors",
        "sha256": hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest(),
        "trained_on": f"{data}; {composites}, batch {config['batch_size']}, seed {config['seed']}, "
        f"{'from ' + config['start'] + ', ' if config['start'] else ''}{seconds / 60:.0f} minutes",
    }


def ship_log(run: Path, folder: Path) -> float:
    """Write the log of a run into the folder; returns the seconds that the run took."""
    log = pd.read_csv(run.with_suffix(".csv"))
    (folder / "logs").mkdir(exist_ok=True)
    with replacing(folder / "logs" / f"{run.stem}.csv") as part:
        log.to_csv(part, index=False, float_format="%.5g")
    return log.seconds.iloc[-1]


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
                ship_log(Path(run), WEIGHTS)
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
