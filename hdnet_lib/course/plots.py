"""Figures: one style, colours that colour-blind readers can tell apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hdnet_lib.data.samples import RATIO_BINS, ratio_bin
from hdnet_lib.evaluation.robustness import ROBUST, SNAPPED
from hdnet_lib.evaluation.summary import TITLES
from hdnet_lib.model.local_dynamic import Matches
from hdnet_lib.utils.files import atomic_write, first_line

OUTLINE = "#ffd400"
"""Yellow foreground outline, as in Figure 3 of the paper."""
COLORS = [sns.color_palette("colorblind")[index] for index in (0, 3, 2, 7, 4, 9)]
STYLES = ["-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))]
"""Lines differ in colour and in style, so that they can be told apart in grey, too; six at most."""
MARKERS = "os^Dv*"
LABELS = TITLES | {"psnr": "PSNR (dB)"}


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
        rows: the same number of images in each row: colours (H, W, 3) uint8, greys (H, W) uint8, masks (H, W) bool,
            or maps (H, W) float in grey levels, which share one colour bar from 0 to 64.
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
                axis.imshow(image, cmap="gray", vmin=0, vmax=1 if image.dtype == bool else 255)
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


def plot_snapping(photo: np.ndarray, given: np.ndarray, snapped: np.ndarray) -> Figure:
    """The outlines of a mask before and after :func:`~hdnet_lib.data.snapping.snap_mask`, around the object.

    Args:
        photo: (H, W, 3) uint8.
        given, snapped: (H, W), bool or in [0, 1].
    """
    rows, columns = (np.flatnonzero(((given >= 0.5) | (snapped >= 0.5)).any(axis=axis)) for axis in (1, 0))
    margin = 4 + max(np.ptp(rows), np.ptp(columns)) // 10
    top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
    box = np.s_[top : rows[-1] + margin + 1, left : columns[-1] + margin + 1]
    height, width = given[box].shape
    figure, axis = plt.subplots(figsize=(5, min(5 * height / width, 8) + 0.6))
    axis.imshow(photo[box])
    axis.contour(given[box], levels=[0.5], colors="white", linewidths=2.5)
    axis.contour(given[box], levels=[0.5], colors="black", linewidths=1, linestyles="--")
    axis.contour(snapped[box], levels=[0.5], colors=OUTLINE, linewidths=1.5)
    axis.set(xticks=[], yticks=[], title="black and white: the mask as given; yellow: snapped")
    sns.despine(ax=axis, left=True, bottom=True)
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
    axis.hist(np.clip(ratios, edges[0], 1), bins=list(edges), color=sns.color_palette("colorblind")[0])
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
    """Distributions of the foreground's colour shift, one panel for each measure of ``composites.shifts.Shift``.

    Args:
        tables: name of a set of composites -> its shifts, one row each; at most six sets.
    """
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.6))
    for axis, (field, label) in zip(axes.flat, SHIFT_LABELS.items(), strict=True):
        ends = np.concatenate([table[field].quantile([0.01, 0.99]) for table in tables.values()])
        edges = np.linspace(ends.min(), ends.max(), 400)
        for (name, table), style, color in zip(tables.items(), STYLES, COLORS, strict=False):
            share = np.searchsorted(np.sort(table[field]), edges, side="right") / len(table) * 100
            axis.plot(edges, share, style, color=color, label=f"{name} ({len(table)})", linewidth=2)
        axis.set(xlabel=label, ylim=(0, 100))
    for axis in axes[:, 0]:
        axis.set_ylabel("composites below (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(tables))
    figure.suptitle("Colour shift of the foreground, composite less real photo", fontsize=12)
    return figure


def plot_training(log: pd.DataFrame, composite: tuple[float, float] | None = None) -> Figure:
    """Curves of training: loss on the left, PSNR of the validation composites on the right.

    Args:
        log: what :func:`~hdnet_lib.training.loop.train` wrote as CSV.
        composite: loss and PSNR of the validation composites as they are: what a network has to beat.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6))
    axes[0].plot(log.step, log.validation_loss, color=COLORS[0], label="validation")
    axes[1].plot(log.step, log.validation_psnr, color=COLORS[0])
    axes[0].plot(log.step, log.loss, ":", color=COLORS[1], label="training")
    for axis, value in zip(axes, composite or (), strict=False):
        axis.axhline(value, color="black", linestyle="--", linewidth=1, label="composite as it is")
    axes[0].set(xlabel="step", ylabel="loss (Eq. 1)", ylim=(0, None), title="Loss")
    axes[1].set(xlabel="step", ylabel="PSNR (dB)", title="PSNR of the validation composites")
    for axis in axes:
        axis.set_xlim(0, None)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def save_figure(figure: Figure, folder: str | Path, name: str, data: pd.DataFrame | None = None) -> None:
    """Write a figure as PNG and PDF, and what it shows as CSV; nothing where ``folder`` is "". Makes the folder.

    The files hold no date, so that the same figure has the same bytes.

    Raises:
        ValueError: the folder cannot be made or written to.
    """
    if not folder:
        return
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Producer": None})):
            with atomic_write(folder / f"{name}.{kind}") as part:
                figure.savefig(part, format=kind, metadata=metadata)
        if data is not None:
            with atomic_write(folder / f"{name}.csv") as part:
                data.to_csv(part, float_format="%.5g")
    except OSError as error:
        raise ValueError(f"{folder}: the figure {name} cannot be written: {first_line(error)}.") from None


