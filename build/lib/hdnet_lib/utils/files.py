"""Writing files so that a process that ends midway leaves no half of one, and wording the errors of others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary name next to ``path``; what the block wrote there becomes ``path`` at its end.

    If the block fails, ``path`` stays as it was. A process that is killed leaves a hidden ``.part`` file.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.{os.getpid()}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # as this user's files are; some writers choose their own
        yield part
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def first_line(error: Exception) -> str:
    """The first line of an error's message without its full stop, or the error's type where it has none."""
    return str(error).split("\n")[0].strip().rstrip(".:") or type(error).__name__
