"""How much of a gain survives a careless mask."""

from collections.abc import Callable, Mapping

import pandas as pd

from hdnet_lib.data.careless import CONDITIONS, EXACT
from hdnet_lib.data.samples import Sample
from hdnet_lib.data.snapping import snap_mask
from hdnet_lib.evaluation.methods import COMPOSITE, Method
from hdnet_lib.evaluation.summary import mean_interval

ROBUST = "mean"
"""Column of the mean over all conditions, the robust score."""
SEPARATOR = " @ "
"""Between a method's name and a condition, in a table of scores."""
SNAPPED = "+snap"
"""Ends the name of a method whose masks are snapped."""


def with_snapped_masks(method: Method) -> Method:
    """A method that is given masks moved to the border of the paste (:func:`~hdnet_lib.data.snapping.snap_mask`)."""
    return _given(method, lambda example: example._replace(mask=snap_mask(example.composite, example.mask)))


def _given(method: Method, change: Callable[[Sample], Sample]) -> Method:
    """A method that is given changed samples; the score still takes the true ones."""
    return lambda examples: method([change(example) for example in examples])


def under_conditions(methods: Mapping[str, Method]) -> dict[str, Method]:
    """Every method under every condition, named ``<method> @ <condition>``; the exact mask keeps the plain name."""
    return {
        _named(name, condition): _given(method, change)
        for name, method in methods.items()
        for condition, change in CONDITIONS.items()
    }


def robust_gains(table: pd.DataFrame) -> pd.DataFrame:
    """How many dB each method gains over the composite that it was given, under each condition, and on average.

    Args:
        table: of one protocol (:func:`~hdnet_lib.evaluation.summary.choose_protocol`), of the methods of
            :func:`under_conditions`.

    Returns:
        Indexed by method and condition, with "mean", the robust score, last. The columns are gain, low and high
        (interval), worst (the lowest gain of a composite; in the row of the mean the lowest mean), worse (number of
        composites below 0).
    """
    psnr = table.pivot(index="name", columns="method", values="psnr")
    photos = table.drop_duplicates("name").set_index("name").photo
    rows = {}
    for method in (name for name in table.method.unique() if SEPARATOR not in name and name != COMPOSITE):
        gains = pd.DataFrame(
            {
                condition: psnr[_named(method, condition)] - psnr[_named(COMPOSITE, condition)]
                for condition in CONDITIONS
            }
        )
        gains[ROBUST] = gains.mean(axis=1)
        for condition, gain in gains.items():
            mean, low, high = mean_interval(gain, photos)
            rows[method, condition] = {
                "gain": mean, "low": low, "high": high, "worst": gain.min(), "worse": (gain < 0).sum()
            }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["method", "condition"])


def _named(method: str, condition: str) -> str:
    return method if condition == EXACT else f"{method}{SEPARATOR}{condition}"
