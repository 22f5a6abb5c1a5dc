"""Where things lie: the repository, if the package runs from one, and the user's cache."""

import os
from pathlib import Path

from platformdirs import user_cache_path

_ABOVE = Path(__file__).parents[2]
CHECKOUT: Path | None = _ABOVE if (_ABOVE / "notebooks").is_dir() and (_ABOVE / "pyproject.toml").is_file() else None
"""The repository that this package runs from; None for an installed one."""


def data_folder() -> Path:
    """Where data sets are built: the folder that the environment variable ``HDNET_DATA`` names, else ``data`` of the
    repository, else the user's cache."""
    if named := os.environ.get("HDNET_DATA"):
        return Path(named).expanduser()
    return CHECKOUT / "data" if CHECKOUT else user_cache_path("hdnet-lab")
