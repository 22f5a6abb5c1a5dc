"""Exercises of the notebooks: checks of answers, and the line between exercise and solution.

The source of an exercise is its solution, in ``notebooks/solutions``. What stands there between the two marks is taken
out (:func:`blank`) when ``make notebooks`` copies the cells to the end of the notebook.
"""

import re
from collections.abc import Callable
from typing import Any

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def check(exercise: int, answer: object, right: Callable[[Any], bool], hint: str) -> None:
    """Say whether an answer is right.

    Args:
        exercise: its number.
        answer: what the student found; ``...`` or None stands for no answer yet.
        right: tells a right answer from a wrong one.
        hint: what to think of, shown with a wrong answer.
    """
    if answer is ... or answer is None:
        print(f"Exercise {exercise}: no answer yet.")
        return
    try:
        verdict = "right." if right(answer) else f"not yet. {hint}"
    except Exception as error:  # an answer of a wrong type or shape
        verdict = f"not yet. {hint} (The check failed with {type(error).__name__}: {error})"
    print(f"Exercise {exercise}: {verdict}")


def blank(source: str) -> str:
    """A cell without its solution.

    Raises:
        ValueError: a mark stands alone.
    """
    if source.count(BEGIN) != source.count(END):
        raise ValueError(f"a solution needs both marks, {BEGIN!r} and {END!r}.")
    return re.sub(rf"(?ms)^([ \t]*){BEGIN}\n.*?^[ \t]*{END}$", r"\1# Your code here.", source)
