"""LD, the local dynamic module (section 3.2, Eq. 2 to 5)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.utils.regions import resize_mask


class Matches(NamedTuple):
    """What LD finds for each of the N = H x W positions of a feature map (row-major order).

    Only the rows of foreground positions are used by LD.
    """

    similarity: Tensor
    """(B, N, N): row i holds the cosine of position i with every position j (Eq. 2)."""
    background: Tensor
    """(B, N) bool: True where j is a background position, the only ones that may be chosen."""
    indices: Tensor
    """(B, N, K): the K most similar background positions, most similar first (Eq. 3)."""
    weights: Tensor
    """(B, N, K): alpha of Eq. 4, the softmax over those K similarities; each row sums to 1."""


class LocalDynamic(nn.Module):
    """Rebuild every foreground feature from itself and its K nearest background features.

    Where the equations are silent: the mask comes to the feature's size by nearest neighbour and is cut at 0.5; an
    image with fewer than K background positions uses those it has (the others get weight 0); an image with no
    foreground or no background position at this size passes unchanged.

    Args:
        channels: C of the feature map.
        k: number of neighbours, at least 1.
    """

    matches_positions = True
    """Whether :meth:`match` tells what :meth:`LocalDynamic.forward` uses; not so for some variants."""

    def __init__(self, channels: int, k: int = 1) -> None:
        super().__init__()
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k, the number of neighbours, must be a whole number of at least 1, not {k!r}.")
        self.k = k
        self.adaptive = nn.Conv1d(2 * channels, channels, kernel_size=1)  # g_theta of Eq. 5

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """feature (B, C, H, W), mask (B, 1, H', W') with 1 on the foreground -> (B, C, H, W)."""
        matches = self.match(feature, mask)
        fused = self.fuse(self.reference(feature, matches), feature.flatten(2))  # (B, C, N)
        replaced = ~matches.background & matches.background.any(dim=1, keepdim=True)  # (B, N)
        return torch.where(replaced.unsqueeze(1), fused, feature.flatten(2)).view_as(feature)

    def match(self, feature: Tensor, mask: Tensor) -> Matches:
        """Eq. 2 and 3 and the weights of Eq. 4, for feature (B, C, H, W) and mask (B, 1, H', W')."""
        background = (resize_mask(mask, feature) < 0.5).flatten(1)  # (B, N)
        similarity = self.similarity(feature.flatten(2))  # (B, N, N)
        candidates = self.exclude(similarity, ~background.unsqueeze(1))
        nearest = candidates.topk(min(self.k, background.shape[1]), dim=2)  # Eq. 3: (B, N, K)
        return Matches(similarity, background, nearest.indices, self.alpha(nearest.values))

    def similarity(self, values: Tensor) -> Tensor:
        """Eq. 2: the cosine of every pair of positions, (B, C, N) -> (B, N, N)."""
        units = F.normalize(values, dim=1)
        return units.transpose(1, 2) @ units

    def exclude(self, similarity: Tensor, foreground: Tensor) -> Tensor:
        """The similarities (B, N, N) of which none with a foreground position (B, 1, N) can be chosen."""
        # A finite floor, so that an image without background gives no NaN.
        return similarity.masked_fill(foreground, torch.finfo(similarity.dtype).min)

    def alpha(self, similarity: Tensor) -> Tensor:
        """The weights of Eq. 4 from the K highest similarities, both (B, N, K)."""
        return similarity.softmax(dim=2)

    @staticmethod
    def reference(feature: Tensor, matches: Matches) -> Tensor:
        """phi_ref of Eq. 4: the weighted sum of the chosen background features, (B, C, N)."""
        values = feature.flatten(2)  # (B, C, N)
        batch, channels, _ = values.shape
        _, positions, k = matches.indices.shape
        index = matches.indices.reshape(batch, 1, positions * k).expand(-1, channels, -1)
        chosen = values.gather(2, index).view(batch, channels, positions, k)
        return (chosen * matches.weights.unsqueeze(1)).sum(dim=3)

    def fuse(self, reference: Tensor, foreground: Tensor) -> Tensor:
        """Eq. 5: g_theta(Concat(phi_ref, F_f)), each (B, C, N) -> (B, C, N)."""
        return self.adaptive(torch.cat([reference, foreground], dim=1))
