"""Results that a notebook records, for those that ran it with papermill."""

from pathlib import Path

import nbformat
from IPython.display import display

from hdnet_lib.errors import reason

METRICS = "application/vnd.hdnet.metrics+json"
"""Kind of output that holds what a notebook records."""


def record(**metrics: float | int | str) -> None:
    """Record results in the running notebook, for :func:`recorded`; they are shown as text, too."""
    text = "\n".join(f"{name}: {value}" for name, value in metrics.items())
    display({METRICS: metrics, "text/plain": text}, raw=True)


def recorded(executed: Path) -> dict[str, float | int | str]:
    """All that an executed notebook recorded, by name.

    Raises:
        ValueError: the file is no notebook.
    """
    try:
        cells = nbformat.read(executed, 4).cells
    except (OSError, ValueError) as error:
        raise ValueError(f"{executed}: this is no notebook: {reason(error)}.") from None
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    found = {}
    for output in outputs:
        found |= output.get("data", {}).get(METRICS, {})
    return found
