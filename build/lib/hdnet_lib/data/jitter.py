"""Boundary jitter: training composites whose mask misses the border a little, as people's masks do."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from hdnet_lib.data.masks import feather, grow_mask
from hdnet_lib.data.samples import Batch
from hdnet_lib.utils.counter_rng import counter_random

GROWN_BY = (-2, -1, 0, 1, 2)
"""A jittered mask is grown by one of these, in pixels."""
FEATHERED_OVER = (0, 1, 2)
"""The foreground of a jittered mask fades out over one of these, in pixels."""


def jitter_masks(batch: Batch, numbers: Sequence[int], seed: int, share: float) -> Batch:
    """Composites as people make them: the mask is not quite that of the object, and the object fades out at its border.

    A network that is always given the exact mask learns to read the jump of colours along it, and is lost without.
    Of a ``share`` of the composites the mask that the network gets is grown or shrunk (:data:`GROWN_BY`), and the
    foreground fades into the real photo inside the true mask (:data:`FEATHERED_OVER`); each is drawn by the
    composite's number and the seed. A mask that would vanish, or cover everything, stays as it is.

    Args:
        batch: composites with exact masks.
        numbers: of the composites, (B,).
        seed: of what is drawn.
        share: of the composites, from 0 to 1.
    """
    device = batch.mask.device
    drawn = np.stack([counter_random(seed, 3, number, 3) for number in numbers])
    jittered = torch.from_numpy(drawn[:, 0] < share).to(device).view(-1, 1, 1, 1)
    grown = _chosen(grow_mask, batch.mask, GROWN_BY, drawn[:, 1])
    opacity = _chosen(feather, batch.mask, FEATHERED_OVER, drawn[:, 2])
    ratio = grown.mean(dim=(1, 2, 3), keepdim=True)
    grown = torch.where((ratio > 0) & (ratio < 1), grown, batch.mask)
    composite = torch.lerp(batch.real, batch.composite, torch.where(jittered, opacity, 1.0))
    return Batch(composite, torch.where(jittered, grown, batch.mask), batch.real)


def _chosen(
    change: Callable[[Tensor, int], Tensor], masks: Tensor, choices: Sequence[int], uniform: np.ndarray
) -> Tensor:
    """Each mask of (B, 1, H, W) changed by the choice that its number of ``uniform`` (B,) in (0, 1) draws."""
    changed = torch.stack([change(masks, pixels) for pixels in choices])  # (choices, B, 1, H, W)
    choice = torch.from_numpy((uniform * len(choices)).astype(int)).to(masks.device)
    return changed[choice, torch.arange(len(masks), device=masks.device)]
