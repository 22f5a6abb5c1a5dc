"""Notebooks under papermill and nbval, as their users run them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill as pm
import pytest
from conftest import REPOSITORY

from hdnet_lib.course.recording import parameter_names, recorded

pytestmark = pytest.mark.slow
NOTEBOOKS = REPOSITORY / "notebooks"
PLANTED = """
from hdnet_lib.model.local_dynamic import LocalDynamic
LocalDynamic.similarity = lambda self, values: values.transpose(1, 2) @ values
"""
"""A dot product for the cosine of Eq. 2. Python runs a file of the name sitecustomize.py when it starts."""


def papermill(notebook, folder, *parameters):
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS / notebook), "out.ipynb"]
    command += [part for pair in parameters for part in ("-p", *pair)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_notebook_runs_from_any_folder_with_a_relative_path(small, tmp_path):
    (tmp_path / "set").symlink_to(small)
    done = papermill("04_architecture.ipynb", tmp_path, ("data_root", "set"), ("pick", "3"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert recorded(tmp_path / "out.ipynb")["hdnet_parameters"] == 10_413_487


def test_an_unknown_parameter_is_refused_with_the_known_ones(tmp_path):
    done = papermill("04_architecture.ipynb", tmp_path, ("data_rot", "set"))
    assert done.returncode == 1
    last = [line for line in done.stderr.splitlines() if line.strip()][-1]
    known = "data_root, model_name, partial, pick, rain_stage"
    assert last == f"ValueError: there is no parameter data_rot; known: {known}."


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ([("partial", "false")], "miss a file"),
        ([("partial", "maybe")], "the parameter partial is true or false, not 'maybe'"),
        ([("partial", "true"), ("picks", "first")], "give whole numbers"),
        ([("partial", "true"), ("composite", "photo.jpg")], "composite and mask belong together"),
    ],
)
def test_parameters_are_taken_as_meant_or_refused_in_a_sentence(small, tmp_path, parameters, sentence):
    shutil.copytree(small, tmp_path / "set")
    listed = (tmp_path / "set" / "IHD_test.txt").read_text().splitlines()
    (tmp_path / "set" / listed[0]).unlink()
    done = papermill("00_quickstart.ipynb", tmp_path, ("data_root", str(tmp_path / "set")), *parameters)
    assert done.returncode == 1
    last = [line for line in done.stderr.splitlines() if line.strip()][-1]
    assert last.startswith("ValueError: ")
    assert sentence in last


def test_none_and_lists_are_taken_as_meant(tmp_path):
    """As a program hands them over."""
    parameters = {"data_root": None, "picks": [19, 42], "partial": None, "composite": None}
    executed = pm.execute_notebook(
        NOTEBOOKS / "00_quickstart.ipynb", tmp_path / "out.ipynb", parameters, cwd=NOTEBOOKS, progress_bar=False
    )
    assert recorded(tmp_path / "out.ipynb")["psnr_harmonised_db"] > 20
    assert executed.metadata.papermill.exception is None


def test_parameter_names():
    assert parameter_names('# Parameters\nsize = 3  # pixels\nname = "x"\n') == {"size", "name"}


def test_nbval_notices_a_planted_change_of_ld(tmp_path):
    """A test of the tests: nbval passes notebook 02 as it is, and must not pass it with another similarity."""
    (tmp_path / "sitecustomize.py").write_text(PLANTED)
    notebook = NOTEBOOKS / "02_local_dynamic.ipynb"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "-p",
        "no:cacheprovider",
        "--nbval-current-env",
        str(notebook),
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    failed = {int(line.split("Cell ")[1].split()[0]) for line in done.stdout.splitlines() if line.startswith("FAILED")}
    code = [cell.source for cell in nbformat.read(Path(notebook), 4).cells if cell.cell_type == "code"]
    by_hand = next(number for number, source in enumerate(code) if "by hand = LocalDynamic" in source)
    weights = next(number for number, source in enumerate(code) if '"equal weight"' in source)
    assert {by_hand, weights} <= failed
    assert not {0, 1, 2} & failed  # the setup and the features are as they were
