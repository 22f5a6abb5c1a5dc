"""HDNet Lab: a reference suite for "Hierarchical Dynamic Image Harmonization" (ACM MM 2023)."""

from hdnet_lib.data.images import ImageError
from hdnet_lib.inference.harmonize import harmonize
from hdnet_lib.model.hdnet import HDNet, paste
from hdnet_lib.registry import create_model, list_models, list_pretrained, load_pretrained, load_weights
from hdnet_lib.released import load_released_state_dict
from hdnet_lib.version import __version__

__all__ = [
    "HDNet",
    "ImageError",
    "__version__",
    "create_model",
    "harmonize",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "load_released_state_dict",
    "load_weights",
    "paste",
]
