"""Variants of the paper's modules: what the authors' code does instead, rows of the ablation, and controls.

Each is a small class that says what it changes. :mod:`~hdnet_lib.registry` gives them names.
"""

from collections import OrderedDict
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.model.global_dynamic import GlobalDynamic
from hdnet_lib.model.local_dynamic import LocalDynamic, Matches
from hdnet_lib.utils.regions import resize_mask

# --- LD as released, and each of its divergences from the paper alone


class DotProduct(LocalDynamic):
    """LD with raw dot products instead of the cosines of Eq. 2."""

    def similarity(self, values: Tensor) -> Tensor:
        """(B, C, N) -> (B, N, N)."""
        return values.transpose(1, 2) @ values


class ZeroedForeground(LocalDynamic):
    """LD whose support holds the foreground, with zeros for features, instead of excluding it (Eq. 3)."""

    def exclude(self, similarity: Tensor, foreground: Tensor) -> Tensor:
        """The similarity with a zero vector is 0, and it wins where all others are negative."""
        return similarity.masked_fill(foreground, 0)

    @staticmethod
    def reference(feature: Tensor, matches: Matches) -> Tensor:
        """Eq. 4 over the zeroed support, (B, C, N)."""
        return LocalDynamic.reference(feature.flatten(2) * matches.background.unsqueeze(1), matches)


class SoftmaxOverPositions(LocalDynamic):
    """LD whose softmax (Eq. 4) runs over the N positions instead of over the K neighbours."""

    def alpha(self, similarity: Tensor) -> Tensor:
        """(B, N, K) -> (B, N, K); each of K columns sums to 1."""
        return similarity.softmax(dim=1)


class ReleasedLocalDynamic(LocalDynamic):
    """LD as the authors' code computes it.

    Raw dot products instead of cosines, zero in the background's rows; the foreground is zeroed in the support, not
    excluded, so a zero vector wins where all similarities are negative; the softmax runs over all positions instead of
    over the K neighbours; for K > 1 a view in the wrong axis order mixes the neighbours of different positions.
    """

    matches_positions = False

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`LocalDynamic.forward`."""
        mask = resize_mask(mask, feature)
        values = feature.flatten(2)  # (B, C, N)
        batch, channels, positions = values.shape
        query = (feature * mask).flatten(2)
        support = (feature * (1 - mask)).flatten(2)
        k = min(self.k, positions)
        nearest = (query.transpose(1, 2) @ support).topk(k, dim=2)  # (B, N, K)
        index = nearest.indices.reshape(batch, 1, -1).expand(-1, channels, -1)
        chosen = support.gather(2, index).view(batch, channels, k, positions)  # the wrong order
        weights = nearest.values.reshape(batch, 1, k, positions).softmax(dim=3)  # the wrong axis
        fused = self.fuse((weights * chosen).sum(dim=2), values).view_as(feature)
        return fused * mask + feature * (1 - mask)


# --- LD, controls: what is the matching worth?


class RandomReference(LocalDynamic):
    """A control: LD that matches with random background positions, the same ones every time."""

    def similarity(self, values: Tensor) -> Tensor:
        """(B, C, N) -> (B, N, N), numbers that mean nothing."""
        batch, _, positions = values.shape
        return _noise(positions).to(values).expand(batch, -1, -1)


@cache
def _noise(positions: int) -> Tensor:
    return torch.rand(positions, positions, generator=torch.Generator().manual_seed(0)) * 2 - 1


class ZeroReference(LocalDynamic):
    """A control: LD with a reference of zeros, which leaves a 1x1 convolution of the foreground."""

    matches_positions = False

    @staticmethod
    def reference(feature: Tensor, matches: Matches) -> Tensor:
        """Zeros, (B, C, N)."""
        return torch.zeros_like(feature.flatten(2))


# --- In place of MGD


class LearnedMaskGlobalDynamic(GlobalDynamic):
    """MGD of HDNet* (Table 3): it predicts its region mask instead of taking the given one.

    Paper and released code do not say how: the code holds a 1x1 convolution to two regions that it
    never calls. A softmax over the two regions, inside the MGDs only, is this project's reading.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.guide = nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, 2, kernel_size=1)))

    def region_mask(self, feature: Tensor, mask: Tensor) -> Tensor:
        """feature (B, C, H, W) -> soft foreground mask (B, 1, H, W) in (0, 1); the given mask is not used."""
        return self.guide(feature).softmax(dim=1)[:, :1]


class ConstantKernels(GlobalDynamic):
    """A control, to measure what the steering is worth: MGD with the same two kernels for every image."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self.squeeze

    def steering(self, feature: Tensor) -> Tensor:
        """One half each, (B, 4, 1, 1); for a shared kernel (B, 2, 1, 1)."""
        return feature.new_full((feature.shape[0], self.expand.in_channels, 1, 1), 0.5)


class SharedKernel(ConstantKernels):
    """A control, to measure what two kernels are worth: a single constant kernel for both regions."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.expand = nn.Conv2d(2, channels * channels, kernel_size=1)

    def kernels(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """The same kernel twice, (B, C, C)."""
        kernel = self.expand(self.steering(feature)).view(-1, self.channels, self.channels)
        return kernel, kernel


class SpatialAttention(nn.Module):
    """SA, the sigmoid gate of RainNet and SCS-Co, which Table 3 compares with MGD."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """feature (B, C, H, W) -> (B, C, H, W); the mask is not used."""
        return feature * self.gate(feature).sigmoid()


# --- In place of RAIN


class InstanceNorm(nn.Module):
    """A control: plain instance norm, which does not know the regions."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """feature (B, C, H, W) -> (B, C, H, W); the mask is not used."""
        return F.instance_norm(feature)
