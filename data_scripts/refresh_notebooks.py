"""Copy the exercises from their solutions, run the notebooks in place, and clean their outputs.

python data_scripts/refresh_notebooks.py [notebooks/NAME.ipynb ...]
"""

import argparse
import copy
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

from hdnet_lib.course.exercises import BEGIN, blank
from hdnet_lib.course.report import LOG_LEVEL, NOTEBOOKS, WIDGET
from hdnet_lib.utils.files import atomic_write

SOLUTIONS = NOTEBOOKS / "solutions"


def exercises(path: Path) -> list[nbformat.NotebookNode]:
    """The cells of a file of solutions that are exercises, without solutions and outputs, checks folded away."""
    cells = [
        copy.deepcopy(cell) for cell in nbformat.read(path, 4).cells if "exercise" in cell.metadata.get("tags", [])
    ]
    for cell in cells:
        if cell.cell_type == "code":
            if BEGIN not in cell.source:
                cell.metadata["jupyter"] = {"source_hidden": True}  # in JupyterLab
                cell.metadata["tags"] = [*cell.metadata["tags"], "hide-input"]  # on the site
            cell.outputs, cell.execution_count = [], None
        cell.source = blank(cell.source)
    return cells


HEADING = """## Exercises

Write your answer into the cell, run it, and run the check below it. The check is folded away,
since its code knows the answer; it runs all the same. The solutions are in `solutions/{name}`."""


def with_exercises(notebook: nbformat.NotebookNode, solutions: Path) -> nbformat.NotebookNode:
    """A notebook whose last cell but the references comes after the exercises of a file of solutions."""
    cells = [cell for cell in notebook.cells if "exercise" not in cell.metadata.get("tags", [])]
    heading = nbformat.v4.new_markdown_cell(HEADING.format(name=solutions.name), metadata={"tags": ["exercise"]})
    notebook.cells = [*cells[:-1], heading, *exercises(solutions), cells[-1]]
    return notebook


def clean(notebook: nbformat.NotebookNode) -> None:
    """Drop times of execution, and widgets, which need a kernel: a page that is only read would show an error."""
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)
        cell.id = f"{number:02}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]


def refresh(path: Path) -> None:
    """Run one notebook in its own folder; the file changes only where it ran to its end."""
    notebook = nbformat.read(path, 4)
    solutions = SOLUTIONS / path.name
    if path != solutions and solutions.exists():
        with_exercises(notebook, solutions)
    client = NotebookClient(
        notebook,
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        timeout=None,
        extra_arguments=list(LOG_LEVEL),
    )
    client.execute()
    clean(notebook)
    with atomic_write(path) as part:
        nbformat.write(notebook, part)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", type=Path, nargs="*", help="default: all, and their solutions")
    chosen = parser.parse_args().notebooks
    chosen = chosen or [*sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), *sorted(SOLUTIONS.glob("[0-9]*.ipynb"))]
    for path in tqdm([path.resolve() for path in chosen], unit="notebook"):
        try:
            refresh(path)
        except (CellExecutionError, OSError, ValueError) as error:
            print(f"{path.name} stays as it was: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
