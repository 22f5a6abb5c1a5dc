"""Experiments of the notebooks: methods that are told a wrong mask, and foregrounds that fade out."""

from collections.abc import Callable

import numpy as np

from hdnet_lib.data.images import to_tensor
from hdnet_lib.data.masks import feather
from hdnet_lib.data.samples import Sample
from hdnet_lib.evaluation.methods import Method


def with_masks(method: Method, change: Callable[[np.ndarray], np.ndarray]) -> Method:
    """A method that is given changed masks; the score still takes the true ones."""
    return lambda examples: method([example._replace(mask=change(example.mask)) for example in examples])


def fade(example: Sample, pixels: int) -> Sample:
    """The same with a foreground that fades into the real photo over so many pixels inside its border, as a soft brush
    leaves it; the mask stays."""
    opacity = feather(to_tensor(example.mask), pixels)[0, 0, :, :, None].numpy()
    composite = example.real + opacity * (example.composite.astype(np.float32) - example.real)
    return example._replace(composite=np.rint(composite).astype(np.uint8))
