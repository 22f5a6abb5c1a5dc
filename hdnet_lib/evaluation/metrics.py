"""MSE, fMSE, PSNR and SSIM, under a named protocol.

Published harmonisation tables mix conventions, and a number means little without its own. A
:class:`Protocol` states all of them; :data:`PROTOCOLS` holds those in use, and "hdnet" is the paper's.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from skimage.metrics import structural_similarity


@dataclass(frozen=True)
class Protocol:
    """How an output is scored against the real photo."""

    background: str = "real"
    """What stands outside the mask before scoring: "real" (the error is the foreground's alone),
    "output" (the network's background errors count) or "composite"."""
    peak: str = "255"
    """Peak of the PSNR: "255", "target max" (maximum of the real photo) or "output range"
    (maximum minus minimum of the output)."""
    fmse: str = "area"
    """"area": MSE x height x width / mask area. "masked": squared error summed inside the mask,
    divided by three times the mask area. The two agree when the background is the real one."""
    rounding: str = "truncate"
    """How a float image becomes 8 bits: "truncate", "round" or "none" (it stays float)."""

    def __post_init__(self) -> None:
        choices = {
            "background": ("real", "output", "composite"),
            "peak": ("255", "target max", "output range"),
            "fmse": ("area", "masked"),
            "rounding": ("truncate", "round", "none"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}.")


# How the others round is not known to us: "none" and "round" are this project's reading.
PROTOCOLS = {
    "hdnet": Protocol(),
    "idih": Protocol(background="output", peak="target max", fmse="masked", rounding="none"),
    "dovenet": Protocol(background="output", peak="output range", fmse="masked", rounding="round"),
    "s2crnet": Protocol(background="composite", peak="output range", fmse="masked", rounding="round"),
    "pct-net": Protocol(background="real", peak="255", fmse="masked", rounding="round"),
}
"""By the name of a system: how its authors score, as far as known; "hdnet" is the paper's."""


class Scores(NamedTuple):
    """The four metrics of the paper."""

    mse: float
    """Mean squared error over the whole image, in squared grey levels of 0 to 255."""
    fmse: float
    """Mean squared error over the foreground."""
    psnr: float
    """Decibels; infinite for identical images."""
    ssim: float
    """scikit-image's defaults, data range 255, colour, whole image."""


def score(
    output: np.ndarray,
    real: np.ndarray,
    mask: np.ndarray,
    composite: np.ndarray | None = None,
    protocol: Protocol | str = "hdnet",
) -> Scores:
    """Score one output.

    Args:
        output: (H, W, 3), uint8, or float on the scale 0 to 255.
        real: (H, W, 3), the same.
        mask: (H, W) bool, True on the foreground.
        composite: (H, W, 3); needed only where the protocol's background is "composite".
        protocol: a :class:`Protocol` or a name of :data:`PROTOCOLS`.

    Raises:
        ValueError: shapes do not fit or are below 7x7 pixels, the mask is not bool or is empty, a value is not
            finite, the peak is 0, or the protocol is unknown.
    """
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise ValueError(f"there is no protocol called {protocol!r}, only {', '.join(PROTOCOLS)}.")
        protocol = PROTOCOLS[protocol]
    if mask.dtype != bool or mask.ndim != 2:
        raise ValueError(f"mask must be a bool array (H, W), not {mask.dtype} {mask.shape}.")
    if min(mask.shape) < 7:
        raise ValueError(f"SSIM needs at least 7x7 pixels, not {mask.shape[1]}x{mask.shape[0]}.")
    if not mask.any():
        raise ValueError("mask is empty: the foreground metrics are not defined.")
    images = {"output": output, "real": real}
    if protocol.background == "composite":
        if composite is None:
            raise ValueError("this protocol pastes the foreground on the composite: give the composite.")
        images["composite"] = composite
    for name, image in images.items():
        if image.shape != (*mask.shape, 3):
            raise ValueError(f"{name} has the shape {image.shape}, but the mask needs {(*mask.shape, 3)}.")
        if not np.isfinite(image).all():
            raise ValueError(f"{name} holds values that are not finite.")
        images[name] = to_eight_bits(image, protocol.rounding)

    target = images["real"]
    result = np.where(mask[..., None], images["output"], images[protocol.background])
    error = (result - target) ** 2
    mse = error.mean()
    fmse = mse * mask.size / mask.sum() if protocol.fmse == "area" else error[mask].mean()
    peak = {"255": 255.0, "target max": target.max(), "output range": result.max() - result.min()}[protocol.peak]
    if peak == 0:
        raise ValueError(f"the PSNR is not defined: its peak, {protocol.peak!r}, is 0 for these images.")
    psnr = 10 * math.log10(peak**2 / mse) if mse > 0 else math.inf
    return Scores(
        mse=float(mse),
        fmse=float(fmse),
        psnr=float(psnr),
        ssim=float(structural_similarity(result, target, channel_axis=2, data_range=255)),
    )


def to_eight_bits(image: np.ndarray, rounding: str) -> np.ndarray:
    """Float64 values on the scale 0 to 255, made whole as a protocol's ``rounding`` says."""
    image = image.astype(np.float64)
    if rounding == "none":
        return image
    image = image.clip(0, 255)
    return np.floor(image) if rounding == "truncate" else np.rint(image)
