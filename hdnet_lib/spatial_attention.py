"""SA, the attention gate of RainNet and SCS-Co, which Table 3 compares with MGD."""

from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """Multiply a feature by a sigmoid gate computed from it. The mask is not used."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """feature (B, C, H, W) -> (B, C, H, W)."""
        return feature * self.gate(feature).sigmoid()
