"""Intrinsic image harmonization (Guo et al., CVPR 2021): reflectance times illumination, each harmonised by itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.peers.base import Peer, check_even
from hdnet_lib.peers.losses import bend, edge_difference, structure_difference
from hdnet_lib.peers.ranges import from_unit, to_unit
from hdnet_lib.utils.regions import resize_mask

CODE = 8
"""Numbers that tell of a region's light."""


class LayerNorm(nn.Module):
    """Over channels and positions of an image, with the unbiased deviation; a scale and a shift for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        deviation, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True)
        return (x - mean) / (deviation + 1e-5) * self.gamma.view(1, -1, 1, 1) + self.beta.view(1, -1, 1, 1)


class InstanceNorm(nn.Module):
    """Without parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.instance_norm(x)


class ConvBlock(nn.Module):
    """Reflection padding, convolution with bias, norm or none, activation or none."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        norm: nn.Module | None = None,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 1
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, padding_mode="reflect")
        self.norm = norm or nn.Identity()
        self.activation = activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return self.activation(self.norm(self.conv(x)))


def leaky() -> nn.Module:
    """The activation of these networks."""
    return nn.LeakyReLU(0.2)


def encoder(width: int, halvings: int, norm: type[nn.Module] = nn.Identity) -> list[nn.Module]:
    """Composite and mask -> a map of ``width x 2^halvings`` channels."""
    blocks: list[nn.Module] = [ConvBlock(4, width, 7, 1, norm(width), leaky())]
    for level in range(halvings):
        inputs, outputs = width << level, width << level + 1
        blocks.append(ConvBlock(inputs, outputs, 4, 2, norm(outputs), leaky()))
    return blocks


def decoder(channels: int) -> nn.Sequential:
    """A map (B, channels, H / 4, W / 4) -> an image (B, 3, H, W) in [-1, 1]."""
    half, quarter = channels // 2, channels // 4
    return nn.Sequential(
        nn.Upsample(scale_factor=2), ConvBlock(channels, half, 5, 1, LayerNorm(half), leaky()),
        nn.Upsample(scale_factor=2), ConvBlock(half, quarter, 5, 1, LayerNorm(quarter), leaky()),
        ConvBlock(quarter, 3, 7, 1, None, nn.Tanh()),
    )  # fmt: skip


class Residual(nn.Module):
    """Two convolutions and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 3, 1, LayerNorm(channels), leaky())
        self.second = ConvBlock(channels, channels, 3, 1, LayerNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.second(self.first(x))


class LightCodes(nn.Module):
    """What light falls on foreground and background, :data:`CODE` numbers each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*encoder(width, 2))
        self.code = nn.Linear(4 * width, CODE)

    def forward(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Composite and mask (B, 4, H, W), mask (B, 1, H, W) -> the codes of foreground and background, (B, code)."""
        feature = self.encoder(inputs)
        inside = resize_mask(mask, feature)
        foreground, background = (
            self.code((feature * region).sum(dim=(2, 3)) / (region.sum(dim=(2, 3)) + 1e-8))
            for region in (inside, 1 - inside)
        )
        return foreground, background


class Relight(nn.Module):
    """Bring the light of the background to the foreground of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.light = nn.Linear(CODE, 4 * channels)
        self.colors = ConvBlock(channels, 3 * channels, 3, 1, nn.GroupNorm(3, 3 * channels), leaky())

    def forward(self, x: Tensor, codes: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """x (B, C, H, W), the codes of both regions, mask (B, 1, H, W) -> (B, C, H, W)."""
        channels = x.shape[1]
        lights = [F.leaky_relu(self.light(code), 0.2) for code in codes]
        intensities = [light[:, :channels] for light in lights]
        ratios = [light[:, channels:].unflatten(1, (3, channels)).softmax(dim=1) for light in lights]
        ratio = (ratios[1] / (ratios[0] + 1e-8))[..., None, None]  # (B, 3, C, 1, 1)
        added = (intensities[1] - intensities[0])[..., None, None]
        lit = (self.colors(x).unflatten(1, (3, channels)) * ratio).sum(dim=1) + added
        return x * (1 - mask) + lit * mask


class RelightBlock(nn.Module):
    """Two convolutions with a :class:`Relight` each, one norm for both, and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(ConvBlock(channels, channels, 3) for _ in range(2))
        self.relights = nn.ModuleList(Relight(channels) for _ in range(2))
        self.norm = LayerNorm(channels)

    def forward(self, x: Tensor, codes: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """As :class:`Relight`."""
        y = F.leaky_relu(self.norm(self.relights[0](self.convolutions[0](x), codes, mask)), 0.2)
        return x + self.norm(self.relights[1](self.convolutions[1](y), codes, mask))


class Scores(nn.Module):
    """How alike each foreground position is to every background position, in features meant to be free of light."""

    def __init__(self, width: int, residuals: int) -> None:
        super().__init__()
        channels = 8 * width
        self.encoder = nn.Sequential(*encoder(width, 3, LayerNorm))
        self.residuals = nn.Sequential(*(Residual(channels) for _ in range(residuals)))
        self.last = ConvBlock(channels, channels, 3, 1, None, nn.Tanh())

    def forward(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Composite and mask (B, 4, H, W), mask (B, 1, H, W) -> (B, L, H / 8, W / 8) with L = HW / 64, and a map.

        At each position i the softmax over all positions j; the map (B, 1, H / 8, W / 8) is the features' mean.
        """
        feature = self.last(self.residuals(self.encoder(inputs)))
        inside = resize_mask(mask, feature)
        # Positions of the other region stay in, as zeros: so the code has it.
        foreground, background = ((feature * region).flatten(2) for region in (inside, 1 - inside))
        foreground, background = (values - values.mean(dim=1, keepdim=True) for values in (foreground, background))
        covariance = background.transpose(1, 2) @ foreground / (feature.shape[1] - 1)  # (B, L of j, L of i)
        scores = (10 * covariance).softmax(dim=1)
        return scores.unflatten(2, feature.shape[2:]), feature.mean(dim=1, keepdim=True)


class Reconstruct(nn.Module):
    """Add to each position what the patches look like that its scores point at."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.join = ConvBlock(2 * channels, channels, 3, 1, None, nn.ReLU())

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        """x (B, C, H / 4, W / 4), scores (B, L, H / 8, W / 8) -> (B, C, H / 4, W / 4)."""
        batch, channels = x.shape[:2]
        patches = F.unfold(x, 4, padding=1, stride=2).transpose(1, 2).reshape(-1, channels, 4, 4)  # (B x L, C, 4, 4)
        drawn = F.conv_transpose2d(
            scores.reshape(1, -1, *scores.shape[2:]), patches, stride=2, padding=1, groups=batch
        ).view_as(x)
        return x + self.join(torch.cat([x, drawn / 4], dim=1))


class Intrinsic(Peer):
    """The network of the CVPR paper (its journal version differs).

    Args:
        width: channels of the first convolution, n.
        residuals: blocks in the branch of the scores.
    """

    multiple = 8
    largest = 256  # that of the authors' code; time and memory grow with the square of the pixels

    def __init__(self, width: int = 64, residuals: int = 6) -> None:
        super().__init__()
        check_even(width)
        channels = 4 * width
        self.reflectance = nn.Sequential(*encoder(width, 2, InstanceNorm), *(Residual(channels) for _ in range(4)))
        self.illumination = nn.Sequential(*encoder(width, 2, InstanceNorm))
        self.lights = LightCodes(width)
        self.relight = nn.ModuleList(RelightBlock(channels) for _ in range(4))
        self.scores = Scores(width // 2, residuals)
        self.reconstruct_reflectance = nn.ModuleList(Reconstruct(channels) for _ in range(2))
        self.reconstruct_illumination = nn.ModuleList(Reconstruct(channels) for _ in range(2))
        self.decode_reflectance, self.decode_illumination = decoder(channels), decoder(channels)

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        reflectance, illumination, _ = self.parts(to_unit(composite), mask)
        return from_unit(reflectance * illumination)

    def parts(self, unit: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reflectance and illumination (B, 3, H, W) in [0, 1], and the mean map of :class:`Scores`."""
        inputs = torch.cat([unit, mask], dim=1)
        scores, mean = self.scores(inputs, mask)
        reflectance, illumination = self.reflectance(inputs), self.illumination(inputs)
        codes, inside = self.lights(inputs, mask), resize_mask(mask, illumination)
        for block in self.relight:
            illumination = block(illumination, codes, inside)
        for reconstruct in self.reconstruct_reflectance:
            reflectance = reconstruct(reflectance, scores)
        for reconstruct in self.reconstruct_illumination:
            illumination = reconstruct(illumination, scores.detach())
        return to_unit(self.decode_reflectance(reflectance)), to_unit(self.decode_illumination(illumination)), mean

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        unit = to_unit(real)
        reflectance, illumination, mean = self.parts(to_unit(composite), mask)
        light = F.mse_loss(illumination, unit) + 10 * bend(illumination)
        image = 100 * F.l1_loss(reflectance * illumination, unit)
        return image + 10 * edge_difference(reflectance, unit) + light + 100 * structure_difference(mean, unit)
