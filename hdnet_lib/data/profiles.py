"""Colour profiles: from a photo's own colours to sRGB, which the networks were trained on, and back."""

from functools import lru_cache

import imagecodecs
import numpy as np

RELATIVE_COLORIMETRIC = 1


@lru_cache
def srgb() -> bytes:
    """An ICC profile of sRGB."""
    return _dated(imagecodecs.cms_profile("srgb"))


@lru_cache
def adobe_rgb() -> bytes:
    """An ICC profile of Adobe RGB (1998)."""
    return _dated(imagecodecs.cms_profile("adobergb"))


def _dated(profile: bytes) -> bytes:
    """The profile with a date that does not change, for files that do not."""
    return bytes(profile[:24]) + bytes.fromhex("07ce00010001000000000000") + bytes(profile[36:])


def to_srgb(colors: np.ndarray, profile: bytes) -> np.ndarray:
    """Colours (H, W, 3), or (H, W) for a profile of grey, as sRGB: float32 in [0, 1], cut to the range of sRGB.

    Args:
        colors: float32 in [0, 1].
        profile: ICC, see :func:`usable`.
    """
    return _transform(colors, profile, srgb())


def from_srgb(colors: np.ndarray, profile: bytes) -> np.ndarray:
    """The way back of :func:`to_srgb`."""
    return _transform(colors, srgb(), profile)


def _transform(colors: np.ndarray, source: bytes, target: bytes) -> np.ndarray:
    gray = colors.ndim == 2
    result = imagecodecs.cms_transform(
        np.ascontiguousarray(colors, np.float32),
        source,
        target,
        colorspace="gray" if gray else "rgb",
        outcolorspace="rgb",
        intent=RELATIVE_COLORIMETRIC,
    )
    return result.clip(0, 1)


@lru_cache(maxsize=64)
def usable(profile: bytes) -> str:
    """What can be done with an ICC profile.

    Returns:
        "rgb" or "gray" where it maps such colours to sRGB, and those of RGB back; "srgb" where that changes
        nothing; "one-way" where there is no way back; "" where it is damaged, or of other colours.
    """
    space = profile[16:20]
    ramp = np.linspace(0, 1, 9, dtype=np.float32)
    try:
        if space == b"GRAY":
            to_srgb(ramp[None], profile)
            return "gray"
        if space != b"RGB ":
            return ""
        grid = np.stack(np.meshgrid(ramp, ramp, ramp), axis=-1).reshape(27, 27, 3)
        seen = to_srgb(grid, profile)
    except Exception:  # LittleCMS refuses it
        return ""
    if np.abs(seen - grid).max() < 1 / 255:
        return "srgb"
    try:
        from_srgb(seen, profile)
    except Exception:
        return "one-way"
    return "rgb"
