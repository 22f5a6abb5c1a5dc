"""Runs of a notebook over a grid, on Dask: the table is that of serial runs, whatever happens to the workers."""

import os
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import run_sweep
import yaml
from conftest import REPOSITORY
from distributed import Client, LocalCluster

from hdnet_lib.course.recording import recorded
from hdnet_lib.course.report import absolute_paths
from hdnet_lib.evaluation.chunks import read_scores
from hdnet_lib.evaluation.scoring import evaluate

pytestmark = pytest.mark.slow


def notebook(path, *sources, parameters):
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


@pytest.fixture
def squares(tmp_path):
    """Records the square of a number; waits for a file ``go``, if told so, and notes that it runs."""
    return notebook(
        tmp_path / "squares.ipynb",
        "import pathlib, time\n"
        "if folder:\n"
        "    pathlib.Path(folder, f'{number}.{time.time_ns()}.started').touch()\n"
        "    while not pathlib.Path(folder, 'go').exists():\n"
        "        time.sleep(0.05)",
        "from hdnet_lib.course.recording import record\n"
        "record(square=number**2 // (1 - (number == bad)), label=f'no. {number}')",
        parameters="number = 1\nbad = -1\nfolder = ''",
    )


@pytest.fixture(autouse=True)
def environment():
    """Dask sets OMP_NUM_THREADS for its workers in this process, too, where other tests would inherit it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def client():
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield client


def test_a_grid_holds_every_combination():
    points = run_sweep.grid([["size", "64", "128"], ["models", "a", "b"]])
    assert points == [{"size": s, "models": m} for s in (64, 128) for m in "ab"]
    with pytest.raises(ValueError, match="-g size: give the name and at least one value"):
        run_sweep.grid([["size"]])


def test_a_killed_workers_run_is_repeated_and_the_table_is_the_serial_one(squares, tmp_path, client):
    points = [{"number": number} for number in range(4)]
    out, folder = tmp_path / "out", tmp_path / "marks"
    out.mkdir()
    folder.mkdir()
    kill_one_when_it_works(client, folder)
    table, problems = run_sweep.sweep(squares, out, points, {"folder": str(folder)}, client)
    assert problems == []
    serial = []
    for number in range(4):
        executed = tmp_path / f"{number}.ipynb"
        assert run_sweep.run(str(squares), str(executed), {"number": number}) == ""
        serial.append({"number": number} | recorded(executed))
    pd.testing.assert_frame_equal(table, pd.DataFrame(serial))
    started = [path.name.split(".")[0] for path in folder.glob("*.started")]
    assert len(started) == 5  # four runs, and the one that was killed again
    before = {path: path.stat().st_mtime_ns for path in out.glob("squares*.ipynb")}
    again, _ = run_sweep.sweep(squares, out, points, {"folder": str(folder)}, client)
    cubes = tmp_path / "cubes.ipynb"
    cubes.write_text(squares.read_text().replace("number**2", "number**3"))
    other, _ = run_sweep.sweep(cubes, out, points[3:], {"folder": str(folder)}, client)
    assert other.square.tolist() == [27]
    pd.testing.assert_frame_equal(again, table)
    assert {path: path.stat().st_mtime_ns for path in out.glob("squares*.ipynb")} == before


def kill_one_when_it_works(client, folder):
    """From a thread: once two runs have started, kill one worker, then let the runs finish."""
    import threading

    import psutil

    def work():
        deadline = time.monotonic() + 120
        while len(list(folder.glob("*.started"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        pids = client.run(lambda: __import__("os").getpid())
        psutil.Process(next(iter(pids.values()))).kill()
        (folder / "go").touch()

    threading.Thread(target=work, daemon=True).start()


def test_a_failing_run_is_named_and_the_others_are_kept(squares, tmp_path, monkeypatch, capsys):
    arguments = [str(squares), str(tmp_path / "out"), "-g", "number", "2", "3", "-p", "bad", "2"]
    monkeypatch.setattr("sys.argv", ["run_sweep.py", *arguments])
    assert run_sweep.main() == 1
    printed = capsys.readouterr()
    assert "{'number': 2}: cell In [4], which begins 'from hdnet_lib" in printed.err
    assert "ZeroDivisionError" in printed.err
    table = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert table.to_dict("records") == [{"number": 3, "square": 9, "label": "no. 3"}]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-g", "nubmer", "1"], "no parameter nubmer; known: bad, folder, number."),
        (["-g", "number", "1", "-p", "x", "1"], "no parameter x; known"),
        (["-g", "number", "["], "while parsing"),
        (["-g", "number", "1", "-g", "number", "2"], "-g number: give all values of a parameter at once"),
        (["-g", "number", "1", "-p", "number", "2"], "number: give it with -g or with -p, not with both"),
        (["-g", "number"], "-g number: give the name and at least one value"),
    ],
)
def test_bad_options_are_refused(squares, tmp_path, monkeypatch, capsys, options, sentence):
    monkeypatch.setattr("sys.argv", ["run_sweep.py", str(squares), str(tmp_path / "out"), *options])
    with pytest.raises(SystemExit):
        run_sweep.main()
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_shares_of_the_notebook_make_the_serial_table(small, tmp_path, client):
    fixed = {"data_root": str(small), "models": "reinhard", "size": 64, "scores": str(tmp_path / "scores.csv")}
    out = tmp_path / "out"
    out.mkdir()
    points = [{"shard": "1/2"}, {"shard": "2/2"}]
    table, problems = run_sweep.sweep(REPOSITORY / "notebooks" / "06_evaluate.ipynb", out, points, fixed, client)
    assert problems == []
    assert table.composites.tolist() == [64, 36]
    serial = evaluate(small, ["reinhard"], size=64).drop(columns="seconds")
    pd.testing.assert_frame_equal(
        read_scores(tmp_path / "scores.csv").drop(columns="seconds"), serial, check_exact=True
    )
    mean = serial[(serial.protocol == "hdnet") & (serial.method == "reinhard")].psnr.mean()
    assert (table.psnr_db * table.composites).sum() / 100 == pytest.approx(mean, abs=0.01)


def test_relative_paths_mean_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    made = absolute_paths(
        {"data_root": "x", "models": "hdnet-lite, zoo/*.safetensors,results", "size": 64, "scores": ""}
    )
    assert made["data_root"] == str(tmp_path / "x")
    assert made["models"] == f"hdnet-lite, {tmp_path}/zoo/*.safetensors, {tmp_path}/results"
    assert (made["size"], made["scores"]) == (64, "")
    assert absolute_paths({"data_root": yaml.safe_load("mini")}) == {"data_root": "mini"}
