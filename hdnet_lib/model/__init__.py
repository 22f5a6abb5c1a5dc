"""The paper's network: its modules, its loss, and models by name."""

from hdnet_lib.model.hdnet import HDNet, paste

__all__ = ["HDNet", "paste"]
