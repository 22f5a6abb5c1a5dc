"""Figures: one style, colours that colour-blind readers can tell apart."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from hdnet_lib.metrics import RATIO_BINS, ratio_bin

OUTLINE = "#ffd400"
"""Yellow foreground outline, as in Figure 3 of the paper."""


def use_style() -> None:
    """Set the style of all figures of this project."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update({
        "figure.dpi": 80,
        "savefig.dpi": 90,
        "savefig.bbox": "tight",
        "figure.constrained_layout.use": True,
        "axes.titlesize": 11,
        "font.size": 11,
    })  # fmt: skip


def show_images(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    outline: Sequence[np.ndarray] | None = None,
    width: float = 2.3,
) -> Figure:
    """A grid of images.

    Args:
        rows: the same number of images in each row: colours (H, W, 3) uint8, masks (H, W) bool, or maps
            (H, W) float in grey levels, which share one colour bar from 0 to 64.
        titles: one for each column.
        captions: below each image; an empty string for none.
        outline: one mask (H, W) for each row, drawn as a yellow line on that row's first image.
        width: of one image, in inches.
    """
    scale = None
    ratios = [row[0].shape[0] / row[0].shape[1] for row in rows]
    figure, axes = plt.subplots(
        len(rows),
        len(titles),
        figsize=(width * len(titles), sum(width * ratio + (0.35 if captions else 0.1) for ratio in ratios) + 0.3),
        squeeze=False,
        gridspec_kw={"height_ratios": ratios},
    )
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            axis = axes[r, c]
            if image.dtype.kind == "f":
                scale = axis.imshow(image, cmap="magma", vmin=0, vmax=64)
            else:
                axis.imshow(image, cmap="gray")
            axis.set(xticks=[], yticks=[])
            sns.despine(ax=axis, left=True, bottom=True)
            if r == 0:
                axis.set_title(titles[c])
            if captions and captions[r][c]:
                axis.set_xlabel(captions[r][c], fontsize=9)
        if outline is not None:
            axes[r, 0].contour(outline[r], levels=[0.5], colors=OUTLINE, linewidths=1.5)
    if scale is not None:
        figure.colorbar(scale, ax=axes[:, -1], label="grey levels", shrink=0.8)
    return figure


def difference(output: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Absolute difference of two (H, W, 3) uint8 images, mean over the colours, (H, W) float in grey levels."""
    return np.abs(output.astype(float) - real.astype(float)).mean(axis=2)


def plot_ratio_histogram(ratios: Sequence[float]) -> tuple[Figure, dict[str, int]]:
    """Histogram of foreground ratios (0 to 1) with the bins of Table 2, and the count in each bin."""
    counts = {ratio_bin(high): 0 for _, high in RATIO_BINS}
    for ratio in ratios:
        counts[ratio_bin(ratio)] += 1
    figure, axis = plt.subplots(figsize=(7, 3.4))
    edges = np.concatenate([np.geomspace(0.001, 0.05, 14), np.geomspace(0.05, 0.15, 5), np.geomspace(0.15, 1, 8)])
    edges = np.unique(edges)  # bars end where the bins end
    axis.hist(np.clip(ratios, edges[0], 1), bins=edges, color=sns.color_palette("colorblind")[0])
    axis.set(xscale="log", xlabel="foreground ratio (share of the image)", ylabel="composites", xlim=(0.001, 1))
    axis.set_xticks([0.001, 0.01, 0.05, 0.15, 1], ["0.1 %", "1 %", "5 %", "15 %", "100 %"])
    axis.minorticks_off()
    figure.suptitle(f"How much of the image is foreground ({len(ratios)} composites)", fontsize=11)
    top = axis.get_ylim()[1]
    for (low, high), (name, count) in zip(RATIO_BINS, counts.items(), strict=True):
        if high < 1:
            axis.axvline(high, color="black", linestyle="--", linewidth=1)
        axis.text((max(low, 0.001) * high) ** 0.5, top * 1.02, f"{name}\n{count}", ha="center", va="bottom", fontsize=9)
    return figure, counts


SHIFT_LABELS = {
    "lightness": "lightness, mean shift (L*)",
    "a": "green to red, mean shift (a*)",
    "b": "blue to yellow, mean shift (b*)",
    "chroma": "colourfulness, mean shift",
    "spread": "contrast, ratio (powers of 2)",
    "psnr": "PSNR of the composite (dB)",
}


def plot_shifts(tables: dict[str, pd.DataFrame]) -> Figure:
    """Distributions of the foreground's colour shift, one panel for each measure of ``data.shifts.Shift``.

    Args:
        tables: name of a set of composites -> its shifts, one row each; at most four sets.
    """
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.6))
    styles = ["-", "--", ":", "-."]
    colors = [sns.color_palette("colorblind")[index] for index in (3, 0, 2, 7)]
    for axis, (field, label) in zip(axes.flat, SHIFT_LABELS.items(), strict=True):
        ends = np.concatenate([table[field].quantile([0.01, 0.99]) for table in tables.values()])
        edges = np.linspace(ends.min(), ends.max(), 400)
        for (name, table), style, color in zip(tables.items(), styles, colors, strict=False):
            share = np.searchsorted(np.sort(table[field]), edges, side="right") / len(table) * 100
            axis.plot(edges, share, style, color=color, label=f"{name} ({len(table)})", linewidth=2)
        axis.set(xlabel=label, ylim=(0, 100))
    for axis in axes[:, 0]:
        axis.set_ylabel("composites below (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(tables))
    figure.suptitle("Colour shift of the foreground, composite less real photo", fontsize=12)
    return figure


def plot_training(logs: dict[str, pd.DataFrame], composite: tuple[float, float] | None = None) -> Figure:
    """Curves of training: loss on the left, PSNR of the validation composites on the right.

    Args:
        logs: name -> what :func:`~hdnet_lib.training.train` wrote as CSV; at most four. One log shows its loss in
            training, too.
        composite: loss and PSNR of the validation composites as they are: what a network has to beat.

    Raises:
        ValueError: there are more than four logs.
    """
    if len(logs) > 4:
        raise ValueError(f"at most four logs can be told apart in one figure, not {len(logs)}.")
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6))
    colors = [sns.color_palette("colorblind")[index] for index in (0, 3, 2, 7)]
    for (name, log), color, style in zip(logs.items(), colors, ["-", "--", "-.", ":"], strict=False):
        one = len(logs) == 1
        axes[0].plot(log.step, log.validation_loss, style, color=color, label="validation" if one else name)
        axes[1].plot(log.step, log.validation_psnr, style, color=color, label=name)
        if one:
            axes[0].plot(log.step, log.loss, ":", color=colors[1], label="training")
    for axis, value in zip(axes, composite or (), strict=False):
        axis.axhline(value, color="black", linestyle="--", linewidth=1, label="composite as it is")
    axes[0].set(xlabel="step", ylabel="loss (Eq. 1)", ylim=(0, None), title="Loss")
    axes[1].set(xlabel="step", ylabel="PSNR (dB)", title="PSNR of the validation composites")
    for axis in axes:
        axis.set_xlim(0, None)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
