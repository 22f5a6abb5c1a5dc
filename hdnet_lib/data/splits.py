"""Splitting a data set without leaks: by real photo."""

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np


def split_by_photo(photos: Sequence[str], strata: Sequence[str], test_share: float, seed: int) -> np.ndarray:
    """Choose test composites so that no photo is on both sides and each stratum keeps its share.

    A photo belongs to the stratum that most of its composites have. In every stratum the photos are
    shuffled and go to the test side until it holds its share of the composites.

    Args:
        photos: the real photo of each composite.
        strata: what to balance by, such as subset and ratio bin, of each composite.
        test_share: between 0 and 1.
        seed: of the shuffles; the order of the composites does not matter.

    Returns:
        bool (N,), True for the test side.

    Raises:
        ValueError: there are fewer than two photos, or the share leaves a side empty.
    """
    counts = Counter(photos)
    if len(counts) < 2:
        raise ValueError(f"a split by photo needs two photos at least, not {len(counts)}.")
    kinds: dict[str, Counter] = {photo: Counter() for photo in counts}
    for photo, stratum in zip(photos, strata, strict=True):
        kinds[photo][stratum] += 1
    members: dict[str, list[str]] = {}
    for photo in sorted(kinds):
        members.setdefault(min(kinds[photo], key=lambda stratum: (-kinds[photo][stratum], stratum)), []).append(photo)
    chosen, owed = set(), 0.0
    for number, stratum in enumerate(sorted(members)):
        order = np.random.default_rng([seed, number]).permutation(len(members[stratum]))
        owed += test_share * sum(counts[photo] for photo in members[stratum])
        for photo in (members[stratum][index] for index in order):
            # What rounding leaves over is carried to the next stratum, so that many small ones add up.
            if counts[photo] / 2 <= owed:
                chosen.add(photo)
                owed -= counts[photo]
    if not 0 < len(chosen) < len(counts):
        raise ValueError(
            f"a test share of {test_share} leaves one side of {len(counts)} photos empty: use more photos, or another "
            "share (--test-share)."
        )
    return np.array([photo in chosen for photo in photos])


def held_out(photos: Sequence[str]) -> list[bool]:
    """Whether each photo belongs to the validation split of training: one in 20, by the CRC-32 of its name, and at
    least one."""
    checksums = {photo: zlib.crc32(photo.encode()) for photo in photos}
    chosen = {photo for photo, value in checksums.items() if value % 20 == 0} or {
        min(checksums, key=lambda photo: checksums[photo])
    }
    return [photo in chosen for photo in photos]
