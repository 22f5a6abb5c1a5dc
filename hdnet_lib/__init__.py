"""HDNet Lab: a reference suite for "Hierarchical Dynamic Image Harmonization" (ACM MM 2023)."""

from hdnet_lib.harmonize import harmonize
from hdnet_lib.images import ImageError
from hdnet_lib.model import HDNet, paste
from hdnet_lib.registry import (
    create_model,
    list_models,
    list_pretrained,
    load_pretrained,
    load_released_state_dict,
    load_weights,
)

__version__ = "0.1.0"

__all__ = [
    "HDNet",
    "ImageError",
    "create_model",
    "harmonize",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "load_released_state_dict",
    "load_weights",
    "paste",
]
