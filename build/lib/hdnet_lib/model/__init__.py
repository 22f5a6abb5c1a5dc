"""The paper's network: modules, loss, and models by name."""

from hdnet_lib.model.hdnet import HDNet, paste
from hdnet_lib.model.registry import create_model, list_models, list_pretrained, load_pretrained, load_weights
from hdnet_lib.model.released import load_released_state_dict

__all__ = [
    "HDNet",
    "create_model",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "load_released_state_dict",
    "load_weights",
    "paste",
]
