"""HDNet: a RAIN U-Net with one local dynamic and three mask-aware global dynamic modules."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.global_dynamic import GlobalDynamic
from hdnet_lib.local_dynamic import LocalDynamic
from hdnet_lib.rain import RAIN
from hdnet_lib.spatial_attention import SpatialAttention

STRIDE = 8
"""The U-Net halves its input three times: height and width must be multiples of this."""
MIN_SIZE = 16
"""Smallest height and width: below it a normalised map would hold one value."""

# Each line: output channels in units of the width, kernel size, stride.
ENCODER = [(1, 3, 1), (2, 4, 2), (4, 3, 1), (8, 4, 2), (8, 3, 1), (8, 4, 2), (8, 3, 1)]
DECODER = [(8, 3, 1), (8, 3, 1), (8, 4, 2), (8, 3, 1), (4, 4, 2), (2, 3, 1), (1, 4, 2)]


class EncoderStage(nn.Module):
    """3x3 or 4x4 convolution without bias, instance norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, normalise: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
        self.normalise = normalise

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        x = self.conv(x)
        if self.normalise:
            x = F.instance_norm(x)
        # The skip connections carry what comes after this activation, as in the released code.
        return F.leaky_relu(x, 0.2)


class DecoderStage(nn.Module):
    """ReLU, transposed convolution without bias, RAIN (or, as a control, instance norm)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, use_rain: bool = True) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding=1, bias=False)
        self.rain = RAIN(outputs) if use_rain else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, inputs, H, W) and the mask -> (B, outputs, H x stride, W x stride)."""
        x = self.conv(F.relu(x))
        return F.instance_norm(x) if self.rain is None else self.rain(x, mask)


