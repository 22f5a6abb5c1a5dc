"""The network as a table, read off the network itself."""

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hdnet_lib.model.hdnet import ENCODER, HDNet

FOREGROUND = 0.25
"""Share of the example image that the mask covers, a square in the middle."""
PARTS = {"local_dynamic": "LD", "dynamics": "MGD"}
"""What the paper calls a part, where its name in the code is another."""


def random_inputs(size: int) -> tuple[Tensor, Tensor]:
    """A random composite (1, 3, size, size) and its mask."""
    composite = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(1, 1, size, size)
    side = round(size * FOREGROUND**0.5)
    mask[..., (size - side) // 2 :, (size - side) // 2 :][..., :side, :side] = 1
    return composite, mask


@torch.inference_mode()
def layer_table(model: HDNet, size: int = 256) -> pd.DataFrame:
    """One line for each stage of a network, in the order in which they run.

    Returns:
        Indexed by the stage's name, such as "encoder.0". The columns are part (encoder, bottleneck, LD, decoder, MGD,
        output); channels, height and width of what comes out, before the skip connection is joined; parameters; flops
        (floating-point operations on one image, a multiplication and an addition are two; only convolutions and matrix
        products count).
    """
    stages = [(name, module) for name, module in model.named_modules() if _is_stage(name, module)]
    lines: dict[str, dict] = {}

    def watch(name: str, module: torch.nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(module: torch.nn.Module, _: tuple, output: Tensor) -> None:
            part = name.split(".")[0]
            lines[name] = {
                "part": PARTS.get(part, part),
                **dict(zip(("channels", "height", "width"), output.shape[1:], strict=True)),
                "parameters": sum(parameter.numel() for parameter in module.parameters()),
            }

        return module.register_forward_hook(note)

    handles = [watch(*stage) for stage in stages]
    try:
        with FlopCounterMode(display=False) as counter:
            model(*random_inputs(size))
    finally:
        for handle in handles:
            handle.remove()
    counts = counter.get_flop_counts()
    table = pd.DataFrame(lines).T.rename_axis("stage").infer_objects()
    table["flops"] = [sum(counts[f"{type(model).__name__}.{name}"].values()) for name in table.index]
    return table


@torch.inference_mode()
def count_flops(network: nn.Module, size: int = 256) -> int:
    """Floating-point operations of any network on one square image, counted as in :func:`layer_table`."""
    device = next(network.parameters()).device
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # what is fused is not counted
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(*(tensor.to(device) for tensor in random_inputs(size)))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


def _is_stage(name: str, module: torch.nn.Module) -> bool:
    first, _, rest = name.partition(".")
    if first in ("encoder", "decoder", "dynamics"):
        return rest.isdigit()
    return first in ("bottleneck", "local_dynamic", "output") and not rest


def receptive_fields() -> pd.Series:
    """Side in pixels of what one position sees after each convolution down to the bottleneck.

    By kernels and strides alone: an instance norm lets every position see the mean and spread of the whole map, too.
    """
    sides, side, step = {}, 1, 1
    stages = {f"encoder.{index}": stage[1:] for index, stage in enumerate(ENCODER)} | {"bottleneck": (3, 1)}
    for name, (kernel, stride) in stages.items():
        side += (kernel - 1) * step
        step *= stride
        sides[name] = side
    return pd.Series(sides, name="receptive field")
