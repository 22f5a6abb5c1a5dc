"""Published numbers: Tables 1 to 5 of the paper as printed, its slips, and later results, which follow other protocols.

Source: Chen et al., "Hierarchical Dynamic Image Harmonization", ACM MM 2023. Every table is indexed by model. MSE and
fMSE are in squared grey levels, PSNR in dB, ``parameters`` in millions (the paper prints "MB" for that, see
notebook 09), times in seconds. The paper's own models score with its protocol ("hdnet" in
:data:`~hdnet_lib.evaluation.metrics.PROTOCOLS`); most other rows are copied from papers with other conventions.
"""

from collections.abc import Mapping, Sequence
from io import StringIO

import pandas as pd

from hdnet_lib.evaluation.summary import TITLES, short

SUBSETS = ("HAdobe5k", "HFlickr", "HCOCO", "Hday2night", "Average")


def _read(text: str, groups: tuple[str, ...] = (), metrics: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table whose lines hold a model and numbers; the last columns are named by group and metric."""
    table = pd.read_csv(StringIO(text), sep=r"\s*\|\s*", engine="python", header=None, na_values="-").set_index(0)
    names = [("", "parameters")] * (table.shape[1] - len(groups) * len(metrics))
    table.columns = pd.MultiIndex.from_tuples([*names, *((group, metric) for group in groups for metric in metrics)])
    return table.rename_axis("model")


TABLE_1 = _read(
    """\
Composite     |     - | 345.54 | 28.16 | 264.35 | 28.32 | 69.37 | 33.94 | 109.65 | 34.01 | 172.47 | 31.63
DIH           | 41.76 |  92.65 | 32.28 | 163.38 | 29.55 | 51.85 | 34.69 |  82.34 | 34.62 |  76.77 | 33.41
S2AM          | 66.70 |  63.40 | 33.77 | 143.45 | 30.03 | 41.07 | 35.47 |  76.61 | 34.50 |  59.67 | 34.35
iS2AM         | 66.70 |  21.60 | 38.28 |  69.43 | 33.65 | 16.15 | 39.40 |  40.39 | 37.87 |  24.13 | 38.41
DoveNet       | 54.76 |  52.32 | 34.34 | 133.14 | 30.21 | 36.72 | 35.83 |  51.95 | 35.27 |  52.33 | 34.76
RainNet       | 54.75 |  43.35 | 36.22 | 110.59 | 31.64 | 29.52 | 37.08 |  57.40 | 34.83 |  40.29 | 36.12
BargainNet    | 58.74 |  39.94 | 35.34 |  97.32 | 31.34 | 24.84 | 37.03 |  50.98 | 35.67 |  37.82 | 35.88
Intrinsic     | 40.86 |  43.02 | 35.20 | 105.13 | 31.34 | 24.92 | 37.16 |  55.53 | 35.96 |  38.71 | 35.90
D-HT          | 27.00 |  38.53 | 36.88 |  74.51 | 33.13 | 16.89 | 38.76 |  53.01 | 37.10 |  30.30 | 37.55
Harmonizer    | 21.70 |  21.89 | 37.64 |  64.81 | 33.63 | 17.34 | 38.77 |  33.14 | 37.56 |  24.26 | 37.84
S2CRNet-SN    |  0.95 |  44.52 | 35.93 | 115.46 | 31.63 | 28.25 | 37.65 |  53.33 | 36.28 |  43.20 | 36.45
S2CRNet-VGG   | 15.14 |  34.91 | 36.42 |  98.73 | 32.48 | 23.22 | 38.48 |  51.67 | 36.81 |  35.58 | 37.18
SCS-Co        |     - |  21.01 | 38.29 |  55.83 | 34.22 | 13.58 | 39.88 |  41.75 | 37.83 |  21.33 | 38.75
DCCF          |     - |  23.34 | 37.75 |  64.77 | 33.60 | 17.07 | 38.66 |  55.76 | 37.40 |  24.65 | 37.87
CDTNet        |     - |  20.62 | 38.24 |  68.61 | 33.55 | 16.25 | 39.15 |  36.72 | 37.95 |  23.75 | 38.23
SP-IC cycle   | 66.70 |  18.17 | 38.91 |  68.85 | 33.88 | 14.82 | 39.73 |  41.32 | 37.90 |  22.47 | 38.81
LEMaRT        |     - |  18.80 | 39.40 |  40.70 | 35.30 | 10.10 | 41.00 |  42.30 | 38.10 |  16.80 | 39.80
HDNet-lite    |  0.65 |  24.94 | 39.16 |  63.55 | 34.30 | 17.33 | 39.21 |  32.73 | 38.36 |  24.99 | 38.63
HDNet         | 10.41 |  13.58 | 41.17 |  47.39 | 35.81 | 11.60 | 41.04 |  31.97 | 38.85 |  16.55 | 40.46
""",
    SUBSETS,
    ("mse", "psnr"),
)
"""By subset of iHarmony4, 256 px."""

TABLE_2 = _read(
    """\
Composite     |     - | 28.51 | 1208.86 | 119.19 | 1323.23 | 577.58 | 1887.05 | 172.47 | 1387.30
S2AM          | 66.70 | 13.51 |  509.41 |  41.79 |  454.21 | 137.12 |  449.81 |  48.00 |  481.79
iS2AM         | 66.70 |  6.35 |  288.19 |  19.69 |  226.00 |  71.68 |  235.30 |  24.13 |  260.22
DoveNet       | 54.76 | 14.03 |  591.88 |  44.90 |  504.42 | 152.07 |  505.82 |  52.36 |  549.96
RainNet       | 54.75 | 11.66 |  550.38 |  32.05 |  378.69 | 117.41 |  389.80 |  40.29 |  469.60
BargainNet    | 58.74 | 10.55 |  450.33 |  32.13 |  359.49 | 109.23 |  353.84 |  37.82 |  405.23
Intrinsic     | 40.86 |  9.97 |  441.02 |  31.51 |  363.61 | 110.22 |  354.84 |  38.71 |  400.29
S2CRNet-SN    |  0.95 |  8.42 |  301.97 |  29.74 |  336.24 | 126.56 |  405.13 |  43.21 |  336.99
S2CRNet-VGG   | 15.14 |  6.80 |  239.94 |  25.37 |  271.70 | 103.42 |  333.96 |  35.58 |  274.99
SP-IC cycle   | 66.70 |  6.08 |  276.59 |  18.27 |  209.56 |  66.44 |  216.37 |  22.47 |  245.75
HDNet-lite    |  0.65 |  6.45 |  289.71 |  18.70 |  217.66 |  76.56 |  243.58 |  24.99 |  260.65
HDNet         | 10.41 |  4.35 |  199.56 |  12.82 |  150.45 |  49.18 |  159.82 |  16.55 |  179.49
""",
    ("0-5 %", "5-15 %", "15-100 %", "Average"),
    ("mse", "fmse"),
)
"""By foreground ratio, whole test set, 256 px."""

TABLE_3 = _read(
    """\
Composite     | 345.54 | 28.16 | 264.35 | 28.32 | 69.37 | 33.94 | 109.65 | 34.01 | 172.47 | 31.63
base          |  24.33 | 38.83 |  65.77 | 34.05 | 17.51 | 39.27 |  34.08 | 38.15 |  25.20 | 38.53
base+ld       |  14.79 | 40.96 |  51.51 | 35.57 | 12.44 | 40.82 |  32.79 | 38.45 |  17.64 | 40.23
base+sa       |  15.89 | 40.46 |  55.46 | 35.33 | 13.08 | 40.38 |  32.30 | 39.00 |  19.19 | 39.81
base+mgd      |  16.37 | 40.81 |  55.56 | 35.36 | 12.82 | 40.75 |  32.44 | 38.82 |  18.99 | 40.13
hdnet-star    |  14.39 | 41.03 |  48.46 | 35.79 | 11.94 | 40.91 |  30.69 | 38.80 |  17.08 | 40.34
hdnet         |  13.58 | 41.17 |  47.39 | 35.81 | 11.60 | 41.04 |  31.97 | 38.85 |  16.55 | 40.46
""",
    SUBSETS,
    ("mse", "psnr"),
)
"""Ablation, by subset; the models are named as in :func:`create_model`."""

TABLE_4 = _read(
    """\
S2AM          | 66.70 | 0.25 | 34.35
DoveNet       | 54.76 | 0.05 | 34.76
BargainNet    | 58.74 | 0.21 | 35.88
Intrinsic     | 40.86 | 1.17 | 35.90
S2CRNet-SN    |  0.95 | 0.03 | 36.45
HDNet-lite    |  0.65 | 0.04 | 38.63
""",
    ("HAdobe5k, 50 images",),
    ("seconds", "psnr"),
)
"""Average time on an Intel Xeon Platinum 8369B; the PSNR is that of Table 1's average, not of the 50 images."""

TABLE_5 = _read(
    """\
Composite     |  28.10 | 352.05 | 2122.37 | 0.9642 |     - |     - |      - |      -
DoveNet       |  34.81 |  51.00 |  312.88 | 0.9729 |     - |     - |      - |      -
S2AM          |  35.68 |  47.01 |  262.39 | 0.9784 |     - |     - |      - |      -
Intrinsic     |  34.69 |  56.34 |  417.33 | 0.9471 |     - |     - |      - |      -
RainNet       |  36.61 |  42.56 |  305.17 | 0.9844 |     - |     - |      - |      -
CDTNet        |  38.77 |  21.24 |  152.13 | 0.9868 | 37.66 | 29.02 | 198.85 | 0.9845
INR           |  38.38 |  22.68 |  187.97 | 0.9886 | 38.35 | 24.08 | 192.20 | 0.9886
HDNet         |  41.56 |  13.24 |  102.53 | 0.9931 | 41.29 | 18.35 | 147.25 | 0.9911
""",
    ("1024 x 1024", "2048 x 2048"),
    ("psnr", "mse", "fmse", "ssim"),
)
"""HAdobe5k at high resolution. PSNR and MSE of the composite stand here the right way round, see notebook 09."""

FIGURE_5_K = (1, 3, 5, 7, 9)
"""The K of Figure 5. Its values are printed nowhere; K = 1 is the model of Table 1."""

NAMES = {"composite": "Composite", "hdnet": "HDNet", "hdnet-lite": "HDNet-lite"}
"""What the tables call our methods."""


def beside(
    published: pd.DataFrame, measured: pd.DataFrame, metrics: Sequence[str], names: Mapping[str, str] = NAMES
) -> pd.DataFrame:
    """A published table, as printed, and what was measured, with three digits, side by side as text.

    Args:
        published: one of the tables of this module.
        measured: :func:`~hdnet_lib.evaluation.summary.by_group`, of any data set.
        metrics: columns of each group, such as "mse" and "psnr".
        names: what the published table calls a measured method; others keep their names, in rows of their own.

    Returns:
        Indexed by model. The columns are "published" or "measured", group, metric.
    """
    printed = published.loc[:, [column for column in published.columns if column[1] in metrics]]
    printed = printed.map(lambda value: "" if pd.isna(value) else f"{value:.2f}")
    ours = measured[list(metrics)].map(short).unstack("group")
    groups = measured.index.get_level_values("group").unique()
    ours = ours.swaplevel(axis=1)[[(group, metric) for group in groups for metric in metrics]]
    ours = ours.loc[measured.index.get_level_values("method").unique()].rename(index=names)
    rows = [*printed.index, *(name for name in ours.index if name not in printed.index)]
    both = pd.concat({"published": printed, "measured": ours}, axis=1).reindex(rows).fillna("")
    return both.rename(columns=TITLES).rename_axis("model").rename_axis(["", "", ""], axis=1)
