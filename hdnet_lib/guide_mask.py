"""The learned mask of HDNet* (Table 3)."""

from torch import Tensor, nn


class GuideMask(nn.Module):
    """Predict the foreground mask from the feature map.

    Paper and released code do not say how: the code holds a 1x1 convolution to two regions that it
    never calls. A softmax over the two regions, inside the MGDs only, is this project's reading.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, kernel_size=1)

    def forward(self, feature: Tensor) -> Tensor:
        """feature (B, C, H, W) -> soft foreground mask (B, 1, H, W) in (0, 1)."""
        return self.conv(feature).softmax(dim=1)[:, :1]