def plot_by_ratio(bins: pd.DataFrame, curves: pd.DataFrame, metric: str) -> Figure:
    """A metric against the foreground ratio: points are the means of Table 2's bins, lines are smooth means.

    Args:
        bins: :func:`~hdnet_lib.evaluation.summary.by_group` over the bins; empty ones have no point.
        curves: :func:`~hdnet_lib.evaluation.summary.smooth_by_ratio` of the same metric; at most six methods.
        metric: "psnr", "mse", "fmse" or "ssim".
    """
    figure, axis = plt.subplots(figsize=(8, 4.2))
    methods = list(curves.method.unique())
    for index, (method, color, style) in enumerate(zip(methods, COLORS, STYLES, strict=False)):
        curve = curves[curves.method == method]
        axis.plot(curve.ratio, curve["mean"], linestyle=style, color=color, label=method, linewidth=2)
        axis.fill_between(curve.ratio, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)
        for low, high in RATIO_BINS:
            row = bins.loc[(method, ratio_bin(high))]
            if row.composites:
                # Side by side in the middle of the bin, as far as it is shown.
                at = (max(low, curves.ratio.min()) * min(high, curves.ratio.max())) ** 0.5
                at *= 1.06 ** (index - (len(methods) - 1) / 2)
                ends = [[row[metric] - row[f"{metric}_low"]], [row[f"{metric}_high"] - row[metric]]]
                axis.errorbar(at, row[metric], ends, fmt="o", color=color, capsize=3, markeredgecolor="white")
    for _, high in RATIO_BINS[:-1]:
        axis.axvline(high, color="black", linestyle="--", linewidth=0.8)
    ticks = [tick for tick in (0.002, 0.005, 0.01, 0.02, 0.05, 0.15, 0.4, 0.8) if tick <= curves.ratio.max() * 1.2]
    axis.set(xscale="log", xlabel="foreground ratio (share of the image)", ylabel=LABELS[metric])
    axis.set_xticks(ticks, [f"{tick * 100:g} %" for tick in ticks])
    axis.minorticks_off()
    axis.set_title(f"{LABELS[metric]} by foreground ratio: points are means of the bins, bands and bars 95 % intervals")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def plot_intervals(panels: Mapping[str, pd.DataFrame], title: str, line: float | None = None) -> Figure:
    """Values with their intervals as points on horizontal bars, one panel for each quantity.

    Args:
        panels: label of an axis -> table with the columns value, low and high; all have the same index, and an
            interval may be missing (NaN).
        title: of the figure.
        line: where to draw a vertical line, such as 0 for differences.
    """
    names = next(iter(panels.values())).index
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.2 + 3.6 * len(panels), 1.2 + 0.34 * len(names)), sharey=True, squeeze=False
    )
    for axis, (label, table) in zip(axes[0], panels.items(), strict=True):
        ends = np.stack([table.value - table.low, table.high - table.value])
        axis.errorbar(table.value, range(len(names)), xerr=ends, fmt="o", color=COLORS[0], capsize=3)
        axis.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
        axis.set_yticks(range(len(names)), names)
        axis.grid(axis="y", visible=False)
        if line is not None:
            axis.axvline(line, color="black", linewidth=0.8)
    figure.suptitle(title, fontsize=11)
    return figure


