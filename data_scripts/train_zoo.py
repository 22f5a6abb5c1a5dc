"""Train the zoo: every line of zoo.csv, for each of its seeds, as a queue that can be stopped and started again.

    python data_scripts/train_zoo.py POOL OUT [--rows 1 2] [--scale 0.1] [--minutes 9] [--parallel 4] [--export FOLDER]

The entries of a row share their seeds, so that differences are paired: within a row, all with seed 0 come before
those with seed 1. ``--scale`` multiplies the number of composites of every run; each weights file records what it had.
``--learning-rates`` trains each run once at each of these instead of at its own: pilots, of which one is chosen.
"""

import argparse
import csv
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import redirect_stderr
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from ship_weights import pack

from hdnet_lib.training.checkpoint import finished, read_log
from hdnet_lib.training.config import PRESETS, TrainingConfig, parse_stages
from hdnet_lib.training.loop import train
from hdnet_lib.utils.arguments import at_least
from hdnet_lib.utils.files import first_line

ZOO = Path(__file__).parent / "zoo.csv"


def runs(
    rows: list[int], pool: str, scale: float, device: str, rates: Sequence[float] = ()
) -> list[tuple[str, TrainingConfig]]:
    """Name and config of every run, in the order of the queue."""
    with ZOO.open(newline="") as file:
        entries = [entry for entry in csv.DictReader(file) if int(entry["row"]) in rows]
    queue = []
    for entry in entries:
        batch = int(entry["batch_size"])
        stages = tuple((side, max(batch, round(count * scale))) for side, count in parse_stages(entry["stages"]))
        for seed, rate in product(
            map(int, entry["seeds"].split()), dict.fromkeys(rates) or [float(entry["learning_rate"])]
        ):
            config = replace(
                PRESETS[entry["preset"]], epochs=0, model=entry["model"], overrides=json.loads(entry["overrides"]),
                data=pool, stages=stages, batch_size=batch, learning_rate=rate, seed=seed, device=device,
                initialization=entry["initialization"], loss=entry["loss"], recipe=entry["recipe"])  # fmt: skip
            name = f"{entry['name']}-lr{rate:g}" if rates else entry["name"]
            queue.append((int(entry["row"]), seed, f"{name}-s{seed}", config))
    return [(name, config) for _, _, name, config in sorted(queue, key=lambda run: run[:2])]


def work(config: TrainingConfig, output: Path, deadline: float) -> str:
    """Go on with one run until the deadline; what went wrong, or nothing."""
    minutes = max(0, deadline - time.time()) / 60
    with output.with_suffix(".log").open("a") as log, redirect_stderr(log):
        try:
            train(config, output, minutes)
        except (ValueError, FloatingPointError) as error:
            return f"{output.stem}: {error}"
    return ""


def outcome(job: Future, output: Path) -> str:
    """What went wrong with a run, whatever it was, or nothing."""
    error = job.exception()
    return f"{output.stem}: {type(error).__name__}: {first_line(error)}" if error else job.result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pool", help="CSV table of photos and masks, or a data set")
    parser.add_argument("out", type=Path, help="folder of weights, logs and checkpoints; made if it is not there")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="of zoo.csv (all)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the composites of each run (%(default)s)")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[], help="in the place of each run's own")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long; start again to go on")
    parser.add_argument("--parallel", type=at_least(1), default=1, help="runs side by side (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--export", type=Path, help="folder for every finished run, in half precision, with its log")
    arguments = parser.parse_args()
    deadline = time.time() + arguments.minutes * 60
    arguments.out.mkdir(parents=True, exist_ok=True)
    queue = runs(arguments.rows, arguments.pool, arguments.scale, arguments.device, arguments.learning_rates)
    if not queue:
        parser.error(f"zoo.csv has no row {' or '.join(map(str, arguments.rows))}.")
    outputs = {name: arguments.out / f"{name}.safetensors" for name, _ in queue}
    try:
        open_runs = [(config, outputs[name]) for name, config in queue if not finished(outputs[name])]
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    waiting, running, problems = deque(open_runs), {}, []
    # A fresh process for every run: a GPU cannot be used by a fork.
    with ProcessPoolExecutor(arguments.parallel, mp_context=get_context("spawn"), max_tasks_per_child=1) as executor:
        while running or (waiting and time.time() < deadline):
            while waiting and len(running) < arguments.parallel and time.time() < deadline:
                config, output = waiting.popleft()
                running[executor.submit(work, config, output, deadline)] = output
            for job in wait(running, return_when=FIRST_COMPLETED).done:
                if problem := outcome(job, running.pop(job)):
                    problems.append(problem)
    if arguments.export:
        arguments.export.mkdir(parents=True, exist_ok=True)
        for output in filter(finished, outputs.values()):
            try:
                pack(output, arguments.export / output.name)
            except (ValueError, OSError) as error:
                problems.append(str(error))

    rows = []
    for name, _ in queue:
        log = read_log(outputs[name])
        best = min(log, key=lambda row: row["validation_loss"]) if log else {}
        last = log[-1] if log else {"step": 0, "seconds": 0}
        scores = best.get("validation_loss"), best.get("validation_psnr")
        rows.append((name, "done" if finished(outputs[name]) else "open", last["step"], last["seconds"], *scores))
    columns = ["run", "state", "steps", "seconds", "validation_loss", "validation_psnr"]
    print(pd.DataFrame(rows, columns=columns).round(4).to_string(index=False))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
