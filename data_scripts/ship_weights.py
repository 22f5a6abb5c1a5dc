"""Put trained weights into the package: half precision, listed in index.json, with their logs.

    python data_scripts/ship_weights.py --data "3,030 photos of ..." RUN.safetensors[=NAME] [...]

Each RUN is what `hdnet train` or train_zoo.py wrote. Without a NAME, ``w8-base-s0.safetensors`` is shipped as
``w8-base``; of several runs with one name, the seeds of an entry, the first gives its weights and all give their
logs. What index.json says of a run comes from its header and its log; only the photos are described here.

    python data_scripts/ship_weights.py --scores TABLE.csv

ships the scores of all runs, all seeds: what `hdnet evaluate POOL.csv --models zoo/*.safetensors -o TABLE.csv` wrote.
"""

import argparse
import gzip
import hashlib
import itertools
import json
import re
import sys
from pathlib import Path

import pandas as pd
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hdnet_lib.evaluation.chunks import read_scores
from hdnet_lib.evaluation.methods import COMPOSITE
from hdnet_lib.registry import WEIGHTS, ZOO_SCORES, list_pretrained, load_weights
from hdnet_lib.utils.files import atomic_write, first_line

ZOO, SMALL = "zoo", "w8-"
"""Folder of the comparisons, which come with the repository and not with the package, and how their names begin."""


def read_run(run: Path) -> tuple[dict, pd.DataFrame]:
    """Header and log of a finished run.

    Raises:
        ValueError: a file cannot be read, or the run has not made all its steps.
    """
    load_weights(run)  # refuses what is not whole
    with safe_open(run, "pt") as file:
        header = file.metadata()
    try:
        log = pd.read_csv(run.with_suffix(".csv"))
        last = log.step.iloc[-1]
    except (OSError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{run.with_suffix('.csv')}: the log of the run cannot be read: {first_line(error)}."
        ) from None
    if str(last) != header.get("steps"):
        raise ValueError(f"{run}: this run has made {last} of its {header.get('steps')} steps: go on with it first.")
    return header, log


def pack(run: Path, target: Path) -> tuple[dict, pd.DataFrame]:
    """Write a finished run's weights in half precision, and its log beside them; returns the run's config and log.

    Raises:
        ValueError: see :func:`read_run`; or the target is the run itself.
    """
    header, log = read_run(run)
    if target.resolve() == run.resolve():
        raise ValueError(f"{run}: this would overwrite the run itself: choose another folder.")
    config = json.loads(header["config"])
    # Paths tell of the machine, not of the weights.
    config |= {"data": Path(config["data"]).name, "start": Path(config["start"]).name}
    tensors = {key: value.half() for key, value in load_file(run).items()}
    if not all(value.isfinite().all() for value in tensors.values()):
        raise ValueError(f"{run}: its weights do not fit into half precision.")
    with atomic_write(target) as part:
        save_file(tensors, part, metadata=header | {"config": json.dumps(config)})
    write_log(log, target.with_suffix(".csv"))
    return config, log


def write_log(log: pd.DataFrame, target: Path) -> None:
    """Write a log, with five digits."""
    with atomic_write(target) as part:
        log.to_csv(part, index=False, float_format="%.5g")


def ship(run: Path, name: str, data: str, folder: Path) -> dict:
    """Write one file of weights and its log into the folder; returns its entry of the index."""
    place = folder / ZOO if name.startswith(SMALL) else folder
    weights, logs = place / f"{name}.safetensors", folder / "logs"
    for each in (place, logs):
        each.mkdir(exist_ok=True)
    config, log = pack(run, weights)
    weights.with_suffix(".csv").replace(logs / f"{run.stem}.csv")
    stages = config["stages"]
    if config["epochs"]:
        stages = [(stages[-1][0], int(log.step.iloc[-1]) * config["batch_size"])]
    composites = " + ".join(f"{count:,} composites at {side} px" for side, count in stages)
    start = f"from {config['start']}, " if config["start"] else ""
    loose = f"{config['mask_jitter']:.0%} of the masks loose, " if config.get("mask_jitter") else ""
    return {
        "model": config["model"],
        "overrides": config["overrides"],
        "file": weights.relative_to(folder).as_posix(),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "trained_on": f"{data}; {composites}, batch {config['batch_size']}, {start}{loose}seed {config['seed']}, "
        f"{log.seconds.iloc[-1] / 60:.0f} minutes",
    }


def ship_scores(table: Path) -> None:
    """Put a table of scores and its settings into the package, with six digits."""
    scores, made_from = read_scores(table), table.with_suffix(".json").read_text()
    if set(json.loads(made_from)["methods"]) | {COMPOSITE} != set(scores.method):
        raise ValueError(f"{table}: its methods are not those that {table.stem}.json tells of.")
    with atomic_write(ZOO_SCORES) as part:
        # Without name and time, so that the same scores have the same bytes.
        part.write_bytes(gzip.compress(scores.to_csv(index=False, float_format="%.6g").encode(), mtime=0))
    with atomic_write(ZOO_SCORES.with_suffix("").with_suffix(".json")) as part:
        part.write_text(made_from)
    print(f"{scores.method.nunique()} methods, {scores.name.nunique()} composites of {scores.photo.nunique()} photos")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="*", metavar="RUN[=NAME]")
    parser.add_argument("--data", help="which photos, in words")
    parser.add_argument("--scores", type=Path, metavar="TABLE.csv", help="scores of all runs")
    arguments = parser.parse_args()
    if bool(arguments.runs) != bool(arguments.data) or not (arguments.runs or arguments.scores):
        parser.error("give runs with --data, or --scores, or both.")
    named: dict[str, list[Path]] = {}
    for text in arguments.runs:
        run, _, name = text.partition("=")
        named.setdefault(name or re.sub(r"-s\d+$", "", Path(run).stem), []).append(Path(run))
    try:
        for run in itertools.chain(*named.values()):
            read_run(run)  # all of them, before anything is written
        index = {name: vars(entry) for name, entry in list_pretrained().items()}
        for name, (first, *others) in named.items():
            index[name] = ship(first, name, arguments.data, WEIGHTS)
            with atomic_write(WEIGHTS / "index.json") as part:
                part.write_text(json.dumps(index, indent=2) + "\n")
            for run in others:
                write_log(read_run(run)[1], WEIGHTS / "logs" / f"{run.stem}.csv")
            print(f"{name}: {index[name]['trained_on']}")
        if arguments.scores:
            ship_scores(arguments.scores)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    size = sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file())
    print(f"{WEIGHTS}: {size / 1e6:.1f} MB in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