def plot_k_sweep(table: pd.DataFrame, label: str) -> Figure:
    """PSNR and fMSE against K, as in Figure 5.

    Args:
        table: :func:`~hdnet_lib.evaluation.summary.seed_means` by K; its spreads are the bars.
        label: of the line.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for axis, metric in zip(axes, ("psnr", "fmse"), strict=True):
        axis.errorbar(
            table.index, table[metric], table[f"{metric}_spread"], marker="o", color=COLORS[0], capsize=4, label=label
        )
        axis.set(xlabel="K, the number of neighbours", ylabel=LABELS[metric], title=f"{LABELS[metric]} against K")
        # No difference must not look like one: the axis spans 0.5 % of its values at least.
        low, high = axis.get_ylim()
        slack = max(0, 0.005 * high - (high - low)) / 2
        axis.set_ylim(low - slack, high + slack)
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.set_xticks(table.index)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
    return figure


def plot_parameters(published: pd.DataFrame, measured: pd.DataFrame, data: str) -> Figure:
    """Figure 1: parameters against PSNR; published numbers on the left, ours, of other data, on the right.

    Args:
        published: index: model; columns parameters (in millions) and psnr. Rows with a gap are left out.
        measured: the same, with psnr_low and psnr_high.
        data: what was measured on.
    """
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), sharex=True)
    published = published.dropna().sort_values("psnr")
    for axis, table, color in ((axes[0], published, COLORS[3]), (axes[1], measured, COLORS[0])):
        ours = table.index.str.startswith("HDNet") if axis is axes[0] else np.full(len(table), True)
        for chosen, marker, shade in ((~ours, "o", color), (ours, "D", COLORS[0] if ours.all() else COLORS[1])):
            axis.scatter(table.parameters[chosen], table.psnr[chosen], marker=marker, color=shade, s=36, zorder=3)
        _label_points(axis, table)
        axis.set(xscale="log", xlabel="parameters (millions)", ylabel="PSNR (dB)")
    axes[1].errorbar(
        measured.parameters, measured.psnr, np.stack([measured.psnr - measured.psnr_low,
        measured.psnr_high - measured.psnr]), fmt="none", color=COLORS[0], capsize=3
    )  # fmt: skip
    axes[0].set(xlim=(0.4, 300), title="published: iHarmony4 test set, protocols as published")
    axes[0].set_xticks([0.5, 1, 2, 5, 10, 20, 50, 100], ["0.5", "1", "2", "5", "10", "20", "50", "100"])
    axes[0].minorticks_off()
    axes[1].set_title(f"measured here: {data}")
    figure.suptitle("Parameters against PSNR: the two panels are of other data and do not compare", fontsize=11)
    return figure


def _label_points(axis: Axes, table: pd.DataFrame) -> None:
    """Write each model's name beside its point: right of it, or left where another point stands there.

    Names of one column would overlap where points are close: each is moved up to stand above the one below it.

    Args:
        axis: logarithmic in the parameters.
        table: index: model, sorted by psnr; columns parameters and psnr.
    """
    span = np.ptp(table.psnr)
    highest: dict[tuple[bool, int], float] = {}  # label so far, by side and half decade of the parameters
    for model, row in table.iterrows():
        to_the_right = table.parameters.between(row.parameters * 1.01, row.parameters * 2.5)
        is_left = bool((to_the_right & ((table.psnr - row.psnr).abs() < 0.015 * span)).any())
        column = is_left, round(np.log10(row.parameters) / 0.5)
        highest[column] = max(row.psnr, highest.get(column, -np.inf) + 0.04 * span)
        x, align = (row.parameters / 1.12, "right") if is_left else (row.parameters * 1.12, "left")
        axis.annotate(model, (row.parameters, row.psnr), (x, highest[column]), fontsize=9, va="center", ha=align)


def plot_masks(gains: pd.DataFrame) -> Figure:
    """Gain with careless masks, a row of points for each condition; filled where the mask was snapped.

    Args:
        gains: of :func:`~hdnet_lib.evaluation.robustness.robust_gains`; a method ``<name>+snap`` has the colour of
            ``<name>``.
    """
    methods, conditions = (list(dict.fromkeys(gains.index.get_level_values(level))) for level in (0, 1))
    networks = list(dict.fromkeys(name.removesuffix(SNAPPED) for name in methods))
    figure, axis = plt.subplots(figsize=(8, 1.5 + 0.12 * len(conditions) * (len(methods) + 1)))
    for number, method in enumerate(methods):
        network = networks.index(method.removesuffix(SNAPPED)) % len(COLORS)
        color, marker = COLORS[network], MARKERS[network]
        part = gains.loc[method].loc[conditions]
        y = np.arange(len(conditions)) + (number - (len(methods) - 1) / 2) / (len(methods) + 1)
        face = color if method.endswith(SNAPPED) else "white"
        axis.hlines(y, part.low, part.high, color=color, linewidth=1.2)
        axis.plot(part.gain, y, marker, color=color, markerfacecolor=face, markersize=6, label=method)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(conditions)), ["mean of all" if name == ROBUST else name for name in conditions])
    axis.set(xlabel="gain over the composite (dB, with 95 % interval)", title="What a careless mask leaves of the gain")
    axis.set_ylim(len(conditions) - 0.5, -0.5)
    axis.set_yticks(np.arange(len(conditions) - 1) + 0.5, minor=True)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="y", which="minor", visible=True)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(networks), 4))
    return figure


def plot_scaling(table: pd.DataFrame, here: pd.DataFrame) -> Figure:
    """Time and memory of networks against the side of the image, with the roofline of the arithmetic.

    Args:
        table: :func:`~hdnet_lib.inference.benchmark.benchmark` of one backend; at most three models.
        here: the same from another machine, drawn as crosses.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for (model, line), color, style in zip(table.groupby("model", sort=False), COLORS, STYLES, strict=False):
        for axis, column in zip(axes, ("seconds", "peak_gb"), strict=True):
            axis.plot(line["size"], line[column], marker="o", color=color, linestyle=style, label=model)
            part = here[here.model == model]
            axis.plot(part["size"], part[column], "x", color=color, markersize=9, markeredgewidth=2)
        axes[0].plot(line["size"], line.roofline_seconds, color=color, linestyle=style, linewidth=1, alpha=0.6)
    gray = "0.4"
    axes[0].plot([], [], color=gray, linewidth=1, label="roofline (thin)")
    axes[0].plot([], [], "x", color=gray, markersize=9, markeredgewidth=2, label="measured here")
    sizes = sorted(table["size"].unique())
    for axis, label in zip(axes, ("time of one image (s)", "peak of memory (GB)"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="side of the image (pixels)", ylabel=label)
        axis.set_xticks(sizes, sizes)
        axis.minorticks_off()
    axes[1].set_ylim(bottom=0.1)
    axes[0].legend()
    figure.suptitle(f"{table.machine.iloc[0]}", fontsize=11)
    return figure


def plot_system_times(seconds: pd.DataFrame, machine: str) -> Figure:
    """Time of one image for many systems, a row each, the fastest first.

    Args:
        seconds: index: system; columns: side of the image in pixels; NaN where a system cannot take it. Systems whose
            names start with "HDNet" are printed bold.
        machine: the processor.
    """
    seconds = seconds.sort_values(seconds.columns[0], ascending=False)
    figure, axis = plt.subplots(figsize=(9, 0.32 * len(seconds) + 1.4))
    rows = range(len(seconds))
    axis.hlines(rows, seconds.min(axis=1), seconds.max(axis=1), color="0.8", linewidth=2, zorder=1)
    for size, color, marker in zip(seconds.columns, COLORS, MARKERS, strict=False):
        axis.scatter(seconds[size], rows, color=color, marker=marker, s=42, label=f"{size} x {size} pixels", zorder=2)
    axis.set_yticks(rows, seconds.index)
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if label.get_text().startswith("HDNet") else "normal")
    axis.set(xscale="log", xlabel="time of one image (s)", title=machine)
    axis.grid(visible=False, axis="y")
    axis.legend(loc="lower right")
    return figure


