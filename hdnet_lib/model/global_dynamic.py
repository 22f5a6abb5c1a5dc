"""MGD, the mask-aware global dynamic module (section 3.3, Eq. 6)."""

from torch import Tensor, nn

from hdnet_lib.utils.regions import map_bands, resize_mask


class GlobalDynamic(nn.Module):
    """Convolve foreground and background with two 1x1 kernels that are predicted for each image.

    Eq. 6: ``F' = (F * W_f) x M + (F * W_b) x (1 - M)``.

    The kernels come from the mean of the whole feature map: four sigmoid scalars, two for each
    region, steer W_f and W_b as affine functions.

    Args:
        channels: C of the feature map; the kernels are C x C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.squeeze = nn.Conv2d(channels, 4, kernel_size=1)
        self.expand = nn.Conv2d(4, 2 * channels * channels, kernel_size=1, groups=2)

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """feature (B, C, H, W), mask (B, 1, H', W') with 1 on the foreground -> (B, C, H, W)."""
        foreground_kernel, background_kernel = self.kernels(feature)

        def convolve(feature: Tensor, mask: Tensor) -> Tensor:
            positions = feature.flatten(2)  # (B, C, HW)
            foreground = (foreground_kernel @ positions).view_as(feature)
            background = (background_kernel @ positions).view_as(feature)
            return background + mask * (foreground - background)

        return map_bands(convolve, feature, self.region_mask(feature, mask))

    def kernels(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """W_f and W_b of each image of feature (B, C, H, W), each (B, C, C): [b, o, i] maps channel i to channel o."""
        kernels = self.expand(self.steering(feature)).view(-1, 2, self.channels, self.channels)
        return kernels[:, 0], kernels[:, 1]

    def steering(self, feature: Tensor) -> Tensor:
        """The scalars in (0, 1) that steer the kernels, (B, 4, 1, 1): two for W_f, two for W_b."""
        return self.squeeze(feature.mean(dim=(2, 3), keepdim=True)).sigmoid()

    def region_mask(self, feature: Tensor, mask: Tensor) -> Tensor:
        """M of Eq. 6 at the feature's size, (B, 1, H, W)."""
        return resize_mask(mask, feature)
