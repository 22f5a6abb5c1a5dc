"""HDNet: a RAIN U-Net with one local dynamic and three mask-aware global dynamic modules."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.model.global_dynamic import GlobalDynamic
from hdnet_lib.model.initialization import initialize
from hdnet_lib.model.local_dynamic import LocalDynamic, Matches
from hdnet_lib.model.rain import RAIN
from hdnet_lib.model.streaming import StreamingLocalDynamic

STRIDE = 8
"""The U-Net halves its input three times: height and width must be multiples of this."""
MIN_SIZE = 16
"""Smallest height and width: below it a normalized map would hold one value."""

# Each line: output channels in units of the width, kernel size, stride.
ENCODER = [(1, 3, 1), (2, 4, 2), (4, 3, 1), (8, 4, 2), (8, 3, 1), (8, 4, 2), (8, 3, 1)]
DECODER = [(8, 3, 1), (8, 3, 1), (8, 4, 2), (8, 3, 1), (4, 4, 2), (2, 3, 1), (1, 4, 2)]


class EncoderStage(nn.Module):
    """3x3 or 4x4 convolution without bias, instance norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, normalize: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
        self.normalize = normalize

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        x = self.conv(x)
        if self.normalize:
            x = F.instance_norm(x)
        # The skip connections carry what comes after this activation, as in the released code. (In place, it saves a
        # map; but what a hook on the convolution has seen must stay as it is.)
        return F.leaky_relu(x, 0.2, inplace=self.normalize)


class DecoderStage(nn.Module):
    """ReLU, transposed convolution without bias, RAIN (or, as a control, another norm that is given the mask)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, norm: type[nn.Module] = RAIN) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding=1, bias=False)
        self.rain = norm(outputs)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, inputs, H, W) and the mask -> (B, outputs, H x stride, W x stride)."""
        return self.rain(self.conv(F.relu(x)), mask)


class Inspection(NamedTuple):
    """What happened inside a network on its way from composite to output."""

    output: Tensor
    """Raw output (B, 3, H, W)."""
    features: dict[str, Tensor]
    """Feature maps by name, in order: "encoder0" to "encoder6", "bottleneck", "local_dynamic", "decoder0" to
    "decoder6" (skip included), "dynamic4" to "dynamic6"."""
    matches: Matches | None
    """What LD found; None without LD, and for a variant that uses no matches."""
    kernels: dict[str, tuple[Tensor, Tensor]]
    """(W_f, W_b) of each MGD by decoder stage ("4", "5", "6"), each (B, C, C)."""


