"""What a notebook that papermill runs takes in and gives out: parameters and results."""

import ast
from pathlib import Path

import nbformat
from IPython import get_ipython
from IPython.display import display

from hdnet_lib.utils.files import first_line

METRICS_TYPE = "application/vnd.hdnet.metrics+json"
"""Kind of output that holds what a notebook records."""


def check_parameters() -> None:
    """Refuse parameters that the running notebook does not have, of which papermill would only warn.

    To be called from the cell after the one with the parameters.

    Raises:
        ValueError: the sentence names them, and the known ones.
    """
    own, injected = [*get_ipython().user_ns["In"], "", ""][1:3]
    if injected.startswith("# Parameters\n"):  # the cell that papermill puts in
        known = parameter_names(own)
        if unknown := parameter_names(injected) - known:
            raise ValueError(f"there is no parameter {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}.")


def parameter_names(source: str) -> set[str]:
    """What a cell of parameters assigns to."""
    targets = [statement.targets[0] for statement in ast.parse(source).body if isinstance(statement, ast.Assign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def record(**metrics: float | int | str) -> None:
    """Record results in the running notebook, for :func:`recorded`; they are shown as text, too."""
    text = "\n".join(f"{name}: {value}" for name, value in metrics.items())
    display({METRICS_TYPE: metrics, "text/plain": text}, raw=True)


def recorded(executed: Path) -> dict[str, float | int | str]:
    """All that an executed notebook recorded, by name.

    Raises:
        ValueError: the file is no notebook.
    """
    try:
        cells = nbformat.read(executed, 4).cells
    except (OSError, ValueError) as error:
        raise ValueError(f"{executed}: this is no notebook: {first_line(error)}.") from None
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    found = {}
    for output in outputs:
        found |= output.get("data", {}).get(METRICS_TYPE, {})
    return found
