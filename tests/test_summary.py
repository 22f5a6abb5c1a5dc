"""Means, intervals and comparisons, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from hdnet_lib.cli import markdown
from hdnet_lib.course.plots import plot_by_ratio
from hdnet_lib.evaluation.summary import (
    by_group,
    choose_protocol,
    compare,
    fmse_bins,
    format_means,
    gains_by_group,
    mean_interval,
    permutation_test,
    ratio_bins,
    seed_means,
    smooth_by_ratio,
    summarize,
)


@pytest.fixture
def scores():
    """Four composites of three photos, before and after; none lies in the middle bin of the ratios."""
    rows = [("one", "a", 0.01, 900, 30, 33), ("two", "a", 0.02, 100, 31, 30), ("three", "b", 0.5, 300, 32, 36),
            ("four", "c", 0.05, 5000, 20, 20)]  # fmt: skip
    return pd.DataFrame([
        {"name": name, "subset": photo.upper(), "photo": photo, "ratio": ratio, "method": method, "protocol": "hdnet",
         "mse": 1.0, "fmse": fmse, "psnr": float(psnr), "ssim": 0.9, "seconds": 0.1}
        for name, photo, ratio, fmse, *values in rows
        for method, psnr in zip(("before", "after"), values, strict=True)
    ])  # fmt: skip


def test_summary_counts_gains_and_losses():
    rows = [("one", "a", 30, 33), ("two", "a", 30, 31), ("three", "b", 40, 38)]
    table = pd.concat(
        pd.DataFrame({"name": name, "photo": photo, "method": ["as it is", "ours"], "psnr": [before, after],
                      "mse": 1, "fmse": 1, "ssim": 1}) for name, photo, before, after in rows)  # fmt: skip
    ours = summarize(table, "as it is").loc["ours"]
    assert (ours.composites, ours.photos, ours.worse) == (3, 2, 1)
    assert ours.gain == pytest.approx(2 / 3)
    # Only two photos: the mean gain of one is 2, of the other -2; resampling can give nothing beyond.
    assert (ours.gain_low, ours.gain_high) == (pytest.approx(-2), pytest.approx(2))


@pytest.mark.slow
def test_intervals_resample_photos_and_cover_the_truth():
    """Of 95 % intervals about 95 % cover the mean; resampling composites one by one would cover far fewer."""
    rng = np.random.default_rng(0)
    covered, naive = 0, 0
    photos, each = pd.Series(np.repeat(np.arange(100), 5)), pd.Series(np.arange(500))
    for _ in range(200):
        values = pd.Series(np.repeat(rng.normal(size=100), 5) + 0.3 * rng.normal(size=500))
        _, low, high = mean_interval(values, photos, draws=500)
        covered += low < 0 < high
        _, low, high = mean_interval(values, each, draws=500)
        naive += low < 0 < high
    assert covered >= 175
    assert naive < 150


def test_one_photo_alone_gives_no_interval(scores):
    one = scores[scores.photo == "a"]
    gained = summarize(one, "before").loc["after"]
    assert np.isnan(gained[["psnr_low", "psnr_high", "gain_low", "gain_high"]].astype(float)).all()
    assert "| after | 31.50 | +1.00 | 1 |" in markdown(summarize(one, "before"))
    assert "| after | 29.75 [20.00, " in markdown(summarize(scores, "before"))
    words = format_means(by_group(scores, ratio_bins(scores)), ["psnr"])
    assert words.loc[("after", "15-100 %"), "PSNR"] == "36.0"  # of photo b alone
    assert words.loc[("after", "Average"), "PSNR"].startswith("29.8 [")
    assert np.isnan(permutation_test(one.psnr, one.photo))


def test_bins_of_one_photo_are_drawn_without_an_interval(scores):
    axis = plot_by_ratio(by_group(scores, ratio_bins(scores)), smooth_by_ratio(scores, "psnr"), "psnr").axes[0]
    points = {float(bar[0].get_ydata()[0]) for bar in axis.containers}
    assert {32.0, 36.0} <= points  # photo b before and after, alone in its bin


def test_an_interval_may_have_photos_of_different_weight():
    mean, low, high = mean_interval(pd.Series([1.0, 1.0, 1.0, 5.0]), pd.Series(list("aaab")))
    assert mean == 2
    assert (low, high) == (1, 5)


@pytest.mark.slow
def test_a_permutation_test_is_right_as_often_as_it_says():
    rng = np.random.default_rng(0)
    photos = pd.Series(np.repeat(np.arange(30), 4))
    p = [permutation_test(pd.Series(np.repeat(rng.normal(size=30), 4)), photos, draws=400) for _ in range(300)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09
    assert permutation_test(pd.Series(np.repeat(rng.normal(1, 0.3, size=30), 4)), photos, draws=400) == 1 / 401
    # Three photos that all gain: of eight ways to choose signs, two are as extreme.
    assert permutation_test(pd.Series([1.0, 1.0, 1.0]), pd.Series([0, 1, 2])) == pytest.approx(0.25, abs=0.02)


def test_entries_are_compared_over_their_seeds_by_photo():
    rows = [
        ("one", "a", [10, 12], [9, 10]), ("two", "a", [20, 22], [18, 18]), ("three", "b", [30, 30], [31, 31])
    ]  # fmt: skip
    table = pd.DataFrame([
        {"name": name, "photo": photo, "method": f"{entry}-s{seed}", "fmse": value}
        for name, photo, *values in rows
        for entry, seeds in zip(["w8-b-s", "w8-a"], values, strict=True)
        for seed, value in enumerate(seeds)
    ])  # fmt: skip
    result = compare(table, "w8-b-s", "fmse")
    assert list(result.index) == ["w8-b-s", "w8-a"]
    assert result.loc["w8-a", "mean"] == pytest.approx(117 / 6)
    assert result.loc["w8-a", "spread"] == pytest.approx(np.std([58 / 3, 59 / 3], ddof=1))
    assert result.loc["w8-a", ["difference", "low", "high"]].tolist() == pytest.approx([(-1.5 - 3 + 1) / 3, -2.25, 1])
    assert result.loc["w8-b-s", ["difference", "low", "high", "p"]].tolist() == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="'w8' must be one of w8-b-s, w8-a"):
        compare(table, "w8", "fmse")


def test_a_method_without_a_seed_is_an_entry_of_its_own(scores):
    result = compare(scores, "before", "psnr")
    assert result.seeds.tolist() == [1, 1]
    assert result.loc["after", "difference"] == pytest.approx(1.5)
    assert np.isnan(result.loc["after", "spread"])


def test_groups_have_means_intervals_and_both_counts(scores):
    table = by_group(scores, ratio_bins(scores))
    assert table.loc["after"].index.tolist() == ["0-5 %", "5-15 %", "15-100 %", "Average"]
    assert table.loc["after", "composites"].tolist() == [3, 0, 1, 4]
    assert table.loc["after", "photos"].tolist() == [2, 0, 1, 3]
    assert table.loc[("after", "0-5 %"), "psnr"] == pytest.approx(83 / 3)
    # Photo "c" alone, "a" alone: resampling two photos can give nothing beyond.
    assert table.loc[("after", "0-5 %"), ["psnr_low", "psnr_high"]].tolist() == pytest.approx([20, 31.5])
    assert table.loc[("after", "5-15 %"), ["psnr", "fmse_low"]].isna().all()
    assert by_group(scores, "subset").loc[("before", "A"), "psnr"] == 30.5


def test_gains_count_every_composite_once(scores):
    result = gains_by_group(scores, fmse_bins(scores, "before"), "before")
    assert result.index.tolist() == ["below 300", "300 to 1000", "above 1000"]
    assert result.composites.tolist() == [1, 2, 1]
    assert result["after, gain"].tolist() == [-1, 3.5, 0]
    assert result["after, worse"].tolist() == [1, 0, 0]
    empty = gains_by_group(scores, ratio_bins(scores), "before")
    assert empty.composites.tolist() == [3, 0, 1]


def test_a_perfect_result_counts_as_100_db(scores):
    scores.loc[scores.name == "one", "psnr"] = np.inf
    assert choose_protocol(scores, "hdnet").psnr.max() == 100
    with pytest.raises(ValueError, match="no scores of the protocol 'idih', only hdnet"):
        choose_protocol(scores, "idih")


def test_a_smooth_curve_goes_through_a_line_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    ratio = np.exp(rng.uniform(np.log(0.002), np.log(0.8), 600))
    table = pd.DataFrame({"method": "ours", "ratio": ratio, "photo": np.arange(600) // 3})
    table["psnr"] = 20 - 4 * np.log(ratio) + rng.normal(size=600)
    curve = smooth_by_ratio(table, "psnr")
    middle = curve[(curve.ratio > 0.01) & (curve.ratio < 0.2)]  # at its ends a mean of neighbours leans inwards
    assert np.abs(middle["mean"] - (20 - 4 * np.log(middle.ratio))).max() < 0.4
    assert (curve.low < curve["mean"]).all()
    assert (curve["mean"] < curve.high).all()


def test_seeds_are_paired_and_those_that_only_one_entry_has_do_not_count():
    """Seed 1 is lucky for both; the reference has one seed more, and a very lucky one."""
    values = {"a-s0": 10, "a-s1": 20, "a-s2": 90, "b-s0": 11, "b-s1": 23}
    table = pd.DataFrame([
        {"name": str(n), "photo": n, "method": method, "psnr": value + n}
        for method, value in values.items()
        for n in range(5)
    ])  # fmt: skip
    result = compare(table, "a", "psnr")
    assert result.loc["b", "difference"] == 2
    assert result.loc["b", "difference_spread"] == pytest.approx(np.std([1, 3], ddof=1))
    assert result.loc["b", "spread"] == pytest.approx(np.std([11, 23], ddof=1))


def test_a_curves_interval_resamples_photos():
    """Forty composites of each photo are as good as one: the band must be as wide as that of the photos alone."""
    rng = np.random.default_rng(0)
    photos = pd.DataFrame(
        {"method": "m", "photo": range(30), "ratio": np.geomspace(0.01, 0.5, 30), "psnr": rng.normal(30, 2, 30)}
    )
    repeated = pd.concat([photos] * 40)
    alone, many = (smooth_by_ratio(table, "psnr", points=5) for table in (photos, repeated))
    assert ((many.high - many.low) / (alone.high - alone.low)).between(0.7, 1.3).all()


def test_settings_have_the_mean_and_the_standard_deviation_of_their_seeds(scores):
    more = pd.concat([scores, scores.assign(method=scores.method + "2", psnr=scores.psnr + 3)])
    settings = pd.Series({"before": 1, "before2": 1, "after": 9}, name="K")
    result = seed_means(more, settings)
    assert result.index.tolist() == [1, 9]
    assert result.seeds.tolist() == [2, 1]
    assert result.psnr.tolist() == [28.25 + 1.5, 29.75]
    assert result.psnr_spread[1] == pytest.approx(np.std([0, 3], ddof=1))
    assert np.isnan(result.psnr_spread[9])
