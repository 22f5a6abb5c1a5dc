"""LD, the local dynamic module (section 3.2, Eq. 2 to 5)."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.rain import resize_mask

FORMULATIONS = ("paper", "released", "dot", "zeroed", "positions", "random", "zero")


LARGEST_DENSE = 32 * 32
"""Positions of a map that is matched in one piece. Of a larger one, only pairs of foreground and background are."""
BLOCK = 256, 2048
"""Foreground and background positions that are compared at a time: their similarities stay in a core's cache."""


class Matches(NamedTuple):
    """What LD finds for each of the N = H x W positions of a feature map (row-major order).

    Only the rows of foreground positions are used by LD.
    """

    similarity: Tensor
    """(B, N, N): row i holds the cosine of position i with every position j (Eq. 2, 3); not so for controls."""
    background: Tensor
    """(B, N) bool: True where j is a background position, the only ones that may be chosen."""
    indices: Tensor
    """(B, N, K): the K most similar background positions, most similar first."""
    weights: Tensor
    """(B, N, K): alpha of Eq. 4, the softmax over those K similarities; each row sums to 1."""


class LocalDynamic(nn.Module):
    """Rebuild every foreground feature from itself and its K nearest background features.

    ``formulation="paper"`` computes Eq. 2 to 5. Where the equations are silent:

    - the mask comes to the feature's size by nearest neighbour and is cut at 0.5;
    - an image with fewer than K background positions uses those it has (the others get weight 0);
    - an image with no foreground or no background position at this size passes unchanged.

    ``formulation="released"`` does what the authors' code does instead (see :meth:`_released`). Three take over one of
    its divergences each: "dot" (raw dot products instead of cosines), "zeroed" (the foreground's features are zeroed in
    the support instead of excluded from it) and "positions" (the softmax runs over positions instead of neighbours).
    Two are controls, to measure what the matching is worth: "random" matches with random background positions (the
    same ones every time), "zero" has a reference of zeros, which leaves a 1x1 convolution of the foreground.

    Args:
        channels: C of the feature map.
        k: number of neighbours, at least 1.
        formulation: one of :data:`FORMULATIONS`.
    """

    def __init__(self, channels: int, k: int = 1, formulation: str = "paper") -> None:
        super().__init__()
        if formulation not in FORMULATIONS:
            raise ValueError(f"local_dynamic must be one of {', '.join(FORMULATIONS)}, not {formulation!r}.")
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k, the number of neighbours, must be a whole number of at least 1, not {k!r}.")
        self.k = k
        self.formulation = formulation
        self.largest_dense = LARGEST_DENSE
        self.adaptive = nn.Conv1d(2 * channels, channels, kernel_size=1)  # g_theta of Eq. 5

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """feature (B, C, H, W), mask (B, 1, H', W') with 1 on the foreground -> (B, C, H, W)."""
        mask = resize_mask(mask, feature)
        if self.formulation == "released":
            return self._released(feature, mask)
        if self.formulation == "paper" and mask[0].numel() > self.largest_dense:
            return self._streamed(feature, mask)
        matches = self.match(feature, mask)
        support = feature
        if self.formulation == "zeroed":
            support = feature * matches.background.view(-1, 1, *feature.shape[2:])
        reference = self.reference(support, matches)
        if self.formulation == "zero":
            reference = torch.zeros_like(reference)
        fused = self.fuse(reference, feature.flatten(2))  # (B, C, N)
        replace = ~matches.background & matches.background.any(dim=1, keepdim=True)  # (B, N)
        return torch.where(replace.unsqueeze(1), fused, feature.flatten(2)).view_as(feature)

    def match(self, feature: Tensor, mask: Tensor) -> Matches:
        """Eq. 2 and 3 and the weights of Eq. 4, for feature (B, C, H, W) and mask (B, 1, H', W')."""
        background = (resize_mask(mask, feature) < 0.5).flatten(1)  # (B, N)
        values = feature.flatten(2)  # (B, C, N)
        if self.formulation != "dot":
            values = F.normalize(values, dim=1)
        similarity = values.transpose(1, 2) @ values  # (B, N, N)
        if self.formulation == "random":
            similarity = _noise(similarity.shape[1]).to(similarity).expand_as(similarity)

        # A finite floor, so that an image without background gives no NaN.
        floor = torch.finfo(similarity.dtype).min
        excluded = 0 if self.formulation == "zeroed" else floor
        candidates = similarity.masked_fill(~background.unsqueeze(1), excluded)
        nearest = candidates.topk(min(self.k, background.shape[1]), dim=2)  # (B, N, K)
        weights = nearest.values.softmax(dim=1 if self.formulation == "positions" else 2)
        return Matches(similarity, background, nearest.indices, weights)

    @staticmethod
    def reference(feature: Tensor, matches: Matches) -> Tensor:
        """phi_ref of Eq. 4: the weighted sum of the chosen background features, (B, C, N)."""
        values = feature.flatten(2)  # (B, C, N)
        batch, channels, _ = values.shape
        _, positions, k = matches.indices.shape
        index = matches.indices.reshape(batch, 1, positions * k).expand(-1, channels, -1)
        chosen = values.gather(2, index).view(batch, channels, positions, k)
        return (chosen * matches.weights.unsqueeze(1)).sum(dim=3)

    def _streamed(self, feature: Tensor, mask: Tensor) -> Tensor:
        """The same for a large map, in memory that grows with its positions and not with their pairs."""
        values = feature.flatten(2)  # (B, C, N)
        units = F.normalize(values, dim=1)
        result = values.clone()
        for index, region in enumerate((mask < 0.5).flatten(1)):
            inside, outside = (~region).nonzero().squeeze(1), region.nonzero().squeeze(1)
            if not (len(inside) and len(outside)):
                continue
            query, support = (units[index][:, where].T.contiguous() for where in (inside, outside))  # (M, C), (L, C)
            nearest = nearest_neighbours(query, support, self.k)  # (M, K)
            # Anew, for the gradient: Eq. 2 and 3 of the chosen pairs, and the weights of Eq. 4.
            weights = (query.unsqueeze(1) * support[nearest]).sum(dim=2).softmax(dim=1)
            reference = (values[index][:, outside[nearest]] * weights).sum(dim=2)  # (C, M)
            fused = self.fuse(reference[None], values[index : index + 1, :, inside])[0]
            result[index, :, inside] = fused.to(result.dtype)  # under autocast another one
        return result.view_as(feature)

    def fuse(self, reference: Tensor, foreground: Tensor) -> Tensor:
        """Eq. 5: g_theta(Concat(phi_ref, F_f)), each (B, C, N) -> (B, C, N)."""
        return self.adaptive(torch.cat([reference, foreground], dim=1))

    def _released(self, feature: Tensor, mask: Tensor) -> Tensor:
        """The authors' code, divergences included.

        Raw dot products instead of cosines, zero in the background's rows; the foreground is zeroed in the
        support, not excluded, so a zero vector wins where all similarities are negative; the softmax runs
        over all positions instead of over the K neighbours; for K > 1 a view in the wrong axis order mixes
        the neighbours of different positions.
        """
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


@torch.no_grad()
def nearest_neighbours(query: Tensor, support: Tensor, k: int) -> Tensor:
    """The K rows of ``support`` (L, C) with the highest dot product with each row of ``query`` (M, C), highest first.

    Exact, in blocks. Returns indices (M, min(K, L)).
    """
    rows, columns = BLOCK
    found = []
    for part in query.split(rows):
        best, chosen = part.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.long, device=part.device)
        for start, block in zip(range(0, len(support), columns), support.split(columns), strict=True):
            values, indices = (part @ block.T).topk(min(k, len(block)), dim=1)
            best, order = torch.cat([best, values], dim=1).topk(min(k, start + len(block)), dim=1)
            chosen = torch.cat([chosen, indices + start], dim=1).gather(1, order)
        found.append(chosen)
    return torch.cat(found)


@cache
def _noise(positions: int) -> Tensor:
    """Similarities (N, N) that mean nothing, the same in every run."""
    return torch.rand(positions, positions, generator=torch.Generator().manual_seed(0)) * 2 - 1
