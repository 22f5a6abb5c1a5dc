"""D-HT (Guo et al., ICCV 2021): reflectance and illumination by transformers over the positions of a map."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdnet_lib.peers.base import Peer
from hdnet_lib.peers.intrinsic import InstanceNorm, decoder, encoder
from hdnet_lib.peers.ranges import from_unit, to_unit

PATCH = 8
"""Side of the background's patches that tell of the light."""


def sine_code(rows: int, columns: int, channels: int, device: torch.device) -> Tensor:
    """DETR's code of positions, not normalised: (rows x columns, channels), half for the row, half for the column."""
    frequencies = 10_000 ** (-torch.arange(0, channels // 2, 2, device=device) / (channels // 2))

    def code(count: int) -> Tensor:
        angles = torch.arange(1, count + 1, device=device)[:, None] * frequencies
        return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)  # (count, channels / 2)

    row, column = code(rows)[:, None].expand(-1, columns, -1), code(columns)[None].expand(rows, -1, -1)
    return torch.cat([row, column], dim=2).flatten(0, 1)


class EncoderLayer(nn.Module):
    """Self-attention and two linear layers, each with a norm after it; codes of positions for queries and keys."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor, hidden: Tensor | None = None) -> Tensor:
        """x (B, N, C), position (N, C), hidden (B, N) bool: tokens that nobody attends to -> (B, N, C)."""
        query = x + position
        x = self.norm1(x + self.self_attn(query, query, x, hidden, need_weights=False)[0])
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))


class DecoderLayer(EncoderLayer):
    """As :class:`EncoderLayer`, with attention to a memory in between."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.multihead_attn = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.norm3 = nn.LayerNorm(channels)

    def forward(  # type: ignore[override]
        self, x: Tensor, position: Tensor, memory: Tensor, memory_position: Tensor, hidden: Tensor | None = None
    ) -> Tensor:
        """x (B, N, C), memory (B, M, C), hidden (B, M) -> (B, N, C)."""
        query = x + position
        x = self.norm1(x + self.self_attn(query, query, x, need_weights=False)[0])
        key = memory + memory_position
        x = self.norm2(x + self.multihead_attn(x + position, key, memory, hidden, need_weights=False)[0])
        return self.norm3(x + self.linear2(F.gelu(self.linear1(x))))


class DHT(Peer):
    """D-HT of the ICCV paper (DHT+ of the journal differs).

    Args:
        width: channels of the first convolution, n; tokens have 4n numbers.
        layers: layers of each of the four transformers.
        lights: tokens that tell of the light.
    """

    multiple = 8
    largest = 256  # that of the authors' code; time and memory grow with the square of the pixels

    def __init__(self, width: int = 64, layers: int = 9, lights: int = 27) -> None:
        super().__init__()
        channels = 4 * width
        self.encoder = nn.Sequential(*encoder(width, 2, InstanceNorm))
        self.patches = nn.Linear(3 * PATCH**2, channels)
        self.lights = nn.Parameter(torch.randn(lights, channels))
        self.reflectance, self.background = (
            nn.ModuleList(EncoderLayer(channels) for _ in range(layers)) for _ in range(2)
        )
        self.gather, self.render = (nn.ModuleList(DecoderLayer(channels) for _ in range(layers)) for _ in range(2))
        self.gather_norm, self.render_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.decode_reflectance, self.decode_illumination = decoder(channels), decoder(channels)

    def light_tokens(self, unit: Tensor, mask: Tensor, queries: Tensor) -> Tensor:
        """unit (B, 3, H, W) in [0, 1], mask (B, 1, H, W), queries (B, lights, C) -> (B, lights, C)."""
        rows, columns = (length // PATCH for length in unit.shape[2:])
        patches = F.unfold(unit * (1 - mask), PATCH, stride=PATCH)  # (B, colours x pixels, patches)
        patches = patches.unflatten(1, (3, PATCH**2)).permute(0, 3, 2, 1).flatten(2)
        hidden = F.max_pool2d(mask, PATCH).flatten(1) > 0
        hidden = hidden & ~hidden.all(dim=1, keepdim=True)  # with nothing left to attend to there would be no number
        tokens, position = self.patches(patches), sine_code(rows, columns, queries.shape[2], unit.device)
        for layer in self.background:
            tokens = layer(tokens, position, hidden)
        light = torch.zeros_like(queries)
        for layer in self.gather:
            light = layer(light, queries, tokens, position, hidden)
        return self.gather_norm(light)

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Peer.forward`."""
        unit = to_unit(composite)
        feature = self.encoder(torch.cat([unit, mask], dim=1))
        tokens = feature.flatten(2).transpose(1, 2)  # (B, N, C)
        position = sine_code(feature.shape[2], feature.shape[3], feature.shape[1], unit.device)
        for layer in self.reflectance:
            tokens = layer(tokens, position)
        queries = self.lights + unit.new_zeros(len(unit), 1, 1)
        lit, light = tokens, self.light_tokens(unit, mask, queries)
        for layer in self.render:
            lit = layer(lit, position, light, queries)
        maps = [each.transpose(1, 2).unflatten(2, feature.shape[2:]) for each in (tokens, self.render_norm(lit))]
        return from_unit(to_unit(self.decode_reflectance(maps[0])) * to_unit(self.decode_illumination(maps[1])))

    def own_loss(self, composite: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """See :meth:`Peer.own_loss`."""
        return 100 * F.l1_loss(to_unit(self.predict(composite, mask)), to_unit(real))
