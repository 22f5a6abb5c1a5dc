"""The tables were copied by hand: check them against what they must add up to."""

import numpy as np
import pandas as pd
import pytest

from hdnet_lib import create_model, list_models
from hdnet_lib.course import paper
from hdnet_lib.data.iharmony4 import PUBLISHED
from hdnet_lib.evaluation.summary import METRICS


def off(table, metric, groups, counts):
    """Models whose printed average is more than half a percent off the mean over images."""
    values = table.xs(metric, axis=1, level=1)
    means = values[list(groups)].to_numpy() @ counts / sum(counts)
    return {model for model, wrong in (np.abs(means / values["Average"] - 1) > 0.005).items() if wrong}


def test_averages_are_those_of_the_subsets():
    """But for rows that were inconsistent in the papers that they come from, and two of the ablation."""
    groups = paper.SUBSETS[:-1]
    counts = [PUBLISHED[subset]["test"] for subset in groups]
    copied = {"RainNet", "Intrinsic", "SCS-Co", "DCCF", "SP-IC cycle", "LEMaRT"}
    assert off(paper.TABLE_1, "mse", groups, counts) == copied
    assert off(paper.TABLE_1, "psnr", groups, counts) == set()
    assert off(paper.TABLE_3, "mse", groups, counts) == {"base+ld", "base+sa"}
    assert off(paper.TABLE_3, "psnr", groups, counts) == set()


def test_averages_are_those_of_the_foreground_ratios():
    """But for the slips that notebook 09 lists."""
    groups, counts = ("0-5 %", "5-15 %", "15-100 %"), [3831, 1955, 1618]
    assert off(paper.TABLE_2, "mse", groups, counts) == {"Intrinsic", "S2CRNet-SN", "S2CRNet-VGG", "HDNet"}
    assert off(paper.TABLE_2, "fmse", groups, counts) == {"S2CRNet-SN", "S2CRNet-VGG", "HDNet"}


def test_the_tables_agree_where_they_repeat_each_other():
    assert paper.TABLE_1.loc["HDNet", "Average"].tolist() == paper.TABLE_3.loc["hdnet", "Average"].tolist()
    assert paper.TABLE_1.loc["Composite"].dropna().tolist() == paper.TABLE_3.loc["Composite"].tolist()
    shared = paper.TABLE_4.index
    assert (paper.TABLE_4[("HAdobe5k, 50 images", "psnr")] == paper.TABLE_1.loc[shared, ("Average", "psnr")]).all()
    one, two = (table[("Average", "mse")] for table in (paper.TABLE_1, paper.TABLE_2))
    different = [model for model in two.index if abs(one[model] - two[model]) > 0.05]
    assert different == ["S2AM"]  # a slip of the paper


def test_psnr_falls_as_mse_grows():
    for group in ("1024 x 1024", "2048 x 2048"):
        rows = paper.TABLE_5[group].dropna()
        assert np.corrcoef(rows.psnr, np.log(rows.mse))[0, 1] < -0.9


def test_sizes_are_those_of_our_models():
    for name in ("HDNet", "HDNet-lite"):
        count = sum(p.numel() for p in create_model(name.lower()).parameters())
        assert paper.TABLE_1.loc[name, ("", "parameters")] == pytest.approx(count / 1e6, abs=0.005)
    assert set(paper.TABLE_3.index[1:]) <= set(list_models())


def test_published_and_measured_stand_side_by_side():
    index = pd.MultiIndex.from_product(
        [["composite", "ours"], ["0-5 %", "5-15 %", "Average"]], names=["method", "group"]
    )
    measured = pd.DataFrame({metric: np.arange(6) * 1234.567 + 1 for metric in METRICS}, index=index)
    measured.loc[("ours", "5-15 %")] = np.nan
    both = paper.beside(paper.TABLE_2, measured, ["mse", "fmse"], {"composite": "Composite"})
    assert both.loc["HDNet", ("published", "0-5 %", "MSE")] == "4.35"
    assert both.loc["HDNet", "measured"].eq("").all()
    assert both.loc["Composite", ("measured", "Average", "fMSE")] == "2,470"
    assert both.loc["Composite", ("published", "Average", "fMSE")] == "1387.30"
    assert both.loc["ours", "measured"].tolist() == ["3,700", "3,700", "", "", "6,170", "6,170"]
    assert both.loc["ours", "published"].eq("").all()
    assert both.index.tolist() == [*paper.TABLE_2.index, "ours"]
