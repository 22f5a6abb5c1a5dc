"""Which processor computes: one policy for all commands."""

import torch


def choose_device(device: str = "auto") -> str:
    """Turn "auto" into "cuda" where there is an NVIDIA GPU, else "mps" on an Apple one, else "cpu"; other names stay.

    Raises:
        ValueError: PyTorch cannot use the device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"the device {device} cannot be used here; use auto or cpu.") from None
    return device


def synthesis_device(device: str | torch.device) -> str:
    """Where composites for this device are made: on it, but on the CPU for Apple's, which lacks the eigenvalues that
    a recipe needs and all of float64."""
    return "cpu" if torch.device(device).type == "mps" else str(device)
