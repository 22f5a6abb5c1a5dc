"""Composites as people have them: with masks that miss the object's border, or foregrounds that fade out."""

from collections.abc import Callable
from functools import partial

import numpy as np

from hdnet_lib.data.images import to_tensor
from hdnet_lib.data.masks import feather, perturb_mask
from hdnet_lib.data.samples import Sample

EXACT = "exact"


def fade(example: Sample, pixels: int) -> Sample:
    """The same with a foreground that fades into the real photo over so many pixels inside its border, as a soft brush
    leaves it; the mask stays."""
    opacity = feather(to_tensor(example.mask), pixels)[0, 0, :, :, None].numpy()
    composite = example.real + opacity * (example.composite.astype(np.float32) - example.real)
    return example._replace(composite=np.rint(composite).astype(np.uint8))


def _mask(kind: str, amount: int) -> Callable[[Sample], Sample]:
    return lambda example: example._replace(mask=perturb_mask(example.mask, kind, amount))


CONDITIONS: dict[str, Callable[[Sample], Sample]] = {
    EXACT: lambda example: example,
    "1 px smaller": _mask("eroded", 1),
    "1 px larger": _mask("dilated", 1),
    "2 px smaller": _mask("eroded", 2),
    "3 px larger": _mask("dilated", 3),
    "shifted by 2 px": _mask("shifted", 2),
    "rough by 4 px": _mask("rough", 4),
    "fading over 2 px": partial(fade, pixels=2),
}
"""What masks and cut-outs of people are like, in pixels of what the network sees; see
:func:`~hdnet_lib.data.masks.perturb_mask`. In the last one the composite differs, not the mask. The mean gain over all
of them is the *robust score*."""
