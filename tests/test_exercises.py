"""Exercises: their checks, and that exercise and solution are one text."""

import nbformat
import pytest
from conftest import REPOSITORY
from refresh_notebooks import clean, exercises, with_exercises

from hdnet_lib.exercises import BEGIN, END, blank, check
from hdnet_lib.report import WIDGET

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
