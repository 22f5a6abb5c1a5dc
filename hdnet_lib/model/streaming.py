"""LD on maps of any size: the same result, in memory that grows with the positions and not with their pairs."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hdnet_lib.model.local_dynamic import LocalDynamic
from hdnet_lib.utils.regions import resize_mask

LARGEST_DENSE = 32 * 32
"""Positions of a map that is matched in one piece. Of a larger one, only pairs of foreground and background are."""
BLOCK = 256, 2048
"""Foreground and background positions that are compared at a time: their similarities stay in a core's cache."""


class StreamingLocalDynamic(LocalDynamic):
    """What :class:`~hdnet_lib.model.local_dynamic.LocalDynamic` computes, in blocks where the map is large.

    :meth:`match` still compares all pairs: it is for study.
    """

    def __init__(self, channels: int, k: int = 1) -> None:
        super().__init__(channels, k)
        self.largest_dense: float = LARGEST_DENSE

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`LocalDynamic.forward`."""
        mask = resize_mask(mask, feature)
        if mask[0].numel() <= self.largest_dense:
            return super().forward(feature, mask)
        values = feature.flatten(2)  # (B, C, N)
        units = F.normalize(values, dim=1)
        result = values.clone()
        for index, region in enumerate((mask < 0.5).flatten(1)):
            inside, outside = (~region).nonzero().squeeze(1), region.nonzero().squeeze(1)
            if not (len(inside) and len(outside)):
                continue
            query, support = (units[index][:, where].T.contiguous() for where in (inside, outside))  # (M, C), (L, C)
            nearest = nearest_neighbors(query, support, self.k)  # (M, K)
            # Anew, for the gradient: Eq. 2 of the chosen pairs, and the weights of Eq. 4.
            weights = (query.unsqueeze(1) * support[nearest]).sum(dim=2).softmax(dim=1)
            reference = (values[index][:, outside[nearest]] * weights).sum(dim=2)  # (C, M)
            fused = self.fuse(reference[None], values[index : index + 1, :, inside])[0]
            result[index, :, inside] = fused.to(result.dtype)  # under autocast another one
        return result.view_as(feature)


@torch.no_grad()
def nearest_neighbors(query: Tensor, support: Tensor, k: int) -> Tensor:
    """The K rows of ``support`` (L, C) with the highest dot product with each row of ``query`` (M, C), highest first.

    Exact, in blocks. Returns indices (M, min(K, L)).
    """
    rows, columns = BLOCK
    found = []
    for part in query.split(rows):
        best, chosen = part.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.long, device=part.device)
        for start, block in zip(range(0, len(support), columns), support.split(columns), strict=True):
            similarity = part @ block.T
            # Of one neighbour max takes half the time of topk.
            values, indices = similarity.max(1, keepdim=True) if k == 1 else similarity.topk(min(k, len(block)), dim=1)
            best, order = torch.cat([best, values], dim=1).topk(min(k, start + len(block)), dim=1)
            chosen = torch.cat([chosen, indices + start], dim=1).gather(1, order)
        found.append(chosen)
    return torch.cat(found)
