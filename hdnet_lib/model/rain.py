"""RAIN: region-aware adaptive instance normalisation (Ling et al., CVPR 2021)."""

import torch
from torch import Tensor, nn

from hdnet_lib.utils.regions import map_bands, region_statistics, resize_mask


class RAIN(nn.Module):
    """Normalise the background by its own statistics and give the foreground those of the background.

    With (mu_f, sd_f) and (mu_b, sd_b) the channel statistics of foreground and background::

        background:  (x - mu_b) / sd_b * (1 + gamma_b) + beta_b
        foreground: ((x - mu_f) / sd_f * sd_b + mu_b) * (1 + gamma_f) + beta_f

    The four vectors start at zero, so an untrained RAIN gives the foreground the mean and the
    standard deviation that the background had before.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.foreground_gamma = nn.Parameter(torch.zeros(channels))
        self.foreground_beta = nn.Parameter(torch.zeros(channels))
        self.background_gamma = nn.Parameter(torch.zeros(channels))
        self.background_beta = nn.Parameter(torch.zeros(channels))

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """feature (B, C, H, W), mask (B, 1, H', W') with 1 on the foreground -> (B, C, H, W) of its dtype."""
        dtype = feature.dtype
        feature = feature.to(torch.promote_types(dtype, torch.float32))  # bf16 would round the means to three digits
        mask = resize_mask(mask, feature)
        mean_f, sd_f = region_statistics(feature, mask, self.eps)
        mean_b, sd_b = region_statistics(feature, 1 - mask, self.eps)

        gamma_f = 1 + self.foreground_gamma.view(1, -1, 1, 1)
        gamma_b = 1 + self.background_gamma.view(1, -1, 1, 1)
        beta_f = self.foreground_beta.view(1, -1, 1, 1)
        beta_b = self.background_beta.view(1, -1, 1, 1)

        # Both lines are affine in x: fold each into one scale and one shift per image and channel.
        scale_f = sd_b / sd_f * gamma_f
        scale_b = gamma_b / sd_b
        shift_f = (mean_b * gamma_f + beta_f) - mean_f * scale_f
        shift_b = beta_b - mean_b * scale_b

        def normalize(feature: Tensor, mask: Tensor) -> Tensor:
            foreground = feature * scale_f + shift_f
            background = feature * scale_b + shift_b
            return background + mask * (foreground - background)

        return map_bands(normalize, feature, mask).to(dtype)
