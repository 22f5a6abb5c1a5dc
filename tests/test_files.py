"""Outputs arrive on any disk, whole or not at all, and finished work is never thrown away."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from hdnet_lib.cli import main
from hdnet_lib.utils.files import atomic_write, check_writable


@pytest.fixture
def command(tmp_path):
    """``hdnet harmonize`` on a small photo, but for the output."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    return ["harmonize", str(tmp_path / "p.png"), str(tmp_path / "m.png"), "-o"]


def refuse(*arguments):
    raise PermissionError(1, "Operation not permitted")


def test_chmod_may_be_refused(command, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "chmod", refuse)
    assert main([*command, str(tmp_path / "r.png")]) == 0
    assert Image.open(tmp_path / "r.png").size == (60, 40)


def test_a_name_may_be_as_long_as_the_disk_allows(command, tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    assert main([*command, str(tmp_path / ("x" * (longest - 4) + ".png"))]) == 0


def test_what_cannot_be_renamed_is_kept_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", refuse)
    with (
        pytest.raises(OSError, match="the finished file is kept as") as caught,
        atomic_write(tmp_path / "r.txt") as part,
    ):
        part.write_text("hours of work")
    kept = Path(str(caught.value).rpartition("kept as ")[2])
    assert kept.read_text() == "hours of work"


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "r.txt") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_trying_leaves_nothing(tmp_path):
    check_writable(tmp_path / "r.txt")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="File name too long"):
        check_writable(tmp_path / ("x" * 300))


@pytest.fixture
def read_only(monkeypatch):
    """As on a disk that is mounted to be read; root may write everywhere else."""

    def touch(path, *arguments, **options):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "touch", touch)


@pytest.mark.usefixtures("read_only")
def test_a_read_only_folder_is_said_before_the_work(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hdnet_lib.cli.load_model", None)
    monkeypatch.setattr("hdnet_lib.cli.benchmark", None)
    monkeypatch.setattr("hdnet_lib.training.loop._new_model", None)
    for arguments in (
        [*command, str(tmp_path / "r.png")],
        ["train", "mini", "-o", str(tmp_path / "w.safetensors")],
        ["bench", "-o", str(tmp_path / "b.csv")],
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert "Read-only file system" in error
        assert len(error.strip().splitlines()) == 1
        assert ".part" not in error


def test_check_dataset_prints_its_table_where_its_file_cannot_be_written(small, tmp_path):
    script = "import sys, pathlib, check_dataset\n" \
        "def touch(path, *_, **__): raise OSError(30, 'Read-only file system')\n" \
        "pathlib.Path.touch = touch\n" \
        "sys.argv = ['check_dataset.py', sys.argv[1], '--workers', '1']\n" \
        "sys.exit(check_dataset.main())"  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "data_scripts")}
    done = subprocess.run([sys.executable, "-c", script, str(small)], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env=environment)  # fmt: skip
    assert done.returncode == 2
    assert "errors," in done.stdout
    assert done.stderr.count("cannot be written") == 2  # before the work, and after it
    assert "Traceback" not in done.stderr