def plot_neighbors(
    photo: np.ndarray, mask: np.ndarray, matches: Matches, position: int, similarity: str = "cosine"
) -> Figure:
    """What LD finds for one foreground position: its K nearest background positions and its similarity map.

    Args:
        photo: (H, W, 3) uint8.
        mask: (H, W) bool.
        matches: of this photo, with the feature map's proportions those of the photo.
        position: index of the foreground position in the feature map, row by row.
        similarity: what the map shows.
    """
    height, width = photo.shape[:2]
    rows = round((matches.background.shape[1] * height / width) ** 0.5)
    grid = rows, matches.background.shape[1] // rows
    chosen = [position, *matches.indices[0, position].tolist()]
    y, x = ((np.array(where) + 0.5) * side / count for where, side, count in
            zip(np.unravel_index(chosen, grid), (height, width), grid, strict=True))  # fmt: skip
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6 * max(height / width, 0.5)))
    axes[0].imshow(photo)
    axes[0].contour(mask, levels=[0.5], colors=OUTLINE, linewidths=1.5)
    weights = matches.weights[0, position].tolist()
    for index, weight in enumerate(weights, start=1):
        if weight > 0:
            axes[0].plot(x[[0, index]], y[[0, index]], color="white", linewidth=1 + 3 * weight)
            axes[0].plot(x[index], y[index], "o", color=COLORS[0], markeredgecolor="white", markersize=8)
    axes[0].plot(x[0], y[0], "D", color=COLORS[1], markeredgecolor="white", markersize=9)
    axes[0].set_title("the position (diamond) and its nearest neighbours")
    hidden = f"; {weights.count(0)} more of weight 0" if 0 in weights else ""
    axes[0].set_xlabel("weights: " + ", ".join(f"{weight:.2f}" for weight in weights if weight > 0) + hidden)
    values = matches.similarity[0, position].numpy().reshape(grid)
    outside = matches.background[0].numpy().reshape(grid)
    shown = axes[1].imshow(np.where(outside, values, np.nan), cmap="viridis", extent=(0, width, height, 0))
    axes[1].set_facecolor("0.85")
    axes[1].plot(x[0], y[0], "D", color=COLORS[1], markeredgecolor="white", markersize=9)
    axes[1].set_title("similarity to the background; grey: foreground")
    figure.colorbar(shown, ax=axes[1], label=similarity)
    for axis in axes:
        axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
        axis.grid(visible=False)
    return figure


