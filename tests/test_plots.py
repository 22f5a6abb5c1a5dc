import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

from hdnet_lib.course import paper
from hdnet_lib.course.plots import (
    difference,
    plot_by_ratio,
    plot_intervals,
    plot_k_sweep,
    plot_masks,
    plot_parameters,
    plot_ratio_histogram,
    plot_snapping,
    plot_training,
    save_figure,
    show_images,
    use_style,
)
from hdnet_lib.evaluation.summary import by_group, ratio_bins, smooth_by_ratio


@pytest.fixture(autouse=True)
def close_figures():
    use_style()
    yield
    mpl.pyplot.close("all")


def test_show_images_draws_what_it_is_given():
    rng = np.random.default_rng(0)
    rows = [[rng.integers(0, 256, (8, 12, 3), dtype=np.uint8), rng.random((8, 12)) < 0.5, rng.random((8, 12)) * 60]] * 2
    figure = show_images(rows, ["a", "b", "c"], [["x", "", "z"]] * 2, outline=[rows[0][1]] * 2)
    *panels, bar = figure.axes
    for axis, image in zip(panels, rows[0] + rows[1], strict=True):
        assert np.array_equal(axis.images[0].get_array(), image)
    assert [axis.get_title() for axis in panels] == ["a", "b", "c", "", "", ""]
    assert [axis.get_xlabel() for axis in panels[:3]] == ["x", "", "z"]
    assert panels[2].images[0].get_clim() == panels[5].images[0].get_clim() == (0, 64)
    assert bar.get_ylabel() == "grey levels"
    assert [len(axis.collections) for axis in panels] == [1, 0, 0, 1, 0, 0]  # the outlines


def test_ratio_histogram_counts_every_composite_in_its_bin():
    ratios = [0.0002, 0.01, 0.05, 0.06, 0.15, 0.2, 0.9, 1.0]
    figure, counts = plot_ratio_histogram(ratios)
    assert counts == {"0-5 %": 3, "5-15 %": 2, "15-100 %": 3}
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == len(ratios)


def test_difference_by_hand():
    one, two = np.zeros((1, 1, 3), np.uint8), np.array([[[3, 6, 255]]], np.uint8)
    assert difference(one, two) == difference(two, one) == np.array([[88.0]])


def test_training_curves_show_the_log():
    log = pd.DataFrame(
        {"step": [10, 20], "loss": [0.3, 0.2], "validation_loss": [0.4, 0.1], "validation_psnr": [20, 25]}
    )
    left, right = plot_training(log, (0.5, 30)).axes
    validation, training, composite = left.lines
    assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([10, 20], [0.4, 0.1])
    assert list(training.get_ydata()) == [0.3, 0.2]
    assert composite.get_ydata()[0] == 0.5
    assert [list(line.get_ydata()) for line in right.lines] == [[20, 25], [30, 30]]


def heights(axis):
    """x and y of the points of each errorbar of an axis."""
    return [(list(bar[0].get_xdata()), list(bar[0].get_ydata())) for bar in axis.containers]


def test_a_metric_by_ratio_has_a_curve_a_band_and_a_point_for_each_filled_bin():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "method": np.repeat(["before", "after"], 40), "photo": np.tile(np.arange(40) // 2, 2),
        "ratio": np.tile(np.geomspace(0.002, 0.04, 40), 2), "mse": 1, "fmse": rng.uniform(100, 200, 80), "psnr": 30,
        "ssim": 1,
    })  # fmt: skip
    bins, curves = by_group(table, ratio_bins(table)), smooth_by_ratio(table, "fmse")
    axis = plot_by_ratio(bins, curves, "fmse").axes[0]
    drawn = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
    for method in ("before", "after"):
        assert np.array_equal(drawn[method].get_ydata(), curves[curves.method == method]["mean"])
    assert len(axis.collections) >= 2  # the bands
    points = [y for _, (y,) in heights(axis)]
    assert points == [bins.loc[(method, "0-5 %"), "fmse"] for method in ("before", "after")]
    assert axis.get_ylabel() == "fMSE"


