"""INR, also called HINet (Chen et al., TCSVT 2023): small networks of the coordinate, predicted for each cell."""

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.model.losses import foreground_mse
from hdnet_lib.peers.base import Peer
from hdnet_lib.peers.cdtnet import look_up
from hdnet_lib.peers.hrnet import HRNet
from hdnet_lib.peers.idih import MULTIPLES, Block, down_and_up
from hdnet_lib.peers.losses import table_excess, table_image_mse
from hdnet_lib.peers.maps import shrink
from hdnet_lib.peers.ranges import to_unit

EMBEDDING = 32
"""Numbers of each of the two codes of a position."""
INPUTS = 2 + 2 * EMBEDDING + 3 + 1
"""Of a pixel: its coordinate and codes, its colour, the mask."""
DEPTHS = (4, 3, 2)
"""Layers of the predicted networks, from the coarsest level to the finest."""
CELL = 4
"""Side of a cell in pixels, where the image has the encoder's size."""


class PredictedLayers(nn.Module):
    """Layers of a small network whose weights are learned and then scaled by tanh of a predicted matrix of low rank."""

    def __init__(self, widths: Sequence[int], rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.weights = nn.ParameterList(torch.randn(pair) for pair in itertools.pairwise(widths))

    @property
    def count(self) -> int:
        """Numbers that have to be predicted."""
        return sum(self.rank * (above + below) + below for above, below in (w.shape for w in self.weights))

    def forward(self, predicted: Tensor) -> list[tuple[Tensor, Tensor]]:
        """predicted (..., count) -> weights (..., in, out) and biases (..., 1, out) of the layers."""
        layers, at = [], 0

        def take(rows: int, columns: int) -> Tensor:
            nonlocal at
            at += rows * columns
            return predicted[..., at - rows * columns : at].unflatten(-1, (rows, columns))

        for weight in self.weights:
            above, below = weight.shape
            scale = (take(above, self.rank) @ take(self.rank, below)).tanh()
            layers.append((weight * scale, take(1, below)))
        return layers


def start_small(last: nn.Linear | nn.Conv2d) -> None:
    """Start the layer that predicts weights: a hundredth of Kaiming's start, and biases as wide as its."""
    nn.init.kaiming_normal_(last.weight)
    bound = math.sqrt(6 / last.weight[0].numel())
    with torch.no_grad():
        last.weight.div_(100)
        cast(Tensor, last.bias).uniform_(-bound, bound)


class LocalNetworks(nn.Module):
    """A network for each cell, predicted from an encoder's map of twice as many cells, and run on the cell's pixels."""

    def __init__(self, channels: int, hidden: int, widths: Sequence[int], rank: int) -> None:
        super().__init__()
        self.layers = PredictedLayers(widths, rank)
        self.predict = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, 2, 1, bias=False), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, 1, 1, bias=False), nn.ReLU(),
            nn.Conv2d(hidden, self.layers.count, 1),
        )  # fmt: skip
        start_small(cast(nn.Conv2d, self.predict[-1]))

    def forward(self, feature: Tensor, pixels: Tensor) -> Tensor:
        """feature (B, channels, 2h, 2w), pixels (B, H, W, in), h cells in H -> (B, H, W, out)."""
        predicted = self.predict(feature).permute(0, 2, 3, 1)
        rows, columns = predicted.shape[1:3]
        height, width = pixels.shape[1:3]
        x = pixels.unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).transpose(2, 3)  # cells, then pixels
        x = x.flatten(3, 4)
        for weight, bias in self.layers(predicted):
            x = F.leaky_relu(x @ weight + bias)
        x = x.unflatten(3, (height // rows, width // columns)).transpose(2, 3)
        return x.flatten(3, 4).flatten(1, 2)


class Positions(nn.Module):
    """The code of a position: its coordinate, sines of it, and a learned table."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.sines = nn.Linear(2, EMBEDDING)
        self.side = side
        self.table = nn.Parameter(torch.randn(1, side * side, EMBEDDING))

    def forward(self, height: int, width: int) -> Tensor:
        """The codes of a grid whose corners are at -1 and 1: (H, W, 2 + 64)."""
        device, dtype = self.table.device, self.table.dtype
        rows, columns = (torch.linspace(-1, 1, length, device=device, dtype=dtype) for length in (height, width))
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        table = self.table.unflatten(1, (self.side, self.side))
        if (height, width) != (self.side, self.side):
            table = F.grid_sample(table.permute(0, 3, 1, 2), grid.flip(-1)[None], align_corners=True).permute(
                0, 2, 3, 1
            )
        return torch.cat([grid, self.sines(grid).sin(), table[0]], dim=-1)


class INR(Peer):
    """INR.

    The features that a level hands to the next are scrambled, as in the authors' code: it takes the memory of
    (features, H, W) for one of (H, W, features). Their weights need that.

    Args:
        width: channels of the encoder's first block, n.
        depth: blocks of the encoder, which sees the image at a side of 2^(depth + 1) pixels.
        hidden: channels of the layers that predict the small networks.
        features: width of the small networks.
        rank: of the predicted matrices.
        lattice: side of the look-up table, which only the training uses.
        backbone, blocks, context: those of :class:`~hdnet_lib.peers.hrnet.HRNet`.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 7,
        hidden: int = 512,
        features: int = 32,
        rank: int = 10,
        lattice: int = 7,
        backbone: int = 18,
        blocks: int = 4,
        context: int = 64,
    ) -> None:
        super().__init__()
        if not 5 <= depth <= len(MULTIPLES):
            raise ValueError(f"depth must be from 5 to {len(MULTIPLES)}, not {depth}.")
        self.low, self.lattice = 2 ** (depth + 1), lattice
        self.hrnet = HRNet(backbone, blocks, context)
        channels = [4, *(width * multiple for multiple in MULTIPLES[:depth])]
        self.encoder = nn.ModuleList(
            Block(
                nn.Conv2d(above + (2 * context if level == 2 else 0), below, 4, 2, int(level < depth - 1)),
                below,
                level > 1,
            )
            for level, (above, below) in enumerate(itertools.pairwise(channels))
        )
        self.plain = Block(nn.Conv2d(channels[2], channels[3], 4, 2, 1), channels[3])
        outputs = [*channels[-2:2:-1], width]
        self.decoder = nn.ModuleList(
            Block(nn.ConvTranspose2d(above, below, 4, 2, int(level > 0)), below)
            for level, (above, below) in enumerate(itertools.pairwise([channels[-1], *outputs]))
        )
        self.positions = Positions(self.low)
        self.levels = nn.ModuleList(
            LocalNetworks(inputs, hidden, [INPUTS + (features if level else 0), *[features] * layers], rank)
            for level, (inputs, layers) in enumerate(zip((channels[3], channels[2], channels[1]), DEPTHS, strict=True))
        )
        self.compress = nn.Sequential(
            nn.Linear((self.low // CELL) ** 2, 64, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(64, 1)
        )
        self.colors = PredictedLayers([*[features] * 4, 3], rank)
        self.predict_colors = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, hidden, bias=False), nn.ReLU(),
            nn.Linear(hidden, self.colors.count),
        )  # fmt: skip
        start_small(cast(nn.Linear, self.predict_colors[-1]))
        entries = 3 * lattice**3
        self.predict_table = nn.Sequential(
            nn.Linear(self.colors.count, entries), nn.ReLU(), nn.Linear(entries, entries)
        )

    def encode(self, low: Tensor, low_mask: Tensor) -> tuple[list[Tensor], Tensor]:
        """Maps for the three levels, and what the network of the colours is made of.

        low (B, 3, low, low) in [-1, 1], low_mask (B, 1, low, low) -> maps of the levels, coarse to fine; (B, count).
        """
        first, second, joined, *rest = self.encoder
        fine = first(torch.cat([low, low_mask], dim=1))
        middle = second(fine)
        x = torch.cat([middle, self.hrnet(low, low_mask)], dim=1)
        x = down_and_up(x, (joined, *rest), self.decoder)
        colors = self.predict_colors(self.compress(x.flatten(2)).squeeze(2))
        return [self.plain(middle), middle, fine], colors

    def results(self, composite: Tensor, mask: Tensor, maps: list[Tensor], predicted: Tensor) -> list[Tensor]:
        """The images of the three levels in [-1, 1]: (B, 3, ., .), a quarter, a half and the whole of H and W.

        Height and width have to be multiples of a quarter of ``low``; maps and predicted are those of :meth:`encode`.
        """
        layers = self.colors(predicted)
        images: list[Tensor] = []
        feature, whole = composite.new_zeros(0), torch.cat([composite, mask], dim=1)
        for level, (networks, code) in enumerate(zip(self.levels, maps, strict=True)):
            height, width = (side >> (len(maps) - 1 - level) for side in composite.shape[2:])
            given = whole
            if level < len(maps) - 1:
                # On a CPU this works in float32 alone.
                given = F.interpolate(whole.float(), (height, width), mode="bilinear", antialias=True).to(whole)
            pixels = torch.cat(
                [self.positions(height, width).expand(len(given), -1, -1, -1), given.permute(0, 2, 3, 1)], dim=3
            )
            if level:
                larger = F.interpolate(feature.permute(0, 3, 1, 2), size=(height, width), mode="bilinear")
                pixels = torch.cat([pixels, larger.contiguous().view(len(given), height, width, -1)], dim=3)
            feature = networks(code, pixels)
            x = feature.flatten(1, 2)
            for index, (weight, bias) in enumerate(layers):
                x = x @ weight + bias
                x = F.leaky_relu(x) if index < len(layers) - 1 else x.tanh()
            images.append(x.transpose(1, 2).unflatten(2, (height, width)))
        return images

    def table(self, composite: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """The look-up table (B, 3, D, D, D), and the composite changed by it, in [0, 1]; the authors' loss has them."""
        table = self.predict_table(predicted).unflatten(1, (3, *[self.lattice] * 3))
        # Axes red, green, blue: CDTNet's are the other way round.
        return table, look_up(to_unit(composite), table.permute(0, 1, 4, 3, 2))

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        composite, mask, real = (self.whole_cells(x) for x in (composite, mask, real))
        maps, predicted = self.encode(shrink(composite, self.low), shrink(mask, self.low))
        error = composite.new_zeros(())
        for image in (images := self.results(composite, mask, maps, predicted)):
            size = image.shape[2:]
            target, region = real, mask
            if image is not images[-1]:
                target, region = (F.interpolate(x, size, mode="bilinear", antialias=True) for x in (real, mask))
            error = error + foreground_mse(image, target, region) / len(images)
        table, changed = self.table(composite, predicted)
        return error + table_image_mse(changed, to_unit(real), mask) + table_excess(table)

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        height, width = composite.shape[2:]
        composite, mask = self.whole_cells(composite), self.whole_cells(mask)
        encoded = self.encode(shrink(composite, self.low), shrink(mask, self.low))
        return self.results(composite, mask, *encoded)[-1][..., :height, :width]

    def whole_cells(self, image: Tensor) -> Tensor:
        """The image (B, ., H, W) with its edge repeated to the right and below, until cells fill it."""
        cells = self.low // CELL
        return F.pad(image, (0, -image.shape[3] % cells, 0, -image.shape[2] % cells), mode="replicate")
