"""Files of an evaluation: a table of scores that is written in chunks, so that it can be stopped and shared out."""

import json
import shutil
from pathlib import Path

import pandas as pd

from hdnet_lib.evaluation.metrics import Scores
from hdnet_lib.utils.files import atomic_write, first_line

CHUNK_SIZE = 64
"""Composites between two files on disk: what a stopped evaluation loses at most, and what shards share out."""
COLUMNS = ["name", "subset", "photo", "ratio", "method", "protocol", *Scores._fields, "seconds"]
"""Of a table of scores."""


def read_scores(path: str | Path) -> pd.DataFrame:
    """A table that :func:`~hdnet_lib.evaluation.scoring.evaluate` wrote, to the last bit.

    Raises:
        ValueError: it cannot be read, or is no such table.
    """
    try:
        # As text first: the readers of older pandas lose a last bit.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[COLUMNS]
        return table.astype(dict.fromkeys(("ratio", *Scores._fields, "seconds"), float))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: this is no table of scores: {first_line(error)}.") from None


class Chunks:
    """Files of an evaluation: the table, what it was made from (.json) and, until it is whole, its parts."""

    def __init__(self, table: Path, settings: dict) -> None:
        if table.suffix != ".csv":
            raise ValueError(f"{table}: the name of a table of scores ends with .csv.")
        if not table.parent.is_dir():
            raise ValueError(f"{table}: the folder {table.parent} does not exist.")
        self.table, self.folder = table, table.with_name(f"{table.name}.parts")
        self.composites, self.whole = settings["composites"], None
        made_from = table.with_suffix(".json")
        if made_from.exists():
            try:
                earlier = dict(json.loads(made_from.read_text()))
            except (OSError, ValueError, TypeError) as error:
                raise ValueError(
                    f"{made_from}: this does not tell how a table was made: {first_line(error)}."
                ) from None
            if different := [key for key in settings if settings[key] != earlier.get(key)]:
                raise ValueError(
                    f"{table} belongs to an evaluation with other {', '.join(different)}: choose another name, or "
                    f"delete {made_from.name}, the table and {self.folder.name}."
                )
        elif table.exists():
            raise ValueError(f"{table} exists, and {made_from.name}, which tells how it was made, does not: delete it.")
        self.folder.mkdir(exist_ok=True)
        if not made_from.exists():
            with atomic_write(made_from) as part:
                part.write_text(json.dumps(settings, indent=2) + "\n")

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:06d}.csv"

    def read(self, start: int, stop: int, rows: int) -> pd.DataFrame | None:
        """The part of these composites, from the whole table if that is there; None if it is not done."""
        if self.whole is None and self.table.is_file():
            self.whole = read_scores(self.table)
        if self.whole is not None:
            scores, path = self.whole.iloc[start * rows : stop * rows], self.table
            complete = len(self.whole) == self.composites * rows
        elif (path := self._path(start)).is_file():
            scores = read_scores(path)
            complete = len(scores) == (stop - start) * rows
        else:
            return None
        if not complete:
            raise ValueError(f"{path}: lines are missing or too many: delete it, and what is lost is scored again.")
        return scores

    def write(self, start: int, scores: pd.DataFrame) -> None:
        """Keep a part, unless the whole table is there."""
        try:
            with atomic_write(self._path(start)) as part:
                scores.to_csv(part, index=False)
        except FileNotFoundError:  # another run of the same share was faster, and removed the parts
            if not self.table.is_file():
                raise

    def finish(self, starts: range) -> None:
        """Write the table if all parts are done, and remove them."""
        if not self.table.is_file() and all(self._path(start).is_file() for start in starts):
            try:
                whole = pd.concat([read_scores(self._path(start)) for start in starts])
            except ValueError:  # another shard was faster, and removes the parts
                if not self.table.is_file():
                    raise
                return
            with atomic_write(self.table) as part:
                whole.to_csv(part, index=False)
        if self.table.is_file():
            shutil.rmtree(self.folder, ignore_errors=True)
