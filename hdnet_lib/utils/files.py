"""Writing files so that a process that ends midway leaves no half of one, and wording the errors of others."""

import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary name next to ``path``; what the block wrote there becomes ``path`` at its end.

    If the block fails, ``path`` stays as it was. A process that is killed leaves a hidden ``.part`` file.

    Raises:
        OSError: the file cannot be written; or it is written and cannot be renamed, then the sentence says where it is.
    """
    part = _part_of(path)
    _touch(part, path)
    try:
        mode = part.stat().st_mode  # as this user's files are; some writers choose their own
        yield part
        with suppress(OSError):  # disks of another owner, and network shares, refuse it
            part.chmod(mode)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    try:
        part.replace(path)
    except OSError as error:
        raise OSError(f"{first_line(error)}; the finished file is kept as {part}") from None


def check_writable(path: Path) -> None:
    """Try whether a file can be written there, and leave nothing.

    Raises:
        OSError: it cannot.
    """
    part = _part_of(path)
    _touch(part, path)
    part.unlink()
    with suppress(FileNotFoundError):
        path.stat()  # refuses a name that is too long for the disk


def _touch(part: Path, path: Path) -> None:
    """Make the empty part; an error names the file that it is for."""
    try:
        part.touch()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _part_of(path: Path) -> Path:
    """A short hidden name, since ``path`` may be as long as the disk allows; it tells the process that writes."""
    return path.with_name(f".{uuid4().hex[:8]}.{os.getpid()}.part")


def fold(name: str) -> str:
    """A name as it is compared: in one Unicode form, without case. Disks differ in both."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def stamp(path: Path) -> tuple[int, int]:
    """Size and date of a file."""
    return path.stat().st_size, path.stat().st_mtime_ns


def first_line(error: Exception) -> str:
    """The first line of an error's message without its full stop, or the error's type where it has none.

    Of an error of the operating system it is the reason alone; its file is for the caller to name.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split("\n")[0].strip().rstrip(".:") or type(error).__name__
