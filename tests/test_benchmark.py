"""The benchmark measures what it says; how fast anything is, no test asks."""

import platform
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import REPOSITORY

from hdnet_lib import cli
from hdnet_lib.inference.benchmark import BACKENDS, RECORDED, as_markdown, benchmark, peak_of_process
from hdnet_lib.utils.allocator import keep_freed_memory


@pytest.mark.slow
def test_a_line_holds_what_it_is_compared_with(tmp_path, capsys):
    path = tmp_path / "bench.csv"
    arguments = ["--models", "hdnet-nano", "--sizes", "256", "1032", "--repeats", "1", "-o", str(path)]
    assert cli.main(["bench", "--device", "cpu", *arguments]) == 0
    table = pd.read_csv(path)
    printed = capsys.readouterr().out
    assert as_markdown(table).split("\n")[0] in printed
    assert "| hdnet-nano | fp32 | " in printed
    assert table.machine[0] in printed
    assert table["size"].tolist() == [256, 1032]
    assert table.roofline_ratio.to_numpy() == pytest.approx(
        (table.seconds / table.roofline_seconds).to_numpy(), rel=0.01
    )
    first, large = table.iloc[0], table.iloc[1]
    assert first.times_released == pytest.approx(first.released_seconds / first.seconds, rel=0.01)
    assert pd.isna(large.released_seconds)  # all pairs would take too much memory
    # The roofline is arithmetic by the measured rate: it grows with the pixels.
    work = table.roofline_seconds * table.gflops_of_products
    assert work[1] / work[0] == pytest.approx((1032 / 256) ** 2, rel=0.01)
    assert 0.1 < first.peak_gb < 3


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells the peak of a process")
def test_the_peak_is_that_of_the_measuring_process_alone():
    """Not of this one, which holds three gigabytes meanwhile."""
    if psutil.virtual_memory().available < 6e9:
        pytest.skip("less than 6 GB of memory are free")
    ballast = np.ones(375_000_000)
    table = benchmark(["hdnet-nano"], [256], "cpu", 1)
    assert table.peak_gb[0] < ballast.nbytes / 1e9
    assert peak_of_process() > ballast.nbytes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--sizes", "257"], "a size must be a multiple of 8 and at least 256, not 257"),
        (["--device", "tpu"], "the device tpu cannot be used here"),
        (["-o", "nowhere/bench.csv"], "the folder nowhere does not exist"),
    ],
)
def test_bad_options_are_refused(options, sentence, capsys):
    assert cli.main(["bench", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_a_measurement_that_fails_is_named(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(
        ValueError, match="hdnet-nano at 256 pixels, fp32, cannot be measured: it was ended from outside"
    ):
        benchmark(["hdnet-nano"], [256], "cpu", 1)


def test_freed_memory_is_kept_where_the_c_library_can():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.slow
def test_every_way_is_measured_with_its_first_call():
    backends = [backend for backend in BACKENDS if backend != "compiled"]
    table = benchmark(["hdnet-nano"], [256], "cpu", 1, backends)
    assert table.backend.tolist() == backends
    assert (table.first_seconds > 0).all()
    assert table.released_seconds.notna().tolist() == [True, False, False, False, False]
    photo = benchmark(["idih"], [512], "cpu", 1, ["photo"])  # which takes 256 alone, and so is shown it
    assert photo.gflop.tolist() == [pytest.approx(3.31, abs=0.01)]
    with pytest.raises(ValueError, match=r"a backend is one of fp32, .*, not 'jit'"):
        benchmark(["hdnet-nano"], [256], "cpu", 1, ["jit"])


def test_the_page_on_speed_shows_the_recorded_benchmark():
    table = pd.read_csv(RECORDED)
    text = (REPOSITORY / "docs" / "speed.md").read_text()
    assert as_markdown(table) in text
    assert table.machine.unique().tolist() == [table.machine[0]]
    assert table.machine[0] in text
