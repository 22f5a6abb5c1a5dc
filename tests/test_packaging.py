"""The set-up files agree with each other, and nothing points at the machine that it was written on."""

import re
import subprocess
import tomllib

import yaml
from conftest import REPOSITORY

import hdnet_lib

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = PROJECT["dependencies"] + [requirement for extra in EXTRAS.values() for requirement in extra]


def test_conda_environment_is_in_step_with_pyproject():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    listed = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    expected = [re.sub(r"^torch\b", "pytorch", requirement) for requirement in REQUIREMENTS]
    assert sorted(listed) == sorted([*expected, f"python{PROJECT['requires-python']}", "pip"])
    assert environment["dependencies"][-1] == {"pip": ["-e ."]}


def test_constraints_pin_every_requirement_within_its_range():
    lines = (REPOSITORY / "constraints.txt").read_text().split("\n")
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    for requirement in REQUIREMENTS:
        name, lowest = requirement.split(">=")
        pinned = pins[name].split(".")
        assert [int(part) for part in pinned] >= [int(part) for part in lowest.split(".")], name


def test_the_lowest_versions_are_those_of_the_ranges():
    lines = (REPOSITORY / ".github" / "constraints-lowest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    bounds = dict(requirement.split(">=") for requirement in REQUIREMENTS)
    assert pins.keys() == bounds.keys()
    for name, lowest in bounds.items():
        assert f"{pins[name]}.".startswith(f"{lowest}."), name


def test_the_citation_names_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == hdnet_lib.__version__
    assert f"## {hdnet_lib.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_asked_for_packages_are_there():
    names = {requirement.split(">=")[0] for requirement in REQUIREMENTS}
    asked = "jupyterlab torch matplotlib seaborn pandas ipywidgets nbval papermill pillow"
    assert set(asked.split()) <= names


def test_no_tracked_file_names_a_path_of_one_machine():
    pattern = "|".join(f"/{folder}/[a-z.]" for folder in ("work", "root", "home", "Users", "tmp"))
    command = ["git", "grep", "-nIE", pattern]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1), found.stderr
    assert found.stdout == ""