def test_intervals_are_drawn_where_the_table_has_them():
    table = pd.DataFrame({"value": [1.0, -2.0], "low": [0.5, np.nan], "high": [2.0, np.nan]}, index=["a", "b"])
    figure = plot_intervals({"dB": table, "fMSE": table * 10}, "title", line=0)
    left, right = figure.axes
    assert heights(left) == [([1.0, -2.0], [0, 1])]
    assert heights(right) == [([10.0, -20.0], [0, 1])]
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b"]
    segment = left.containers[0][2][0].get_segments()[0]
    assert segment[:, 0].tolist() == [0.5, 2.0]


def test_a_k_sweep_shows_means_and_spreads_and_no_difference_as_none():
    table = pd.DataFrame(
        {"psnr": [30.001, 30.0], "psnr_spread": [0.001, np.nan], "fmse": [900.0, 800.0], "fmse_spread": [20.0, 10.0]},
        index=[1, 3],
    )
    left, right = plot_k_sweep(table, "ours").axes
    assert heights(left) == [([1, 3], [30.001, 30.0])]
    assert heights(right) == [([1, 3], [900.0, 800.0])]
    assert right.containers[0][2][0].get_segments()[0][:, 1].tolist() == [880, 920]
    assert np.ptp(left.get_ylim()) == pytest.approx(0.15, rel=0.1)
    assert list(left.get_xticks()) == [1, 3]


def test_published_and_measured_parameters_stand_in_panels_of_their_own():
    published = pd.DataFrame({"parameters": paper.TABLE_1["", "parameters"], "psnr": paper.TABLE_1["Average", "psnr"]})
    measured = pd.DataFrame(
        {"parameters": [0.65], "psnr": [34.0], "psnr_low": [33.0], "psnr_high": [36.0]}, index=["x"]
    )
    left, right = plot_parameters(published, measured, "mini").axes
    points = sorted(tuple(point) for group in left.collections for point in group.get_offsets())
    assert points == sorted(map(tuple, published.dropna().to_numpy()))
    labels = {text.get_text() for text in left.texts}
    assert labels == set(published.dropna().index)
    assert [point.tolist() for group in right.collections[:2] for point in group.get_offsets()] == [[0.65, 34.0]]
    assert "published" in left.get_title()
    assert "measured here: mini" in right.get_title()


def test_careless_masks_have_a_row_a_condition_and_hollow_points_without_snapping():
    index = pd.MultiIndex.from_product([["a", "b", "a+snap"], ["exact", "mean"]])
    gains = pd.DataFrame({"gain": range(6), "low": -1.0, "high": 9.0}, index)
    axis = plot_masks(gains).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["exact", "mean of all"]
    drawn = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
    assert {name: list(line.get_xdata()) for name, line in drawn.items()} == {
        "a": [0, 1],
        "b": [2, 3],
        "a+snap": [4, 5],
    }
    assert drawn["a"].get_color() == drawn["a+snap"].get_color() != drawn["b"].get_color()
    assert [drawn[name].get_markerfacecolor() == "white" for name in ("a", "b", "a+snap")] == [True, True, False]


def test_the_outlines_of_a_snapped_mask_are_drawn_around_the_object():
    mask = np.zeros((60, 80), bool)
    mask[20:30, 20:40] = True
    axis = plot_snapping(np.zeros((60, 80, 3), np.uint8), mask, np.roll(mask, 2, axis=1)).axes[0]
    assert axis.images[0].get_size() == (10 + 2 * 6, 22 + 2 * 6)


def test_figures_are_saved_as_png_pdf_and_csv_the_same_every_time(tmp_path):
    data = pd.DataFrame({"value": [1.23456789]}, index=["a"])
    for folder in ("one", "two"):
        figure = plot_intervals({"x": data.assign(low=1.0, high=2.0)}, "title")
        save_figure(figure, tmp_path / folder, "figure", data)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["figure.csv", "figure.pdf", "figure.png"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    assert pd.read_csv(tmp_path / "one" / "figure.csv", index_col=0).value["a"] == 1.2346
    save_figure(figure, "", "figure", data)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: the figure figure cannot be written"):
        save_figure(figure, tmp_path / "file", "figure")
