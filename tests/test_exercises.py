"""Exercises: their checks, and that exercise and solution are one text."""

import ast
import subprocess
import sys

import nbformat
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient
from refresh_notebooks import clean, exercises, with_exercises

from hdnet_lib.course.exercises import BEGIN, END, blank, check
from hdnet_lib.course.report import WIDGET

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (..., "no answer yet."),
        (None, "no answer yet."),
        (4, "right."),
        (0, "not yet. Count."),
        ("x", "not yet. Count."),
    ],
)
def test_check(answer, said, capsys):
    check(2, answer, lambda value: value - 1 == 3, "Count.")
    assert capsys.readouterr().out.startswith(f"Exercise 2: {said}")


def test_a_solution_is_taken_out_and_nothing_else():
    source = f"def double(x):\n    '''Twice x.'''\n    {BEGIN}\n    return 2 * x\n    {END}\n\nprint(double(2))"
    assert blank(source) == "def double(x):\n    '''Twice x.'''\n    # Your code here.\n\nprint(double(2))"
    assert blank("plain = 1") == "plain = 1"
    with pytest.raises(ValueError, match="a solution needs both marks"):
        blank(f"{BEGIN}\n1")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_are_their_solutions_without_the_answers(path):
    solutions = path.parent / "solutions" / path.name
    notebook = nbformat.read(path, 4)
    texts = [cell.source for cell in notebook.cells]
    assert [cell.source for cell in with_exercises(notebook, solutions).cells] == texts
    source = nbformat.read(solutions, 4)
    assert sum(BEGIN in cell.source for cell in source.cells) == 3
    assert not any(BEGIN in text or END in text for text in texts)
    checks = [cell for cell in notebook.cells if "check(\n" in cell.source or cell.source.startswith("check(")]
    assert len(checks) == 3
    assert all(cell.metadata["jupyter"]["source_hidden"] for cell in checks)  # they hold the answers
    headings = [cell.source.split("\n")[0] for cell in exercises(solutions) if cell.cell_type == "markdown"]
    assert headings == [f"### Exercise {n}: {kind}" for n, kind in enumerate(("predict", "change", "build"), start=1)]
    assert sum("<summary>Hint</summary>" in cell.source for cell in exercises(solutions)) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_are_right_and_open_exercises_have_no_answer(path):
    """nbval runs both and compares; here is what they have to say."""
    for file, said in ((path.parent / "solutions" / path.name, "right."), (path, "no answer yet.")):
        cells = [cell for cell in nbformat.read(file, 4).cells if "exercise" in cell.metadata.get("tags", [])]
        printed = "".join(o.get("text", "") for cell in cells if cell.cell_type == "code" for o in cell.outputs)
        for number in (1, 2, 3):
            assert f"Exercise {number}: {said}\n" in printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_solution_needs_no_name_that_its_notebook_lacks(path, tmp_path):
    """Solutions may set up less than their notebooks: here each stands where the student writes it."""
    notebook, solutions = nbformat.read(path, 4), nbformat.read(path.parent / "solutions" / path.name, 4)
    cells = [cell for cell in solutions.cells if "exercise" in cell.metadata.get("tags", [])]
    notebook.cells = [c for c in notebook.cells if "exercise" not in c.metadata.get("tags", [])] + cells
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{number:02}"
    nbformat.write(notebook, tmp_path / path.name)
    command = ["ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise", str(tmp_path)]
    found = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("path", NOTEBOOKS[:2], ids=lambda path: path.stem)
def test_a_solution_runs_its_notebook_by_a_name_in_quotes(path):
    """From Python 3.12 on, %%capture takes a name that begins with a number and has no quotes for a bad number."""
    first = nbformat.read(path.parent / "solutions" / path.name, 4).cells[1]
    assert first.source == f'%%capture\n%run "../{path.name}"'


SPOIL = """
def made_wrong(answer):
    if isinstance(answer, bool):
        return not answer
    if isinstance(answer, tuple | list):
        return type(answer)(made_wrong(part) for part in answer)
    return answer + 1 if isinstance(answer, int) else answer * 1.2 + 0.1
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_wrong_answer_is_not_right(path, tmp_path):
    """Every answer is made wrong after it was given: no check may accept it."""
    notebook = nbformat.read(path.parent / "solutions" / path.name, 4)
    cells = [nbformat.v4.new_code_cell(SPOIL)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cells.append(cell)
            if BEGIN in cell.source:
                cells.append(nbformat.v4.new_code_cell(wrong(cell.source)))
    notebook.cells = cells
    client = NotebookClient(notebook, resources={"metadata": {"path": str(path.parent / "solutions")}}, timeout=None)
    client.execute()
    printed = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    for number in (1, 2, 3):
        assert f"Exercise {number}: not yet." in printed.replace(f"Exercise {number}: no answer yet.", "")
    assert ": right." not in printed


def wrong(source):
    """Code that spoils what a solution found: its last variable outside of a function, or what its function returns."""
    *_, last = (part for part in ast.parse(source).body if isinstance(part, ast.Assign | ast.FunctionDef))
    if isinstance(last, ast.FunctionDef):
        return f"{last.name} = lambda *inputs, true={last.name}: made_wrong(true(*inputs))"
    return f"{last.targets[0].id} = made_wrong({last.targets[0].id})"


def test_widgets_and_times_do_not_stay_in_a_file():
    cell = nbformat.v4.new_code_cell("x", metadata={"execution": {"iopub.status.busy": "now"}, "tags": ["a"]})
    cell.outputs = [
        nbformat.v4.new_output("display_data", {WIDGET: {"model_id": "1"}, "text/plain": "VBox()"}),
        nbformat.v4.new_output("stream", text="kept"),
    ]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    clean(notebook)
    assert notebook.metadata == {}
    assert cell.metadata == {"tags": ["a"]}
    assert [output.output_type for output in cell.outputs] == ["stream"]