class HDNet(nn.Module):
    """The harmonization network. Use :func:`create_model` to build one by name.

    Args:
        width: channels after the first convolution: 32 for HDNet, 8 for HDNet-lite.
        k: K of the local dynamic module.
        local_dynamic: class of the local dynamic module, or None for a network without.
        decoder_module: class of what follows the last three skip connections, or None for nothing.
        norm: class of the decoder's norm.

    Raises:
        ValueError: ``width`` or ``k`` is out of range.
    """

    def __init__(
        self,
        width: int = 32,
        k: int = 1,
        local_dynamic: type[LocalDynamic] | None = StreamingLocalDynamic,
        decoder_module: type[nn.Module] | None = GlobalDynamic,
        norm: type[nn.Module] = RAIN,
    ) -> None:
        super().__init__()
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"width must be a whole number of at least 1, not {width!r}.")
        bottom = 8 * width

        self.encoder = nn.ModuleList()
        channels = 3
        for index, (multiple, kernel, stride) in enumerate(ENCODER):
            self.encoder.append(EncoderStage(channels, multiple * width, kernel, stride, normalize=index > 0))
            channels = multiple * width
        self.bottleneck = nn.Conv2d(bottom, bottom, 3, padding=1, bias=False)
        self.local_dynamic = local_dynamic(bottom, k) if local_dynamic else None

        self.decoder = nn.ModuleList()
        self.dynamics = nn.ModuleDict()  # by decoder stage: the last three
        skips = [multiple * width for multiple, _, _ in reversed(ENCODER)]
        for index, ((multiple, kernel, stride), skip) in enumerate(zip(DECODER, skips, strict=True)):
            self.decoder.append(DecoderStage(channels, multiple * width, kernel, stride, norm))
            channels = skip + multiple * width
            if decoder_module and index >= len(DECODER) - 3:
                self.dynamics[str(index)] = decoder_module(channels)
        self.output = nn.ConvTranspose2d(channels, 3, 3, padding=1)
        self.apply(initialize)

    def forward(self, composite: Tensor, mask: Tensor) -> Tensor:
        """Predict the whole image; only its foreground is meant to be used.

        Args:
            composite: (B, 3, H, W), float, in [-1, 1]. H and W are multiples of 8 and at least 16.
            mask: (B, 1, H, W), same dtype and device, 1 on the foreground and 0 on the background.

        Returns:
            Raw output (B, 3, H, W) in [-1, 1]. Paste it with :func:`paste`.

        Raises:
            ValueError: a shape does not fit.
            TypeError: a dtype does not fit.
        """
        return self._run(composite, mask, lambda name, feature: feature)

    def inspect(self, composite: Tensor, mask: Tensor) -> Inspection:
        """Run :meth:`forward` and return what happened inside, for study.

        Args:
            composite, mask: see :meth:`forward`.
        """
        features: dict[str, Tensor] = {}
        output = self._run(composite, mask, lambda name, feature: features.setdefault(name, feature))
        ld = self.local_dynamic
        matches = ld.match(features["bottleneck"], mask) if ld is not None and ld.matches_positions else None
        kernels = {
            stage: module.kernels(features[f"decoder{stage}"])
            for stage, module in self.dynamics.items()
            if isinstance(module, GlobalDynamic)
        }
        return Inspection(output, features, matches, kernels)

    def _run(self, composite: Tensor, mask: Tensor, keep: Callable[[str, Tensor], Tensor]) -> Tensor:
        """The network, which shows each feature map to ``keep`` and goes on with what that returns."""
        check_inputs(composite, mask)
        x, skips = composite, []
        for index, stage in enumerate(self.encoder):
            x = keep(f"encoder{index}", stage(x))
            skips.append(x)
        x = keep("bottleneck", self.bottleneck(x))
        if self.local_dynamic is not None:
            x = keep("local_dynamic", self.local_dynamic(x, mask))
        for index, stage in enumerate(self.decoder):
            x = keep(f"decoder{index}", torch.cat([skips.pop(), stage(x, mask)], dim=1))
            if str(index) in self.dynamics:
                x = keep(f"dynamic{index}", self.dynamics[str(index)](x, mask))
        return self.output(F.relu(x)).tanh()


def paste(output: Tensor, composite: Tensor, mask: Tensor) -> Tensor:
    """The harmonised image: ``output`` on the foreground, ``composite`` elsewhere. All (B, ., H, W)."""
    return composite + mask * (output - composite)


def check_inputs(
    composite: Tensor, mask: Tensor, multiple: int = STRIDE, smallest: int = MIN_SIZE, largest: int | None = None
) -> None:
    """Shapes and dtypes only: a check of the values would make a GPU wait."""
    for name, tensor, channels in (("composite", composite, 3), ("mask", mask, 1)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}.")
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor, not {tensor.dtype}.")
        if tensor.ndim != 4 or tensor.shape[1] != channels:
            raise ValueError(f"{name} must have the shape (B, {channels}, H, W), not {tuple(tensor.shape)}.")
    if composite.dtype != mask.dtype:
        raise TypeError(f"composite is {composite.dtype} and mask is {mask.dtype}: both must have the same dtype.")
    if composite.shape[0] != mask.shape[0] or composite.shape[2:] != mask.shape[2:]:
        raise ValueError(
            f"composite {tuple(composite.shape)} and mask {tuple(mask.shape)} must agree in batch, height and width."
        )
    height, width = composite.shape[2:]
    if composite.shape[0] < 1 or not all(fits(side, multiple, smallest, largest) for side in (height, width)):
        sizes = describe_sizes(multiple, smallest, largest)
        raise ValueError(f"height and width must be {sizes}, and the batch not empty: got {tuple(composite.shape)}.")


def fits(side: int, multiple: int, smallest: int, largest: int | None) -> bool:
    """Whether a network takes a height or width of so many pixels."""
    return smallest <= side <= (largest or side) and side % multiple == 0


def describe_sizes(multiple: int, smallest: int, largest: int | None) -> str:
    """What a network asks of height and width: "multiples of 8 and at least 16", "256"."""
    if smallest == largest:
        return str(smallest)
    sizes = [f"multiples of {multiple}"] if multiple > 1 else []
    return " and ".join([*sizes, f"at least {smallest}", *([f"at most {largest}"] if largest else [])])
