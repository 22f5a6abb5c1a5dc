"""The package without its repository: built, installed into an empty environment, used in an empty folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the commands of an environment that holds the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files behind
    shutil.copytree(REPOSITORY / "hdnet_lib", source / "hdnet_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*pip, str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 30e6
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    commands = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    constraints = ["--constraint", str(REPOSITORY / "constraints.txt")]
    pip = [str(commands / "python"), "-m", "pip", "install", "--quiet", *constraints]
    subprocess.run([*pip, f"{wheel}[export]"], check=True)
    return commands


def run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess:
    own = {"HDNET_DATA", "PYTHONPATH", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache")}
    program = str(installed / command[0])
    return subprocess.run(
        [program, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_every_command_works_without_the_repository(installed, tmp_path):
    pixels = np.full((90, 120, 3), 120, np.uint8)
    pixels[30:60, 40:80] = (200, 90, 60)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(pixels[..., 0] == 200).save(tmp_path / "mask.png")
    small = ["--stages", "64:32", "--batch-size", "8", "--model", "hdnet-nano", "--device", "cpu"]
    for command in (
        ["harmonize", "photo.png", "mask.png", "-o", "result.png"],
        ["evaluate", "mini", "--limit", "4", "-o", "scores.csv"],
        ["train", "mini", "-o", "w.safetensors", *small],
        ["export", "hdnet-lite", "lite.onnx", "--int8"],
        ["evaluate", "mini", "--limit", "2", "--models", "w.safetensors", "lite.onnx"],
        ["bench", "--models", "hdnet-nano", "--sizes", "256", "--repeats", "1", "--device", "cpu"],
    ):
        done = run(installed, tmp_path, "hdnet", *command)
        assert done.returncode == 0, (command, done.stderr[-2000:])
    assert (np.asarray(Image.open(tmp_path / "result.png")) != pixels).any()
    listed = run(installed, tmp_path, "python", "-c", "import hdnet_lib; print(*hdnet_lib.list_pretrained())")
    assert listed.stdout.split() == ["hdnet", "hdnet-lite", "hdnet-lite-loose"]
    assert set(pd.read_csv(tmp_path / "scores.csv").method) == {"composite", "hdnet-lite"}
    assert len(list((tmp_path / "cache").rglob("mini/IHD_test.txt"))) == 1  # built once, out of sight
    where = run(installed, tmp_path, "python", "-c", "import hdnet_lib; print(hdnet_lib.__file__)")
    assert str(installed.parent) in where.stdout


def test_what_needs_the_notebooks_says_so(installed, tmp_path):
    done = run(installed, tmp_path, "python", "-m", "hdnet_lib.course.report")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "report: the notebooks come with the repository, not with the package: clone it, and run `make report`."
    )
