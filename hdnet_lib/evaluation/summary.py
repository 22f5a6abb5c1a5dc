"""Means, intervals and comparisons of a table of scores (:func:`hdnet_lib.evaluation.scoring.evaluate`).

All intervals are 95 % (BCa bootstrap) and resample real photos, each with all its composites: composites of one photo
are not independent, so resampling them one by one gives intervals that are too narrow. With a handful of photos even
these are too narrow: look at the count beside them. A PSNR counts as 100 dB at most: a perfect result has no finite
one.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from hdnet_lib.data.samples import RATIO_BINS, ratio_bin
from hdnet_lib.evaluation.metrics import Scores

METRICS = Scores._fields
TITLES = {"mse": "MSE", "fmse": "fMSE", "psnr": "PSNR", "ssim": "SSIM"}
HIGHEST_PSNR = 100.0
"""dB; a result that equals the real photo has no more in a mean."""
AVERAGE = "Average"
"""The group of all composites, as in the paper's tables."""
RATIO_NAMES = tuple(ratio_bin(high) for _, high in RATIO_BINS)
FMSE_BINS = {"below 300": 0, "300 to 1000": 300, "above 1000": 1000}
"""How wrong a composite is before anything is done: its fMSE, by the lower edges of the bins."""


def choose_protocol(table: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """The rows of one protocol, with a finite PSNR.

    Raises:
        ValueError: the table has none.
    """
    chosen = table[table.protocol == protocol]
    if chosen.empty:
        raise ValueError(
            f"the table holds no scores of the protocol {protocol!r}, only {', '.join(set(table.protocol))}."
        )
    return chosen.assign(psnr=chosen.psnr.clip(upper=HIGHEST_PSNR))


def bootstrap_interval(
    numerator: np.ndarray, denominator: np.ndarray, photos: Sequence, draws: int = 5000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Ends (M,) of the BCa bootstrap intervals of ratios of sums, over composites of resampled photos.

    NaN where there is one photo alone; both ends are the ratio itself where no resample differs from it.

    Args:
        numerator, denominator: (N, M), a row for each composite. With a denominator of ones this gives means, with
            weights in both weighted means.
        photos: (N,), the photo of each composite.
        draws: how often as many photos are drawn as there are, with replacement.
        seed: of the draws.
    """
    codes, names = pd.factorize(np.asarray(photos))
    if len(names) < 2:  # it would be drawn each time, and the interval would have no width
        return np.full(numerator.shape[1], np.nan), np.full(numerator.shape[1], np.nan)
    sums = np.zeros((2, len(names), numerator.shape[1]))
    np.add.at(sums[0], codes, numerator)
    np.add.at(sums[1], codes, denominator)

    def ratio(numerators: np.ndarray, denominators: np.ndarray, axis: int = -1) -> np.ndarray:
        # Rounded, since sums in another order differ in the last bits, and BCa counts which resamples lie below: with
        # few photos many of them equal what was observed.
        return np.round(numerators.sum(axis=axis) / denominators.sum(axis=axis), 9)

    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (sums[0].T, sums[1].T),
            ratio,
            n_resamples=draws,
            batch=max(1, 10**7 // sums[0].size),
            axis=-1,
            paired=True,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    observed = ratio(sums[0].T, sums[1].T)
    low, high = (np.where(np.isnan(end), observed, end) for end in (found.low, found.high))
    return low, high


def mean_interval(values: pd.Series, photos: pd.Series, draws: int = 5000, seed: int = 0) -> tuple[float, float, float]:
    """Mean over composites and the ends of its interval. ``values`` and ``photos`` share their index."""
    numbers = values.to_numpy(float)[:, None]
    (low,), (high,) = bootstrap_interval(numbers, np.ones_like(numbers), photos.reindex(values.index), draws, seed)
    return values.mean(), low, high


def permutation_test(values: pd.Series, photos: pd.Series, draws: int = 5000, seed: int = 0) -> float:
    """Two-sided p-value of paired differences: how often random signs give a mean as far from zero.

    All composites of a real photo change sign together. With few photos all signs are tried, else ``draws`` random
    ones, and the smallest value is 1 / (draws + 1); NaN for one photo alone.
    """
    sums = values.groupby(photos).sum().to_numpy()
    if len(sums) < 2:
        return np.nan
    return stats.permutation_test(
        (sums,),
        lambda signed, axis: np.abs(signed.sum(axis=axis)),
        permutation_type="samples",  # of a single sample: it flips signs
        alternative="greater",
        n_resamples=draws,
        batch=max(1, 10**7 // len(sums)),
        rng=np.random.default_rng(seed),
    ).pvalue


def summarize(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """One row for each method: counts, mean scores, and how its PSNR differs from that of the reference method.

    Args:
        table: of one protocol (:func:`choose_protocol`).
        reference: name of a method of the table.

    Returns:
        Indexed by method, in the table's order. The columns are composites, photos, psnr, mse, fmse, ssim; psnr_low and
        psnr_high, gain, gain_low and gain_high (intervals), worse (number of composites with a lower PSNR than the
        reference method gives them).
    """
    psnr = table.pivot(index="name", columns="method", values="psnr")
    rows = {}
    for method, scores in table.groupby("method", sort=False):
        scores = scores.set_index("name")
        gain = scores.psnr - psnr[reference]
        _, psnr_low, psnr_high = mean_interval(scores.psnr, scores.photo)
        gain_mean, gain_low, gain_high = mean_interval(gain, scores.photo)
        rows[method] = {
            "composites": len(scores), "photos": scores.photo.nunique(),
            **scores[["psnr", "mse", "fmse", "ssim"]].mean(), "psnr_low": psnr_low, "psnr_high": psnr_high,
            "gain": gain_mean, "gain_low": gain_low, "gain_high": gain_high, "worse": (gain < 0).sum(),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def ratio_bins(table: pd.DataFrame) -> pd.Series:
    """The bin of Table 2 of each row."""
    return pd.Series(pd.Categorical(table.ratio.map(ratio_bin), RATIO_NAMES), table.index, name="foreground ratio")


def fmse_bins(table: pd.DataFrame, reference: str) -> pd.Series:
    """How wrong each row's composite is under the reference method, by :data:`FMSE_BINS`."""
    before = table[table.method == reference].set_index("name").fmse
    edges = [*FMSE_BINS.values(), np.inf]
    # Closed below, so that an fMSE of 0 counts.
    bins = pd.cut(table.name.map(before), edges, right=False, labels=list(FMSE_BINS))
    return bins.rename(f"fMSE of {reference}")


def by_group(table: pd.DataFrame, groups: pd.Series | str) -> pd.DataFrame:
    """Mean scores with intervals for each method and group, and for all composites together ("Average").

    Args:
        table: of one protocol.
        groups: a column, or the group of each row; of a categorical one every category has its row, even if empty.

    Returns:
        Indexed by method and group, in the table's order. The columns are composites, photos and, for each of mse,
        fmse, psnr and ssim, its mean, <metric>_low and <metric>_high. An empty group has a count of 0 and no numbers.
    """
    groups = table[groups] if isinstance(groups, str) else groups
    names = list(groups.cat.categories) if isinstance(groups.dtype, pd.CategoricalDtype) else list(groups.unique())
    rows = {}
    for method in table.method.unique():
        scores = table[table.method == method]
        for group in [*names, AVERAGE]:
            part = scores if group == AVERAGE else scores[groups[scores.index] == group]
            row = {"composites": len(part), "photos": part.photo.nunique()}
            if len(part):
                values = part[list(METRICS)].to_numpy()
                ends = bootstrap_interval(values, np.ones_like(values), part.photo)
                for metric, mean, low, high in zip(METRICS, values.mean(axis=0), *ends, strict=True):
                    row |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
            rows[method, group] = row
    result = pd.DataFrame.from_dict(rows, orient="index")
    result.index = pd.MultiIndex.from_tuples(rows, names=["method", "group"])
    return result


def short(value: float) -> str:
    """A number with three digits that count, as far as processors agree; "" for none."""
    if np.isnan(value):
        return ""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:#.3g}".rstrip(".")


def interval(low: float, high: float, write: Callable[[float], str]) -> str:
    """The text " [low, high]", or nothing where there is no interval, since all composites are of one photo."""
    return "" if np.isnan(low) else f" [{write(low)}, {write(high)}]"


def format_means(table: pd.DataFrame, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """What :func:`by_group` found, to read: counts, and each mean with its interval."""
    result = table[["composites", "photos"]].copy()
    for metric in metrics:
        result[TITLES[metric]] = [
            f"{short(row[metric])}{interval(row[f'{metric}_low'], row[f'{metric}_high'], short)}"
            if row.composites else "no composites"
            for _, row in table.iterrows()
        ]  # fmt: skip
    return result


def gains_by_group(table: pd.DataFrame, groups: pd.Series, reference: str) -> pd.DataFrame:
    """For each group and method the mean gain in PSNR over the reference method, and how many composites lose.

    Args:
        table: of one protocol.
        groups: the group of each row; of a categorical one every category has its row, even if empty.
        reference: name of a method of the table.

    Returns:
        Indexed by group. The columns are composites, photos, and for each other method its gain in dB and the number
        made worse.
    """
    psnr = table[table.method == reference].set_index("name").psnr
    gains = table.assign(gain=table.psnr - table.name.map(psnr))
    rows = gains[gains.method == reference].groupby(groups, observed=False)
    result = {"composites": rows.name.nunique(), "photos": rows.photo.nunique()}
    for method in table.method.unique():
        if method != reference:
            gain = gains[gains.method == method].groupby(groups, observed=False).gain
            result[f"{method}, gain"] = gain.mean()
            result[f"{method}, worse"] = gain.agg(lambda values: (values < 0).sum())
    return pd.DataFrame(result)


def compare(table: pd.DataFrame, reference: str, metric: str) -> pd.DataFrame:
    """Compare methods, paired by composite; what was trained several times counts as one entry.

    Args:
        table: of one protocol. Methods named ``<entry>-s<seed>``, as train_zoo.py names its runs, are the seeds of an
            entry; any other is an entry of its own.
        reference: the entry that the others are compared with.
        metric: "psnr", "mse", "fmse" or "ssim".

    Returns:
        Indexed by entry, in the table's order. The columns are seeds; mean (over composites and seeds) and spread
        (standard deviation of the seeds' means; none for one seed); difference from the reference entry, each averaged
        first over the seeds that both have (over all seeds if they share none), with low and high (interval) and p
        (:func:`permutation_test`); difference_spread (standard deviation of the seeds' own differences, smaller than
        that of their means where both share the luck of a seed). Interval and p tell how far other photos would change
        the difference, and nothing of other seeds: difference_spread does that.

    Raises:
        ValueError: the reference is not in the table.
    """
    entries = entry_name(table.method)
    table = table.assign(entry=entries, seed=[m.removeprefix(e) for m, e in zip(table.method, entries, strict=True)])
    if reference not in entries.to_numpy():
        raise ValueError(f"{reference!r} must be one of {', '.join(entries.unique())}.")
    photos = table.drop_duplicates("name").set_index("name").photo
    base = table[table.entry == reference]
    base_by_seed = base.groupby("seed")[metric].mean()
    rows = {}
    for entry, scores in table.groupby("entry", sort=False):
        by_seed = scores.groupby("seed")[metric].mean()
        shared = set(by_seed.index) & set(base.seed) or set(table.seed)
        ours, theirs = (part[part.seed.isin(shared)].groupby("name")[metric].mean() for part in (scores, base))
        mean, low, high = mean_interval(ours - theirs, photos)
        rows[entry] = {
            "seeds": len(by_seed), "mean": by_seed.mean(), "spread": by_seed.std(), "difference": mean,
            "low": low, "high": high, "p": permutation_test(ours - theirs, photos),
            "difference_spread": (by_seed - base_by_seed).dropna().std(),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("entry")


def entry_name(methods: pd.Series) -> pd.Series:
    """Names of methods without the seed: ``w8-base-s0`` is the entry ``w8-base``."""
    return methods.str.replace(r"-s\d+(?=\+snap$|$)", "", regex=True)


def seed_means(table: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    """Mean scores by a setting that methods differ in, such as K.

    Args:
        table: of one protocol.
        values: method -> its setting; methods with the same one are seeds.

    Returns:
        Indexed by setting, sorted. The columns are seeds, and for each metric its mean over seeds and <metric>_spread
        (standard deviation; NaN for one seed).
    """
    means = table[table.method.isin(values.index)].groupby("method")[list(METRICS)].mean()
    groups = means.groupby(values.rename(values.name or "value"))
    spread = groups.std().add_suffix("_spread")
    return pd.concat([groups.size().rename("seeds"), groups.mean(), spread], axis=1)


def smooth_by_ratio(table: pd.DataFrame, metric: str, points: int = 60, width: float = 0.35) -> pd.DataFrame:
    """A smooth curve of a metric against the foreground ratio, with its interval, for each method.

    Each point is a mean of all composites, weighted by a Gaussian of their distance in the logarithm of the ratio.

    Args:
        table: of one protocol.
        metric: "psnr", "mse", "fmse" or "ssim".
        points: of the curve, evenly spaced in the logarithm, between the 2nd and the 98th percentile of the ratios.
        width: standard deviation of the Gaussian, in natural logarithms (0.35 is a factor of 1.4).

    Returns:
        A table with the columns method, ratio, mean, low and high.
    """
    low, high = np.log(table.ratio.quantile([0.02, 0.98]))
    grid = np.linspace(low, high, points)
    parts = []
    for method, scores in table.groupby("method", sort=False):
        weights = np.exp(-(((np.log(scores.ratio.to_numpy())[:, None] - grid) / width) ** 2) / 2)
        weighted = weights * scores[metric].to_numpy()[:, None]
        lows, highs = bootstrap_interval(weighted, weights, scores.photo, draws=1000)
        curve = {"ratio": np.exp(grid), "mean": weighted.sum(axis=0) / weights.sum(axis=0), "low": lows, "high": highs}
        parts.append(pd.DataFrame({"method": method, **curve}))
    return pd.concat(parts, ignore_index=True)
