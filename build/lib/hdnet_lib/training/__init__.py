"""Training: a config, a loop, and checkpoints to go on from."""

from hdnet_lib.training.checkpoint import finished, load_last, read_log
from hdnet_lib.training.config import PRESETS, TrainingConfig, learning_rate_factor
from hdnet_lib.training.loop import train, validate

__all__ = [
    "PRESETS",
    "TrainingConfig",
    "finished",
    "learning_rate_factor",
    "load_last",
    "read_log",
    "train",
    "validate",
]