def plot_kernels(foreground: np.ndarray, background: np.ndarray, title: str) -> Figure:
    """W_f and W_b of one MGD, each (C, C) as [out, in], and their difference, on one scale of colours."""
    panels = {"W_f, foreground": foreground, "W_b, background": background, "W_f - W_b": foreground - background}
    limit = max(np.abs(panel).max() for panel in panels.values())
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
    for axis, (name, panel) in zip(axes, panels.items(), strict=True):
        shown = axis.imshow(panel, cmap="PuOr", vmin=-limit, vmax=limit)
        axis.set(title=name, xlabel="input channel")
        axis.grid(visible=False)
    axes[0].set_ylabel("output channel")
    figure.colorbar(shown, ax=axes, label="weight", shrink=0.8)
    figure.suptitle(title, fontsize=11)
    return figure


def plot_network(table: pd.DataFrame, title: str) -> Figure:
    """A network from left to right: heights are sizes of maps, widths numbers of channels, arcs skip connections.

    Args:
        table: :func:`~hdnet_lib.model.architecture.layer_table`.
        title: of the figure.
    """
    figure, axis = plt.subplots(figsize=(12, 4.8))
    parts = list(dict.fromkeys(table.part))
    # Both scales are compressed: the largest map has 8 times the side and a stage up to 85 times the channels.
    heights = (table.height / table.height.max()) ** 0.6
    widths = 0.12 + 0.5 * (table.channels / table.channels.max()) ** 0.6
    left = (widths + 0.22).cumsum() - widths
    for stage, row in table.iterrows():
        color = COLORS[parts.index(row.part) % len(COLORS)]
        axis.bar(left[stage], heights[stage], widths[stage], -heights[stage] / 2, color=color, align="edge",
                 label=row.part if stage == table.index[table.part == row.part][0] else None)  # fmt: skip
        middle = left[stage] + widths[stage] / 2
        axis.annotate(f"{row.channels}", (middle, heights[stage] / 2), xytext=(0, 3), textcoords="offset points",
                      ha="center", fontsize=9)  # fmt: skip
        axis.annotate(f"{row.height}", (middle, -heights[stage] / 2), xytext=(0, -4), textcoords="offset points",
                      ha="center", va="top", fontsize=9)  # fmt: skip
    encoder, decoder = (table.index[table.part == part] for part in ("encoder", "decoder"))
    for start, end in zip(encoder, reversed(decoder), strict=True):
        ends = [left[stage] + widths[stage] / 2 for stage in (start, end)]
        line = np.linspace(0, 1, 60)
        arc = heights[[start, end]].max() / 2 + 0.09 + 0.1 * np.sin(np.pi * line)
        axis.plot(ends[0] + (ends[1] - ends[0]) * line, arc, color="0.55", linewidth=1)
    axis.set(ylim=(-0.62, 0.78), xticks=[], yticks=[], title=title)
    axis.set_xlabel("above each stage: channels; below: side of its map in pixels; arcs: skip connections", fontsize=9)
    sns.despine(ax=axis, left=True, bottom=True)
    figure.legend(loc="outside lower center", ncols=len(parts), frameon=False)
    return figure
