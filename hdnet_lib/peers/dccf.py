"""DCCF (Xue et al., ECCV 2022): four filters that a person could follow, with arguments for each pixel."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.model.hdnet import paste
from hdnet_lib.model.losses import foreground_mse
from hdnet_lib.peers.hsv import hsv_to_rgb, rgb_to_hsv
from hdnet_lib.peers.losses import hue_map, luminance_map, normalized_mse, saturation_map, variation
from hdnet_lib.peers.maps import LOW, MapTrunk, color_matrix, enlarge, shrink
from hdnet_lib.peers.ranges import denormalize, from_unit, normalize, to_unit

EPS = 1e-7
PIECES = 8
"""Straight pieces of the curve of luminance."""


def change_luminance(image: Tensor, slopes: Tensor, offset: Tensor) -> Tensor:
    """A curve for the value of HSV: slopes (B, 8, H, W), offset (B, H, W); image (B, 3, H, W) in [0, 1]."""
    hue, saturation, value = rgb_to_hsv(image, EPS)
    knots = torch.arange(PIECES, device=image.device).view(1, -1, 1, 1) / PIECES
    curve = (slopes * F.relu(value.unsqueeze(1) - knots)).sum(dim=1) + offset.clamp(-0.2, 0.2)
    return hsv_to_rgb(hue, saturation, curve.clamp(0, 1))


def change_saturation(image: Tensor, amount: Tensor) -> Tensor:
    """Stretch around the lightness by amount (B, 1, H, W), but keep hue and value: (B, 3, H, W) in [0, 1]."""
    amount = amount.clamp(-1, 1).clamp(-0.99, 0.99)
    high, low = image.amax(dim=1, keepdim=True), image.amin(dim=1, keepdim=True)
    both, spread = high + low, high - low
    now = spread / (torch.where(both < 1, both, 2 - both) + EPS)
    more = 1 / torch.where(now >= 1 - amount, now, 1 - amount).clamp(min=EPS) - 1
    factor = torch.where(amount < 0, amount, more)
    stretched = torch.where(spread > 0, image + (image - both / 2) * factor, image)
    hue, _, value = rgb_to_hsv(image, EPS)
    return hsv_to_rgb(hue, rgb_to_hsv(stretched.clamp(0, 1), EPS)[1], value)


def change_hue(image: Tensor, maps: Tensor) -> Tensor:
    """Take the hue of ``A x + b``; maps (B, 12, H, W) hold A column by column."""
    _, saturation, value = rgb_to_hsv(image, EPS)
    turned = color_matrix(image, transpose(maps)).clamp(0, 1)
    return hsv_to_rgb(rgb_to_hsv(turned, EPS)[0], saturation, value)


def transpose(maps: Tensor) -> Tensor:
    """Matrices of (B, 12, H, W) from column by column to row by row."""
    return torch.cat([maps[:, :9].unflatten(1, (3, 3)).transpose(1, 2).flatten(1, 2), maps[:, 9:]], dim=1)


class DCCF(MapTrunk):
    """DCCF on the trunk of iS2AM.

    Its authors cut the gradient before the last stage, and teach the filters before by losses of their own. By a loss
    on the result alone those would learn nothing then, so here it is cut in :meth:`own_loss` alone.
    """

    def __init__(self, width: int = 32, low: int = LOW) -> None:
        super().__init__(width, low)
        self.filters, self.refine = nn.Conv2d(width, 12 + PIECES + 2, 1), nn.Conv2d(width, 12, 1)

    def render(self, unit: Tensor, low: Tensor, low_mask: Tensor) -> Tensor:
        """See :meth:`MapTrunk.render`."""
        return from_unit(self.stages(unit, *self.maps(low, low_mask))[-1])

    def maps(self, low: Tensor, low_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of the filters (B, 22, h, w), of the refinement (B, 12, h, w), and the share of its result."""
        feature, share, _ = self.features(normalize(low), low_mask)
        return self.filters(feature), self.refine(feature), share

    def stages(self, unit: Tensor, *maps_: Tensor, cut: bool = False) -> list[Tensor]:
        """The images in [0, 1] after luminance, saturation, hue, and the end; unit (B, 3, H, W), :meth:`maps`.

        ``cut``: let no gradient pass from the last stage to those before, as in the authors' training.
        """
        maps, refine, share = (enlarge(each, unit) for each in maps_)
        luminance = change_luminance(unit, maps[:, 12:20], maps[:, 20])
        saturation = change_saturation(luminance, maps[:, 21:22])
        hue = change_hue(saturation, maps[:, :12])
        refined = color_matrix(hue.detach() if cut else hue, transpose(F.normalize(refine, dim=1))).clamp(0, 1)
        normalized = normalize(unit)
        result = denormalize(share * normalize(refined) + (1 - share) * normalized)
        return [luminance, saturation, hue, result]

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        unit = to_unit(composite)
        low, small_mask, small_target = (shrink(x, self.low) for x in (unit, mask, to_unit(real)))
        maps = self.maps(low, small_mask)
        *small, hue, result = self.stages(low, *maps, cut=True)
        loss = normalized_mse(from_unit(result), from_unit(small_target), small_mask, 100)
        loss = loss + normalized_mse(from_unit(hue), from_unit(small_target), small_mask, 100)
        for make, stage in zip((luminance_map, saturation_map, hue_map), (*small, hue), strict=True):
            truth = make(small_target)
            # Eq. 1 divides by three colours.
            loss = loss + 3 / truth.shape[1] * foreground_mse(paste(make(stage), truth, small_mask), truth, small_mask)
        *_, hue, result = self.stages(unit, *maps, cut=True)
        loss = loss + 5 * normalized_mse(from_unit(result), real, mask, 1000)
        loss = loss + normalized_mse(from_unit(hue), real, mask, 100)
        filters = maps[0]
        groups = (filters[:, :12], filters[:, 12:21], filters[:, 21:])
        return loss + torch.stack([variation(group, small_mask) for group in groups]).sum()
