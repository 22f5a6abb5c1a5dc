"""What a notebook that papermill runs takes in and gives out: parameters and results."""

import ast
import math
from pathlib import Path

import nbformat
from IPython import get_ipython
from IPython.display import display

from hdnet_lib.utils.files import first_line

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
METRICS_TYPE = "application/vnd.hdnet.metrics+json"
"""Kind of output that holds what a notebook records."""


def check_parameters() -> None:
    """Take the parameters that papermill put into the running notebook as they are meant, by the types of its own.

    None stands for the notebook's own value, "false" for False, a list for its items with commas between them.

    To be called from the cell after the one with the parameters.

    Raises:
        ValueError: a parameter is unknown, of which papermill would only warn, or its value is of another type; the
            sentence names it.
    """
    namespace = get_ipython().user_ns
    own, injected = [*namespace["In"], "", ""][1:3]
    if injected.startswith("# Parameters\n"):  # the cell that papermill puts in
        known, given = _assigned(own), _assigned(injected)
        if unknown := given.keys() - known.keys():
            raise ValueError(f"there is no parameter {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}.")
        for name in given:
            namespace[name] = as_meant(name, namespace[name], ast.literal_eval(known[name]))


def parameter_names(source: str) -> set[str]:
    """What a cell of parameters assigns to."""
    return set(_assigned(source))


def _assigned(source: str) -> dict[str, ast.expr]:
    assignments = [statement for statement in ast.parse(source).body if isinstance(statement, ast.Assign)]
    pairs = [(statement.targets[0], statement.value) for statement in assignments]
    return {target.id: value for target, value in pairs if isinstance(target, ast.Name)}


def as_meant(name: str, value: object, default: bool | int | float | str) -> bool | int | float | str:
    """A parameter's value in the type of its default.

    >>> as_meant("partial", "false", True), as_meant("picks", [3, 5], "19 42"), as_meant("limit", None, 500)
    (False, '3, 5', 500)

    Raises:
        ValueError: it has no such form.
    """
    if value is None:
        return default
    if isinstance(default, str):
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = str(value).strip().lower()
    if isinstance(default, bool):
        if text not in TRUE + FALSE:
            raise ValueError(f"the parameter {name} is true or false, not {value!r}.")
        return text in TRUE
    kind, meaning = (int, "a whole number") if isinstance(default, int) else (float, "a number")
    try:
        number = float("" if isinstance(value, bool) else text)
    except ValueError:
        raise ValueError(f"the parameter {name} is {meaning}, not {value!r}.") from None
    if not math.isfinite(number) or kind(number) != number:
        raise ValueError(f"the parameter {name} is {meaning}, not {value!r}.")
    return kind(number)


def parse_numbers(text: str | list[int]) -> list[int]:
    """Whole numbers of a parameter, with spaces or commas between them.

    >>> parse_numbers("19 42, 57")
    [19, 42, 57]

    Raises:
        ValueError: it holds none, or something else.
    """
    parts = text.replace(",", " ").split() if isinstance(text, str) else text
    try:
        numbers = [int(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if not numbers:
        raise ValueError(f"give whole numbers with spaces between them, not {text!r}.")
    return numbers


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