class HDNet(nn.Module):
    """The harmonisation network. Use :func:`hdnet_lib.create_model` to build one by name.

    Args:
        width: channels after the first convolution: 32 for HDNet, 8 for HDNet-lite.
        k: K of the local dynamic module.
        local_dynamic: "paper" (Eq. 2 to 5), "released" (what the authors' code computes), or a control of
            :class:`~hdnet_lib.local_dynamic.LocalDynamic`.
        use_local_dynamic: whether the network has the local dynamic module at all.
        decoder_module: what follows the last three skip connections: "mgd", "sa", None, or a control: "mgd-constant",
            whose kernels are the same for every image, or "mgd-one", a single such kernel for both regions.
        learned_mask: HDNet*: the MGDs predict their mask.
        use_rain: whether the decoder normalises by RAIN, or, as a control, by plain instance norm.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        width: int = 32,
        k: int = 1,
        local_dynamic: str = "paper",
        use_local_dynamic: bool = True,
        decoder_module: str | None = "mgd",
        learned_mask: bool = False,
        use_rain: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"width must be a whole number of at least 1, not {width!r}.")
        if decoder_module not in ("mgd", "mgd-constant", "mgd-one", "sa", None):
            raise ValueError(
                f"decoder_module must be 'mgd', 'mgd-constant', 'mgd-one', 'sa' or None, not {decoder_module!r}."
            )
        if learned_mask and decoder_module != "mgd":
            raise ValueError("learned_mask needs decoder_module='mgd': only the MGDs use a learned mask.")
        bottom = 8 * width

        self.encoder = nn.ModuleList()
        channels = 3
        for index, (multiple, kernel, stride) in enumerate(ENCODER):
            self.encoder.append(EncoderStage(channels, multiple * width, kernel, stride, normalise=index > 0))
            channels = multiple * width
        self.bottleneck = nn.Conv2d(bottom, bottom, 3, padding=1, bias=False)
        # Built even for a row without LD, so that wrong arguments are refused there too.
        ld = LocalDynamic(bottom, k, local_dynamic)
        self.local_dynamic = ld if use_local_dynamic else None

        self.decoder = nn.ModuleList()
        self.dynamics = nn.ModuleDict()  # by decoder stage: the last three
        channels = bottom
        skips = [multiple * width for multiple, _, _ in reversed(ENCODER)]
        for index, ((multiple, kernel, stride), skip) in enumerate(zip(DECODER, skips, strict=True)):
            self.decoder.append(DecoderStage(channels, multiple * width, kernel, stride, use_rain))
            channels = skip + multiple * width
            if decoder_module and index >= len(DECODER) - 3:
                self.dynamics[str(index)] = (
                    SpatialAttention(channels)
                    if decoder_module == "sa"
                    else GlobalDynamic(
                        channels, learned_mask, constant=decoder_module != "mgd", one=decoder_module == "mgd-one"
                    )
                )
        self.output = nn.ConvTranspose2d(channels, 3, 3, padding=1)
        self.apply(_initialise)

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
        return self._run(composite, mask)

    def inspect(self, composite: Tensor, mask: Tensor) -> dict:
        """Run :meth:`forward` and return what happened inside, for study.

        Returns:
            "output": raw output (B, 3, H, W).
            "features": feature maps by name, in order: "encoder0" to "encoder6", "bottleneck",
                "local_dynamic", "decoder0" to "decoder6" (skip included), "dynamic4" to "dynamic6".
            "matches": LD's :class:`~hdnet_lib.local_dynamic.Matches`; None without LD, with
                ``local_dynamic="released"``, which matches otherwise, and with "zero", which uses none.
            "kernels": (W_f, W_b) of each MGD by decoder stage ("4", "5", "6"), each (B, C, C).
        """
        features: dict[str, Tensor] = {}
        output = self._run(composite, mask, features)
        ld = self.local_dynamic
        matched = ld is not None and ld.formulation not in ("released", "zero")
        return {
            "output": output,
            "features": features,
            "matches": ld.match(features["bottleneck"], mask) if matched else None,
            "kernels": {
                stage: module.kernels(features[f"decoder{stage}"])
                for stage, module in self.dynamics.items()
                if isinstance(module, GlobalDynamic)
            },
        }

    def _run(self, composite: Tensor, mask: Tensor, features: dict[str, Tensor] | None = None) -> Tensor:
        check_inputs(composite, mask)

        def keep(name: str, value: Tensor) -> Tensor:
            if features is not None:
                features[name] = value
            return value

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


def _initialise(module: nn.Module) -> None:
    """The released initialisation: N(0, 0.02) for every convolution, biases zero."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def initialise_as_identity(model: HDNet) -> None:
    """Let a fresh network start near the identity: its output is ``tanh(1.15 x composite)``, as far as its width goes.

    Not the paper's: a network that starts from noise first has to learn to draw. Here the first convolution carries
    the three colours and their negatives (six channels; a narrower network carries fewer), the MGDs start with
    kernels near the identity, and the output layer reads nothing else.
    """
    first, last = model.encoder[0].conv.weight, model.output.weight
    # The gate of spatial attention starts near a half.
    gate = 0.5 if any(isinstance(module, SpatialAttention) for module in model.dynamics.values()) else 1
    last.zero_()
    for channel in range(min(6, len(first))):
        color, sign = channel % 3, 1 if channel < 3 else -1
        first[channel] = 0
        first[channel, color, 1, 1] = sign
        last[channel, color, 1, 1] = sign * 1.15 / gate
    for module in model.dynamics.values():
        if isinstance(module, GlobalDynamic):
            module.expand.bias.view(-1, module.channels, module.channels).add_(torch.eye(module.channels))


def check_inputs(composite: Tensor, mask: Tensor) -> None:
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
    if composite.shape[0] < 1 or min(height, width) < MIN_SIZE or height % STRIDE or width % STRIDE:
        raise ValueError(
            f"height and width must be multiples of {STRIDE} and at least {MIN_SIZE}, and the batch not empty: "
            f"got {tuple(composite.shape)}."
        )
