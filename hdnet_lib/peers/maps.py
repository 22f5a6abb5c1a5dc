"""PCT-Net: a colour transform for each pixel, predicted small and applied at any size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.model.hdnet import paste
from hdnet_lib.peers.base import Peer, check_even
from hdnet_lib.peers.issam import Trunk
from hdnet_lib.peers.losses import edge_size, normalized_mse
from hdnet_lib.peers.ranges import denormalize, from_unit, normalize, to_unit

LOW = 256
"""Side in pixels at which the networks of this kind see an image."""


def shrink(image: Tensor, side: int = LOW) -> Tensor:
    """Resize to side x side by bilinear interpolation; an image of that size is returned as it is."""
    if image.shape[-2:] == (side, side):
        return image
    return F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)


def enlarge(maps: Tensor, like: Tensor) -> Tensor:
    """Bring maps to the size of an image by bicubic interpolation."""
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return F.interpolate(maps, size=like.shape[-2:], mode="bicubic", align_corners=False)


def color_matrix(image: Tensor, maps: Tensor) -> Tensor:
    """``A x + b`` at each pixel: maps (B, 12, H, W) hold A row by row, then b; image (B, 3, H, W) -> (B, 3, H, W)."""
    matrices = maps[:, :9].unflatten(1, (3, 3))  # (B, out, in, H, W)
    return (matrices * image.unsqueeze(1)).sum(dim=2) + maps[:, 9:]


class MapTrunk(Trunk):
    """The trunk of iS2AM at low resolution, for maps that change the image at any size.

    Args:
        width: channels of the trunk, n.
        low: side in pixels at which the trunk sees the image.
    """

    def __init__(self, width: int = 32, low: int = LOW) -> None:
        super().__init__(width)
        self.low = low

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        unit = to_unit(composite)
        return self.render(unit, shrink(unit, self.low), shrink(mask, self.low))

    def render(self, unit: Tensor, low: Tensor, low_mask: Tensor) -> Tensor:
        """unit (B, 3, H, W) in [0, 1], and the small image and mask that the trunk sees -> (B, 3, H, W) in [-1, 1]."""
        raise NotImplementedError


class PCTNet(MapTrunk):
    """PCT-Net with a CNN (Guerreiro et al., CVPR 2023)."""

    def __init__(self, width: int = 32, low: int = LOW) -> None:
        super().__init__(width, low)
        self.transform = nn.Conv2d(width, 12, 1)

    def render(self, unit: Tensor, low: Tensor, low_mask: Tensor) -> Tensor:
        """See :meth:`MapTrunk.render`."""
        return self.apply_maps(unit, *self.maps(low, low_mask))

    def maps(self, low: Tensor, low_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Matrices and shifts of the colours (B, 12, h, w), and the share (B, 1, h, w) of the changed image."""
        feature, share, _ = self.features(normalize(low), low_mask)
        return self.transform(feature), share

    def apply_maps(self, unit: Tensor, maps: Tensor, share: Tensor) -> Tensor:
        """unit (B, 3, H, W) in [0, 1] and what :meth:`maps` gives -> (B, 3, H, W) in [-1, 1]."""
        normalized = normalize(unit)
        # As the authors run it: the transform acts on normalised colours and its result is cut to [0, 1].
        changed = normalize(color_matrix(normalized, enlarge(maps, unit)).clamp(0, 1))
        share = enlarge(share, unit)
        return from_unit(denormalize(share * changed + (1 - share) * normalized))

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        unit = to_unit(composite)
        maps, share = self.maps(shrink(unit, self.low), shrink(mask, self.low))
        image = self.apply_maps(unit, maps, share)
        return normalized_mse(image, real, mask, 1000) + 0.1 * edge_size(maps)


class PCTNetViT(Peer):
    """PCT-Net with a vision transformer: patches of 4 x 4 pixels, no code of their position, no normalised colours.

    Args:
        width: numbers of a token.
        layers: layers of the transformer, with two heads each.
        low: side in pixels at which the transformer sees the image.
    """

    def __init__(self, width: int = 256, layers: int = 9, low: int = LOW) -> None:
        super().__init__()
        check_even(width)
        self.low = low
        self.embedding = nn.Linear(4 * 4 * 4, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, activation="gelu", batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.decoder = nn.ConvTranspose2d(width, 12, 4, 4)
        self.transform = nn.Conv2d(12, 12, 1)

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`; pasted by the mask, as its code does."""
        unit = to_unit(composite)
        return self.render(unit, mask, shrink(unit, self.low), shrink(mask, self.low))

    def render(self, unit: Tensor, mask: Tensor, low: Tensor, low_mask: Tensor) -> Tensor:
        """As :meth:`MapTrunk.render`, with the mask (B, 1, H, W) at full size, by which it pastes."""
        return self.apply_maps(unit, mask, self.maps(low, low_mask))

    def maps(self, low: Tensor, low_mask: Tensor) -> Tensor:
        """Matrices and shifts of the colours, (B, 12, h, w)."""
        rows, columns = low.shape[2] // 4, low.shape[3] // 4
        patches = torch.cat([low, low_mask], dim=1).unflatten(3, (columns, 4)).unflatten(2, (rows, 4))
        tokens = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (B, patches, rows x columns x channels)
        tokens = self.transformer(self.embedding(tokens))
        return self.transform(self.decoder(tokens.transpose(1, 2).unflatten(2, (rows, columns))).tanh())

    def apply_maps(self, unit: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
        """unit (B, 3, H, W) in [0, 1], mask (B, 1, H, W), maps of :meth:`maps` -> (B, 3, H, W) in [-1, 1]."""
        return from_unit(paste(color_matrix(unit, enlarge(maps, unit)).clamp(0, 1), unit, mask))

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        unit = to_unit(composite)
        maps = self.maps(shrink(unit, self.low), shrink(mask, self.low))
        return normalized_mse(self.apply_maps(unit, mask, maps), real, mask, 1000) + 0.1 * edge_size(maps)
