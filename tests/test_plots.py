import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

from hdnet_lib.plots import difference, plot_ratio_histogram, plot_training, show_images, use_style


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
    left, right = plot_training({"a run": log}, (0.5, 30)).axes
    validation, training, composite = left.lines
    assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([10, 20], [0.4, 0.1])
    assert list(training.get_ydata()) == [0.3, 0.2]
    assert composite.get_ydata()[0] == 0.5
    assert [list(line.get_ydata()) for line in right.lines] == [[20, 25], [30, 30]]
    left, right = plot_training({"one": log, "two": log}).axes
    assert [line.get_label() for line in left.lines] == ["one", "two"]
    with pytest.raises(ValueError, match="at most four logs"):
        plot_training(dict.fromkeys("abcde", log))
