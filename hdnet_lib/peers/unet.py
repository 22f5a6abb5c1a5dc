"""RainNet, DoveNet, BargainNet and S2AM: one U-Net of eight levels, with another norm and another gate each."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.model.hdnet import paste
from hdnet_lib.model.rain import RAIN
from hdnet_lib.model.variants import InstanceNorm, SpatialAttention
from hdnet_lib.peers.attention import S2AMAttention
from hdnet_lib.peers.base import Peer
from hdnet_lib.peers.losses import triplets
from hdnet_lib.peers.partial import PartialConv
from hdnet_lib.peers.ranges import from_unit, to_unit

MULTIPLES = (1, 2, 4, 8, 8, 8, 8, 8)
"""Channels of the eight levels in units of the width; each has half the side of the one before."""
GATED = (1, 2, 3)
"""Levels whose skip connection ends in a gate: maps of a half, a quarter and an eighth of the side."""
DROPPED = (4, 5, 6)
"""Levels of the decoder with dropout while training."""


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that is called as a norm with regions is."""

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """feature (B, C, H, W) -> (B, C, H, W); the mask is not used."""
        return super().forward(feature)


class UNet(nn.Module):
    """Eight halvings by 4x4 convolutions, and back; the skips carry activated features.

    Args:
        inputs: channels of the input.
        width: channels of the first level, n.
        norms: norms of encoder and decoder, each called with the channels, then with feature and mask.
        gate: what follows the skip connections of :data:`GATED`, called in the same way.
        bias: whether the convolutions before a norm have a bias.
        dropout: rate of the decoder's inner levels.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        norms: tuple[Callable[[int], nn.Module], Callable[[int], nn.Module]],
        gate: Callable[[int], nn.Module] = SpatialAttention,
        bias: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels = [width * multiple for multiple in MULTIPLES]
        last = len(channels) - 1
        self.dropout = dropout
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.down_norms, self.up_norms, self.gates = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for level, outputs in enumerate(channels):
            above = channels[level - 1] if level else inputs
            self.down.append(nn.Conv2d(above, outputs, 4, 2, 1, bias=bias))
            below = outputs if level == last else 2 * outputs
            self.up.append(nn.ConvTranspose2d(below, above if level else 3, 4, 2, 1, bias=bias or not level))
            if level:
                self.up_norms[str(level)] = norms[1](above)
                if level < last:
                    self.down_norms[str(level)] = norms[0](outputs)
            if level in GATED:
                self.gates[str(level)] = gate(2 * above)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, inputs, H, W), mask (B, 1, H, W), sides multiples of 256 -> (B, 3, H, W), no activation at the end."""
        skips = []
        for level, convolution in enumerate(self.down):
            if level:
                x = F.leaky_relu(x, 0.2)
                skips.append(x)
            x = convolution(x)
            if str(level) in self.down_norms:
                x = self.down_norms[str(level)](x, mask)
        for level in reversed(range(1, len(self.up))):
            x = self.up_norms[str(level)](self.up[level](F.relu(x)), mask)
            if level in DROPPED:
                x = F.dropout(x, self.dropout, self.training)
            x = torch.cat([skips.pop(), x], dim=1)
            if level in GATED:
                x = self.gates[str(level)](x, mask)
        return self.up[0](F.relu(x))


class RainNet(Peer):
    """RainNet (Ling et al., CVPR 2021): RAIN in the decoder; the mask is not part of the input."""

    multiple = smallest = 256
    adversarial = True

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.unet = UNet(3, width, (InstanceNorm, RAIN))

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        return self.unet(composite, mask).tanh()

    def own_loss(
        self, composite: Tensor, mask: Tensor, real: Tensor, judge: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """See :meth:`Peer.own_loss` and :attr:`Peer.adversarial`; the discriminator sees the pasted image."""
        image = paste(self.predict(composite, mask), composite, mask)
        return 100 * F.l1_loss(image, real) + (judge(image, mask, real) if judge else 0)


class DoveNet(Peer):
    """The generator of DoveNet (Cong et al., CVPR 2020): instance norm everywhere, and a bias before it.

    In evaluation mode dropout is off; the public test command leaves it on.
    """

    multiple = smallest = 256
    adversarial = True

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.unet = UNet(4, width, (InstanceNorm, InstanceNorm), bias=True)

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        return self.unet(torch.cat([composite, mask], dim=1), mask).tanh()

    def own_loss(
        self, composite: Tensor, mask: Tensor, real: Tensor, judge: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """See :meth:`Peer.own_loss` and :attr:`Peer.adversarial`; the discriminator sees the image as it is."""
        image = self.predict(composite, mask)
        return 100 * F.l1_loss(image, real) + (judge(image, mask, real) if judge else 0)


class DomainExtractor(nn.Module):
    """BargainNet's E: the code of a region, by convolutions that see nothing else.

    Args:
        width: channels of the first convolution.
        code: numbers of the code.
    """

    def __init__(self, width: int = 64, code: int = 16) -> None:
        super().__init__()
        channels = [3, *(width * multiple for multiple in (1, 2, 4, 8, 8))]
        self.convolutions = nn.ModuleList(
            PartialConv(above, below, bias=not level)
            for level, (above, below) in enumerate(itertools.pairwise(channels))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for outputs in channels[2:-1])
        self.code = nn.Conv2d(channels[-1], code, 1)

    def forward(self, image: Tensor, region: Tensor) -> Tensor:
        """image (B, 3, H, W) in [-1, 1], region (B, 1, H, W) -> (B, code, 1, 1)."""
        last = len(self.convolutions) - 1
        for level, convolution in enumerate(self.convolutions):
            image, region = convolution(image, region)
            if 0 < level < last:
                image = self.norms[level - 1](image)
            if level < last:
                image = F.relu(image)
        return self.code(image.mean(dim=(2, 3), keepdim=True))


class BargainNet(Peer):
    """BargainNet (Cong et al., ICME 2021): the generator is told the code of the background."""

    multiple = smallest = 256

    def __init__(self, width: int = 64, extractor_width: int = 64, code: int = 16) -> None:
        super().__init__()
        self.extractor = DomainExtractor(extractor_width, code)
        self.unet = UNet(4 + code, width, (BatchNorm, BatchNorm))
        self.weight = nn.Parameter(torch.full((1,), 0.1))

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        code = self.extractor(composite, 1 - mask).expand(-1, -1, *composite.shape[2:])
        inputs = torch.cat([composite, mask, self.weight.clamp(min=0.001) * code], dim=1)
        return self.unet(inputs, mask).tanh()

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        image = self.predict(composite, mask)
        regions = ((real, mask), (image, mask), (composite, mask), (composite, 1 - mask))
        codes = [self.extractor(each, region).flatten(1) for each, region in regions]
        return F.l1_loss(image, real) + 0.01 * triplets(codes)


class S2AM(Peer):
    """S2AM (Cun and Pun, TIP 2020), its network S2AD: separated attention in place of the gates, no activation last."""

    multiple = smallest = 256

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        if width < 8:
            raise ValueError(f"width of S2AM must be at least 8, not {width}: its gates divide the channels by 16.")
        self.unet = UNet(4, width, (BatchNorm, BatchNorm), S2AMAttention, dropout=0)

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        return from_unit(self.unet(torch.cat([to_unit(composite), mask], dim=1), mask))

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        return F.mse_loss(to_unit(self.predict(composite, mask)), to_unit(real))
