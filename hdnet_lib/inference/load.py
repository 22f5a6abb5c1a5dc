"""Networks to run: shipped weights or files, in float32 or bfloat16."""

from pathlib import Path

import torch
from torch import Tensor, nn

from hdnet_lib.inference.onnx import OnnxModel
from hdnet_lib.registry import PICKLED, Network, load_pretrained, load_weights

PRECISIONS = ("fp32", "bf16")


class Autocast(nn.Module):
    """A network that computes its convolutions in bfloat16; weights and output stay float32.

    Args:
        model: called as :class:`~hdnet_lib.model.hdnet.HDNet` is.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`HDNet.forward`."""
        with torch.autocast(composite.device.type, torch.bfloat16):
            return self.model(composite, mask).float()


def load_model(name: str, precision: str = "fp32") -> Network | Autocast | OnnxModel:
    """Weights that come with the package, or a file of your own.

    Args:
        name: one of :func:`~hdnet_lib.registry.list_pretrained`, or a file whose name ends with .safetensors
            (:func:`~hdnet_lib.registry.load_weights`) or .onnx (:class:`~hdnet_lib.inference.onnx.OnnxModel`).
        precision: "fp32", or "bf16" to compute the convolutions in bfloat16, which pays on wide networks.

    Raises:
        ValueError: see there; or an .onnx file, which has its own precision, is to have another.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {' or '.join(PRECISIONS)}, not {precision!r}.")
    if name.endswith(".onnx"):
        if precision != "fp32":
            raise ValueError(f"{name}: an ONNX file has the precision that it was exported with.")
        return OnnxModel(name)
    model = load_weights(name) if Path(name).suffix in (".safetensors", *PICKLED) else load_pretrained(name)
    return Autocast(model) if precision == "bf16" else model
