"""Partial convolution (Liu et al., ECCV 2018), which sees the pixels of a region alone."""

from torch import Tensor, nn
from torch.nn import functional as F


class PartialConv(nn.Conv2d):
    """A 3x3 convolution without padding over the pixels inside a region."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, stride: int = 2) -> None:
        super().__init__(inputs, outputs, 3, stride, bias=bias)

    def forward(self, feature: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """feature (B, C, H, W), region (B, 1, H, W) -> both at the new size; the region is where a window met it."""
        count = F.avg_pool2d(region, 3, self.stride, divisor_override=1)  # pixels of the region in each window
        seen = count.clamp(0, 1)
        result = F.conv2d(feature * region, self.weight, None, self.stride) * (9 / (count + 1e-8) * seen)
        if self.bias is not None:
            result = result + self.bias.view(1, -1, 1, 1) * seen
        return result, seen
