"""Run a notebook for every combination of parameters, on a Dask cluster, and collect what the runs record.

    python data_scripts/run_sweep.py notebooks/06_evaluate.ipynb sweep -g models hdnet-lite w8-base -g size 128 256
    python data_scripts/run_sweep.py notebooks/06_evaluate.ipynb shares -g shard 1/4 2/4 3/4 4/4 -p scores scores.csv

The second shares out one evaluation: the shares meet in scores.csv. Without --scheduler a cluster is started on this
machine. OUT holds one executed notebook a run, and metrics.csv, a line a run. A run whose worker dies is repeated; runs
that are there already are not made again: delete OUT when weights or data have changed under the same name. Needs the
extra "sweep" of pyproject.toml.
"""

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pandas as pd
import papermill
import yaml
from nbformat import ValidationError

from hdnet_lib.course.recording import recorded
from hdnet_lib.course.report import absolute_paths, run_notebook
from hdnet_lib.utils.arguments import at_least
from hdnet_lib.utils.files import atomic_write, first_line


def grid(axes: Sequence[Sequence[str]]) -> list[dict]:
    """All combinations of ``[NAME, VALUE, VALUE, ...]``, the last changing fastest.

    Raises:
        ValueError: an axis has no value.
    """
    if empty := [axis[0] for axis in axes if len(axis) < 2]:
        raise ValueError(f"-g {empty[0]}: give the name and at least one value.")
    names = [name for name, *_ in axes]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"-g {', '.join(sorted(twice))}: give all values of a parameter at once.")
    values = [[yaml.safe_load(value) for value in values] for _, *values in axes]
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]


def run(notebook: str, executed: str, parameters: dict) -> str:
    """Execute one notebook, unless that is done; returns what went wrong, or nothing."""
    target = Path(executed)
    if target.is_file():
        return ""
    # A name of its own: a worker that was given up may still run beside the one that repeats its work.
    running = target.with_suffix(f".{uuid4().hex[:8]}.ipynb")
    failure = run_notebook(Path(notebook), running, parameters)
    running.replace(target.with_suffix(".failed.ipynb") if failure else target)
    return failure or ""


def sweep(notebook: Path, out: Path, points: list[dict], fixed: dict, client: object) -> tuple[pd.DataFrame, list[str]]:
    """Run all points on a cluster: a line for each that ran, in the order of the points, and what went wrong."""
    # A changed notebook is another one, and runs anew.
    keys = [notebook.read_bytes() + json.dumps([fixed, p], sort_keys=True, default=str).encode() for p in points]
    names = [f"{notebook.stem}-{hashlib.sha256(key).hexdigest()[:12]}" for key in keys]
    targets = [str(out.resolve() / f"{name}.ipynb") for name in names]
    futures = [
        client.submit(run, str(notebook.resolve()), target, fixed | point, pure=False)
        for target, point in zip(targets, points, strict=True)
    ]
    rows, problems = [], []
    for future, point, target in zip(futures, points, targets, strict=True):
        try:
            if problem := future.result():
                problems.append(f"{point}: {problem}")
            else:
                rows.append(point | recorded(Path(target)))
        except Exception as error:  # its workers died, again and again, or an earlier run left no notebook
            problems.append(f"{point}: {type(error).__name__}: {first_line(error)}")
    return pd.DataFrame(rows), problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path, help="folder for the executed notebooks and metrics.csv; made if not there")
    parser.add_argument("-g", "--grid", nargs="+", action="append", required=True, metavar=("NAME", "VALUE"),
                        help="a parameter and its values")  # fmt: skip
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="the same for all runs")  # fmt: skip
    parser.add_argument(
        "--workers", type=at_least(1), default=1, help="runs side by side on this machine (%(default)s)"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster that sees the same folders")
    arguments = parser.parse_args()
    try:
        points = [absolute_paths(point) for point in grid(arguments.grid)]
        fixed = absolute_paths({name: yaml.safe_load(value) for name, value in arguments.parameter})
        if not arguments.notebook.is_file():
            raise ValueError(f"{arguments.notebook}: there is no such notebook.")
        if both := set(fixed) & set(points[0]):
            raise ValueError(f"{', '.join(sorted(both))}: give it with -g or with -p, not with both.")
        known = set(papermill.inspect_notebook(str(arguments.notebook)))
        if unknown := (set(fixed) | set(points[0])) - known:
            raise ValueError(f"no parameter {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}.")
        from distributed import Client, LocalCluster

        arguments.out.mkdir(parents=True, exist_ok=True)
        cluster = arguments.scheduler or LocalCluster(
            n_workers=arguments.workers, threads_per_worker=1, dashboard_address=None
        )
        with Client(cluster) as client:
            table, problems = sweep(arguments.notebook, arguments.out, points, fixed, client)
        if not arguments.scheduler:
            cluster.close()
        with atomic_write(arguments.out / "metrics.csv") as part:
            table.to_csv(part, index=False)
    except ImportError:
        parser.exit(2, f'{parser.prog}: this needs Dask: pip install "hdnet-lab[sweep]".\n')
    except (ValueError, OSError, yaml.YAMLError, ValidationError) as error:
        parser.exit(2, f"{parser.prog}: {first_line(error)}.\n")
    print(table.to_string(index=False))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
